"""Checks of what a caller hands over.

NumPy's integers and floats count as numbers; true and false do not, nor does text that spells one.
"""

import math
import numbers
from typing import Any

import numpy as np

from dsv4.errors import DSV4Error, SettingError, quoted


def integer(
    name: str, value: Any, least: int = 0, most: int | None = None, error: type[DSV4Error] = SettingError
) -> int:
    """The value as an int. Raises `error`, which names the argument, for what is no integer from `least` to `most`."""
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_integer or value < least or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise error(f"{name}: expected an integer {limits}, found {quoted(value)}")
    return int(value)


def number(name: str, value: Any, error: type[DSV4Error] = SettingError) -> float:
    """The value as a float. Raises `error`, which names the argument, for what is no finite number."""
    try:
        found = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise error(f"{name}: expected a finite number, found {quoted(value)}")
    return found


def flag(name: str, value: Any) -> bool:
    """The value as a bool. Raises SettingError, which names the argument, for anything but true and false."""
    if not isinstance(value, bool | np.bool):
        raise SettingError(f"{name}: expected True or False, found {quoted(value)}")
    return bool(value)
