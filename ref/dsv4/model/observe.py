"""A way to observe intermediate results, for tests, `dsv4 verify` and notebooks."""

from collections.abc import Callable

from dsv4.ops.types import Array, Ints

Observer = Callable[[str, Array | Ints], None]
"""Called with the name of a result, such as "layers.0.attn.out", and the result. It must not write to it."""


def ignore(name: str, result: Array | Ints) -> None:
    """The observer that does nothing."""
