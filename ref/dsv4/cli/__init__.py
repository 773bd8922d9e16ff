"""The command `dsv4`: text from a model, a look into a checkpoint, and checks of one against another."""

import io
import os
import sys

import numpy as np
from typer import Abort
from typer.exceptions import TyperException

from dsv4.cli.app import app
from dsv4.errors import DSV4Error

# Importing a module adds its commands to the app, in the order in which the help lists them.
from dsv4.cli import text, files, cost, compare, measure  # noqa: F401  isort: skip


def main() -> None:
    """Run the command; what a user got wrong is one line on standard error and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows another
    try:
        with np.errstate(all="ignore"):  # results that are not finite are looked for, and said in words
            sys.exit(app(standalone_mode=False))
    except BrokenPipeError:  # the reader of our output has gone, as in `dsv4 inspect | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (Abort, KeyboardInterrupt):
        sys.exit(130)
    except TyperException as error:
        _refuse(error.format_message() if hasattr(error, "format_message") else str(error))
    except OSError as error:
        _refuse(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except DSV4Error as error:
        _refuse(str(error))


def _refuse(message: str) -> None:
    print("dsv4: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)
