"""What installed packages add to dsv4: the entry points of a group, and what is said of one that cannot be loaded."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def installed(group: str, ours: dict[str, str]) -> dict[str, "EntryPoint"]:
    """The entry points of a group by their names.

    ours: the project's own, name -> value. Those whose package is there count without an installation, too, as in a
    source tree, where nothing has registered them.
    """
    from importlib.metadata import EntryPoint, entry_points  # slow to import, and seldom needed

    points = {
        name: EntryPoint(name, value, group) for name, value in ours.items() if find_spec(value.partition(".")[0])
    }
    return points | {point.name: point for point in entry_points(group=group)}


def failure(point: "EntryPoint", error: Exception) -> str:
    """What was expected of an entry point that could not be loaded, and found, in one line."""
    found = " ".join(f"{type(error).__name__}: {error}".split())
    return f"expected to load {point.value}, found {found}"
