"""What accelerated backends promise beyond the results of single operations."""
