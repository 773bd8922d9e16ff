"""Checks of what a caller hands over, and how a message quotes what it found.

NumPy's integers and floats count as numbers; true and false do not, nor does text that spells one.
"""

import math
import numbers
import reprlib
from typing import Any

import numpy as np

from dsv4.errors import DSV4Error, SettingError

QUOTED_AT_MOST = 80
"""Characters of a found value that a message quotes."""


def integer(
    name: str, value: Any, least: int = 0, most: int | None = None, error: type[DSV4Error] = SettingError
) -> int:
    """The value as an int. Raises `error`, which names the argument, for what is no integer from `least` to `most`."""
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_integer or value < least or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise error(f"{name}: expected an integer {limits}, found {shown(value)}")
    return int(value)


def number(name: str, value: Any, error: type[DSV4Error] = SettingError) -> float:
    """The value as a float. Raises `error`, which names the argument, for what is no finite number."""
    try:
        found = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise error(f"{name}: expected a finite number, found {shown(value)}")
    return found


def flag(name: str, value: Any) -> bool:
    """The value as a bool. Raises SettingError, which names the argument, for anything but true and false."""
    if not isinstance(value, bool | np.bool):
        raise SettingError(f"{name}: expected True or False, found {shown(value)}")
    return bool(value)


def shown(value: Any) -> str:
    """A value as an error message quotes it: on one line of at most QUOTED_AT_MOST characters."""
    text = _SHORT.repr(value)
    return text if len(text) <= QUOTED_AT_MOST else text[: QUOTED_AT_MOST - 1] + "…"


class _Short(reprlib.Repr):
    """repr, without the work that a long list or a huge integer would make."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 4, QUOTED_AT_MOST, QUOTED_AT_MOST
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = 20

    def repr_int(self, value: int, level: int) -> str:
        """Python refuses to write out integers of thousands of digits."""
        digits = int(value.bit_length() * math.log10(2)) + 1
        return repr(value) if digits <= 40 else f"an integer of about {digits} digits"

    def repr_instance(self, value: Any, level: int) -> str:
        """What has line breaks in its repr, as arrays have, goes on one line."""
        return " ".join(super().repr_instance(value, level).split())


_SHORT = _Short()
