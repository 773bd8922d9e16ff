"""A long run of mixed load against `dsv4 serve`, each reply compared with the one that is computed alone."""
