"""What the operations and whole passes cost on this machine, beside NumPy, torch, transformers and ggml.

`dsv4 bench` is this package. Times say little by themselves, since machines differ and drift; so every row is a
contest whose contestants run in turns, and what counts are ratios: to the others, and to the fastest that this machine
can read its memory, which takes its turn in the contest, too.
"""
