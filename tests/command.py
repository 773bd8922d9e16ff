"""The command as tests run it in their own process."""

import sys
from collections.abc import Callable

import pytest

from dsv4.cli import main


def runner(monkeypatch, capfd) -> Callable[..., tuple[int, str, str]]:
    """A function: arguments -> exit status, and what the command and its libraries wrote to 1 and 2."""

    def run(*arguments):
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["dsv4", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capfd.readouterr()
        return stopped.value.code, printed.out, printed.err

    return run


def is_one_line(err: str) -> bool:
    return err.startswith("dsv4: ") and err.count("\n") == 1 and err.endswith("\n")
