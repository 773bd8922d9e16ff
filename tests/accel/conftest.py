"""What the tests of the bench share."""

import sys

import pytest

from dsv4.cli import main


@pytest.fixture
def dsv4(monkeypatch, capsys):
    """Run the command in this process: arguments -> exit status, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["dsv4", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr()
        return stopped.value.code or 0, printed.out, printed.err

    return run
