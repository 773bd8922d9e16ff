"""`python -m dsv4` is the command `dsv4`, but for Ctrl-C while it loads: Python loads the package before this."""

from dsv4_command import main

if __name__ == "__main__":
    main()
