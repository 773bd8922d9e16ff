"""Large numbers as people read and write them."""

import re

from dsv4.errors import SettingError, quoted

UNITS = {"": 1, "B": 1} | {
    letter + end: base**power
    for power, letter in enumerate("kMGT", start=1)
    for end, base in (("B", 1000), ("iB", 1024))
}
"""Bytes of each unit: kB, MB, GB and TB are powers of 1000, kiB, MiB, GiB and TiB of 1024."""


def short(count: float) -> str:
    """A count in three digits or so: 2.71M, 284B, 1.60T."""
    for unit, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{letter}" if count < 1000 * unit else f"{count / unit:.0f}{letter}"
    return str(count)


def size_of(count: int) -> str:
    """Bytes in the unit that fits: 2.31 MB, 158 GB."""
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} B"


def bytes_of(text: str, option: str) -> int:
    """The bytes that a size like 8GiB, 500 MB or 1.5e9 names. Raises SettingError that names the option."""
    match = re.fullmatch(r"(?P<number>\d+(\.\d+)?(e\d\d?)?) ?(?P<unit>[A-Za-z]*)", text.strip())
    unit = next((size for name, size in UNITS.items() if match and name.lower() == match["unit"].lower()), None)
    if match is None or unit is None:
        raise SettingError(f"{option}: expected a size such as 8GiB or 500MB, found {quoted(text)}")
    return int(float(match["number"]) * unit)
