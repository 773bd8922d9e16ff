"""Every rule of the tape that only moves numbers about, compared with differences in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from dsv4.learn import tape
from learn.differences import hold
from learn.tape.test_rules import BROADCAST, SHAPES, normal
from strategies import generators, sizes


@given(data=st.data(), generator=generators, shape=SHAPES)
def test_axes_that_change_places(data, generator, shape):
    """Counted from either end."""
    x = normal(generator, shape)
    one, other = (data.draw(st.integers(-len(shape), len(shape) - 1)) for _ in range(2))
    order = [axis - data.draw(st.sampled_from([0, len(shape)])) for axis in data.draw(st.permutations(range(x.ndim)))]
    for function in (
        lambda x: np.swapaxes(x, one, other),
        lambda x: x.swapaxes(one, other),
        lambda x: np.moveaxis(x, one, other),
        lambda x: np.copy(np.moveaxis(x, one, other), order="C"),
        lambda x: np.transpose(x, order),
        lambda x: x.transpose(*order),
        lambda x: x.T,
        lambda x: np.reshape(x, (-1, shape[0] or 1)),
        lambda x: x.reshape(-1),
        lambda x: x.reshape((1, *shape)),
    ):
        hold(function, x)


@given(data=st.data(), generator=generators, shape=SHAPES)
def test_moveaxis_of_two(data, generator, shape):
    shape = (2, *shape)
    hold(lambda x: np.moveaxis(x, (-2, -1), (0, 1)), normal(generator, shape))


@given(generator=generators, shapes=mutually_broadcastable_shapes(num_shapes=2, **BROADCAST))
def test_broadcast_to(generator, shapes):
    hold(lambda x: np.broadcast_to(x, shapes.result_shape), normal(generator, shapes.input_shapes[0]))


@given(data=st.data(), generator=generators, shape=SHAPES, times=sizes(0, 3))
def test_repeat(data, generator, shape, times):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    hold(lambda x: np.repeat(x, times, axis=axis), normal(generator, shape))


@given(data=st.data(), generator=generators, shape=SHAPES, others=st.lists(sizes(0, 3), max_size=2))
def test_concatenate_and_stack(data, generator, shape, others):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    place = axis % len(shape)
    parts = [normal(generator, (*shape[:place], size, *shape[place + 1 :])) for size in [shape[place], *others]]
    hold(lambda *parts: np.concatenate(parts, axis), *parts)
    hold(lambda *parts: np.concatenate([*parts, parts[0]], axis=axis), *parts)
    hold(lambda x: np.concatenate((np.ones(2), x.reshape(-1), [3.0, 4.0])), parts[0])
    hold(lambda x, y: np.stack([x, y, x], axis=axis), *(normal(generator, shape) for _ in range(2)))


@given(data=st.data(), generator=generators, shape=SHAPES, count=sizes(0, 4))
def test_take_along_axis(data, generator, shape, count):
    """Numbers and indices are broadcast along the other axes, either of them."""
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    place = axis % len(shape)
    count = count if shape[place] else 0
    once = [data.draw(st.booleans()) for _ in shape]
    of_indices = tuple(1 if one else size for one, size in zip(once, shape, strict=True))
    of_indices = (*of_indices[:place], count, *of_indices[place + 1 :])
    indices = generator.integers(-max(1, shape[place]), max(1, shape[place]), of_indices)
    hold(lambda x: np.take_along_axis(x, indices, axis=axis), normal(generator, shape))
    wide = generator.integers(0, shape[0], (count, 4)) if len(shape) == 1 and shape[0] else np.zeros((0, 4), int)
    hold(lambda x: np.take_along_axis(x, wide, axis=0), normal(generator, (shape[0], 1)))
    with pytest.raises(ValueError, match="the same number of dimensions"):
        np.take_along_axis(tape.leaf(np.ones(shape)), indices[None], axis)


BASIC = [
    np.s_[0], np.s_[-1, 1:], np.s_[:, None], np.s_[..., ::2], np.s_[..., 1::2], np.s_[::-1, ..., :-1],
    np.s_[:, :, None], np.s_[..., None, :], np.s_[:, 1, 2:0:-1], np.s_[:], np.s_[...],
]  # fmt: skip


@pytest.mark.parametrize("index", BASIC, ids=str)
def test_parts_by_steps(index):
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    hold(lambda x: x[index], x)
    hold(lambda x: x[index] * 2 + x[index], x)


def test_axes_of_length_one_come_and_go():
    x = np.random.default_rng(0).standard_normal((2, 1, 3))
    hold(lambda x: x[:, 0], x)
    hold(lambda x: x[::-1, 0], x)


@given(generator=generators, count=sizes(0, 7))
def test_rows_by_number_that_are_named_several_times(generator, count):
    x = normal(generator, (3, 4, 2))
    rows, columns = generator.integers(-3, 3, count), generator.integers(-4, 4, count)
    hold(lambda x: x[rows], x)
    hold(lambda x: x[rows.reshape(1, -1)], x)
    hold(lambda x: x[rows, columns], x)
    hold(lambda x: x[np.arange(3)[:, None], columns], x)
    hold(lambda x: x[rows, columns, 1], x)
    hold(lambda x: x[:, columns], x)
    hold(lambda x: x[..., columns % 2], x)


@given(generator=generators)
def test_rows_by_mask(generator):
    x = normal(generator, (3, 4, 2))
    hold(lambda x: x[generator.random((3, 4)) < 2], x)
    mask = generator.random((3, 4)) < 0.5
    hold(lambda x: x[mask], x)
    hold(lambda x: x[np.nonzero(mask)], x)


@given(generator=generators)
def test_write(generator):
    rows, values = normal(generator, (2, 5, 3)), normal(generator, (2, 3))
    index = (np.arange(2), generator.integers(0, 5, 2))
    hold(lambda rows, values: tape.TapeOps.write(rows, index, values), rows, values)
    hold(lambda rows: tape.TapeOps.write(rows, index, 1.5), rows)
    hold(lambda rows: tape.TapeOps.write(rows, index, [[1.0, 2, 3]] * 2), rows)

    def assigned(values):
        rows = np.zeros_like(values, shape=(2, 5, 3))
        rows[index] = values
        rows[:, 1] = 2 * values
        return rows

    hold(assigned, values)


def test_a_cast_and_back():
    x = tape.leaf(np.array([1.0, 2, 3], np.float32))
    wide = x.astype(np.float64)
    assert wide.dtype == np.float64
    [gradient] = tape.gradients((wide * np.array([1, 10, 100.0])).sum(), [x])
    assert gradient.dtype == np.float32
    np.testing.assert_array_equal(gradient, [1, 10, 100])
