"""Hypothesis strategies for the arrays that the operations take: shapes, scales, memory layouts, ties, indices.

Values come from a drawn seed and not from Hypothesis itself: sums of well-behaved numbers allow tight
tolerances, and what a test needs beyond that (ties, zeros, extreme scales, −1) is mixed in by name.
"""

import numpy as np
from hypothesis import strategies as st

from dsv4.checking import arrays

MAGNITUDES = st.floats(-38, 38).map(lambda exponent: 10.0**exponent)
"""Scales from 1e-38, a subnormal float32, to 1e38."""


def sizes(smallest: int = 0, largest: int = 4):
    """The length of an axis. Operations that allow it are tried with an empty axis."""
    return st.integers(smallest, largest)


generators = st.integers(0, 2**32 - 1).map(np.random.default_rng)
"""Sources of random numbers, reproducible from the drawn seed."""


@st.composite
def laid_out(draw, array: np.ndarray) -> np.ndarray:
    """An equal array with its axes permuted in memory, some running backwards and some with gaps."""
    order = draw(st.permutations(range(array.ndim)))
    backwards = draw(st.tuples(*[st.booleans()] * array.ndim))
    steps = draw(st.tuples(*[st.integers(1, 2)] * array.ndim))
    return arrays.laid_out(array, order, steps, backwards)


@st.composite
def normal(draw, *shape: int, scale: float = 1.0) -> np.ndarray:
    """Normally distributed float32 numbers in any memory layout."""
    values = draw(generators).standard_normal(shape) * scale
    return draw(laid_out(values.astype(np.float32)))


@st.composite
def extreme(draw, *shape: int) -> np.ndarray:
    """float32 numbers for a codec: each row at a scale of its own, with zeros of both signs and repeated values."""
    generator = draw(generators)
    row_scales = 10.0 ** generator.uniform(-38, 37, shape[:-1])
    values = np.clip(generator.standard_normal(shape), -9, 9) * row_scales[..., None] * draw(st.sampled_from([1, 1e-6]))
    special = generator.random(shape)
    values = np.where(special < 0.1, 0.0, values)
    values = np.where((special > 0.1) & (special < 0.2), -0.0, values)
    return draw(laid_out(values.astype(np.float32)))


@st.composite
def with_ties(draw, *shape: int) -> np.ndarray:
    """float32 numbers of which many are equal."""
    values = draw(generators).integers(-2, 3, shape) / 2
    return draw(laid_out(values.astype(np.float32)))


@st.composite
def indices(draw, *shape: int, rows: int) -> np.ndarray:
    """Row numbers, with repetitions, mixed with −1; nothing but −1 where there are no rows."""
    values = draw(generators).integers(-1, rows, shape)
    values = np.where(draw(st.booleans()), values, -1) if rows else values
    return draw(laid_out(values.astype(draw(st.sampled_from([np.int32, np.int64])))))
