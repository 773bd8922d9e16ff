"""The command `dsv4`: text from a model, a look into a checkpoint, and checks of one against another."""

import sys
import warnings
from typing import Any

import numpy as np
from typer import Exit
from typer.main import get_command

from dsv4.cli.added import add_installed
from dsv4.cli.app import app
from dsv4.cli.ending import DONE, end, say
from dsv4.cli.streams import prepare

# Importing a module adds its commands to the app, in the order in which the help lists them.
from dsv4.cli import text, serve, explain, files, cost, compare, train, posttrain, diloco  # noqa: F401  isort: skip


def main() -> None:
    """Run the command and end the process; `dsv4.cli.ending` says with which status, and what is said."""
    try:
        prepare()
        status = _run(sys.argv[1:])
        sys.stdout.flush()
    except SystemExit:
        raise
    except BaseException as error:
        status = end(error)
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    """Do what the arguments ask for, and give the exit status. Typer's own way would make every closed pipe a 1."""
    command = get_command(app)
    add_installed(command, arguments)
    try:
        # Results that are not finite are looked for, and said in words.
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.showwarning = _show_warning
            with command.make_context("dsv4", arguments) as context:
                command.invoke(context)
    except Exit as ended:
        return ended.exit_code
    return DONE


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning in one line as everything else, and not where in the code it comes from."""
    say(str(message))
