"""Parts of a recipe: JSON objects as dataclasses, with every mistake named by its key."""

from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any

from dsv4.arguments import integer, number
from dsv4.errors import SettingError, quoted

LARGEST = 2**40
"""A larger number means that the file is damaged."""


def section(raw: Any, kind: type, source: str, prefix: str) -> dict[str, Any]:
    """The values of a JSON object for a dataclass: no key that it lacks, and every one that has no default."""
    if not isinstance(raw, Mapping):
        raise SettingError(f"{source}: {prefix.rstrip('.') or 'recipe'}: expected a JSON object, found {quoted(raw)}")
    known = {entry.name: entry for entry in fields(kind) if entry.name != "source"}
    for key in raw:
        if key not in known:
            where = f"{source}: {prefix.rstrip('.')}".rstrip(": ")
            raise SettingError(f"{where}: expected the keys {', '.join(known)}, found {quoted(key)}")
    for key, entry in known.items():
        if key not in raw and entry.default is MISSING:
            raise SettingError(f"{source}: {prefix}{key}: expected a value, found no such key")
    return dict(raw)


def check_numbers(section: Any, source: str, prefix: str, may_be_zero: Collection[str]) -> None:
    """Raise SettingError unless the integers and floats of a dataclass are that, positive, and not beyond all measure.

    section: None for a part that is not there; may_be_zero: the names of those that may be 0.
    """
    for entry in fields(section) if section is not None else ():
        value, name = getattr(section, entry.name), f"{source}: {prefix}{entry.name}"
        from_zero = entry.name in may_be_zero
        if entry.type is int:
            integer(name, value, least=0 if from_zero else 1, most=LARGEST)
        elif entry.type is float:
            found = number(name, value)
            if not (0 < found <= LARGEST or (from_zero and found == 0)):
                least = "a number from 0" if from_zero else "a positive number"
                raise SettingError(f"{name}: expected {least}, found {quoted(value)}")
