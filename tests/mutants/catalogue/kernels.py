"""What the catalogues of kernels share: how a mistake in one is written down, and what kills most of Numba's."""

from functools import partial

from mutants.mutant import Mutant

kernel = partial(Mutant, package="dsv4_accel")
"""A mistake in dsv4_accel; its tests must be about that backend, which other parts leave out."""


def large(call: str, batch: int = 7) -> tuple[str, ...]:
    """The test of one call of `accel.calls.LARGE`, for so many rows of three tokens each."""
    return (f"accel/test_numba_large.py::test_as_good_as_numpy[{call}-{batch}]",)
