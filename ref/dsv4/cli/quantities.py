"""Large numbers as people read them."""


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
