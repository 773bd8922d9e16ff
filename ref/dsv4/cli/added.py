"""Commands that other packages add to `dsv4`, among them `dsv4 bench`.

The entry-point group `dsv4.commands` holds them: an entry's name is that of the command, its value a function as
`typer.Typer.command` takes it, or a `typer.Typer` with commands of its own. Any installed package may add one.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import typer
from typer.main import get_command

from dsv4.entry_points import failure, installed
from dsv4.errors import SettingError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "dsv4.commands"
OURS = {"bench": "dsv4_accel.bench.command:bench"}


def add_installed(command: Any, arguments: Sequence[str]) -> None:
    """Add the commands of the group to `dsv4`, unless the arguments ask for one that it has by itself.

    command: the group that `typer.main.get_command` gives. A command that cannot be loaded says so when it is called,
    and hinders no other. One with the name of another that `dsv4` has is left out.
    """
    if arguments and arguments[0] in command.commands:
        return
    for name, point in sorted(installed(GROUP, OURS).items()):
        if name not in command.commands:
            command.add_command(_loaded(name, point), name)


def _loaded(name: str, point: "EntryPoint") -> Any:
    """The command of an entry."""
    try:
        found = point.load()
    except Exception as error:  # code from outside, and the libraries that it needs, can fail in any way
        settings = {"allow_extra_args": True, "ignore_unknown_options": True}
        return _command(_refusal(name, point, error), help="Cannot be loaded.", context_settings=settings)
    return get_command(found) if isinstance(found, typer.Typer) else _command(found)


def _command(function: Callable[..., None], **settings: Any) -> Any:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(**settings)(function)
    return get_command(app)


def _refusal(name: str, point: "EntryPoint", error: Exception) -> Callable[[], None]:
    """What says why a command cannot be had."""
    reason = failure(point, error)

    def refuse() -> None:
        raise SettingError(f"{name}: {reason}")

    return refuse
