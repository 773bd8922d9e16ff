"""`python -m dsv4` is the command `dsv4`."""

from dsv4_command import main

if __name__ == "__main__":
    main()
