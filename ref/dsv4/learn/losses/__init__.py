"""What training makes small: plain NumPy functions, each in a file of its name, which also work on a tape's tensors."""
