"""Every rule of the tape that computes, compared with differences in float64; the others are in test_rules_shapes."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from dsv4.learn import tape
from learn.differences import hold
from strategies import generators, sizes


def apart(generator, shape):
    """Numbers of which no two are near to each other, so that none of them ties at a step's distance."""
    numbers = generator.permutation(int(np.prod(shape)))
    return (numbers - numbers.size / 2 + generator.uniform(0.1, 0.4)).reshape(shape)


def positive(generator, shape):
    return generator.uniform(0.5, 2, shape)


def normal(generator, shape):
    return generator.standard_normal(shape)


ONE = {
    np.negative: normal,
    np.exp: normal,
    np.log: positive,
    np.sqrt: positive,
    np.square: normal,
}
TWO = {
    np.add: normal,
    np.subtract: normal,
    np.multiply: normal,
    np.divide: positive,
    np.logaddexp: normal,
    np.maximum: apart,
    np.minimum: apart,
}
SHAPES = st.lists(sizes(0, 3), min_size=1, max_size=3).map(tuple)
FULL = st.lists(sizes(1, 3), min_size=1, max_size=3).map(tuple)
BROADCAST = {"max_dims": 3, "min_side": 0, "max_side": 3}


@pytest.mark.parametrize("function", ONE, ids=lambda function: function.__name__)
@given(generator=generators, shape=SHAPES)
def test_of_one_operand(function, generator, shape):
    hold(function, ONE[function](generator, shape))


@pytest.mark.parametrize("function", TWO, ids=lambda function: function.__name__)
@given(generator=generators, shapes=mutually_broadcastable_shapes(num_shapes=2, **BROADCAST))
def test_of_two_operands_that_are_broadcast(function, generator, shapes):
    size = [int(np.prod(shape)) for shape in shapes.input_shapes]
    both = TWO[function](generator, (sum(size),))
    x, y = (part.reshape(shape) for part, shape in zip(np.split(both, size[:1]), shapes.input_shapes, strict=True))
    hold(function, x, y)
    hold(function, x, y, operands=[1])


@pytest.mark.parametrize("function", TWO, ids=lambda function: function.__name__)
@given(generator=generators, shape=FULL)
def test_a_list_of_numbers_is_an_array(function, generator, shape):
    x, y = TWO[function](generator, (2, *shape))
    hold(lambda x: function(x, y.tolist()), x)
    hold(lambda y: function(x.tolist(), y), y)
    hold(lambda x, y: np.where((np.arange(shape[-1]) > 0).tolist(), x, y), x, y)


@given(generator=generators)
def test_equal_numbers_share_the_gradient_of_the_larger_one(generator):
    x = normal(generator, (4,))
    for function in (np.maximum, np.minimum):
        one, other = tape.leaf(x), tape.leaf(x)
        for gradient in tape.gradients(function(one, other).sum(), [one, other]):
            np.testing.assert_array_equal(gradient, 0.5)


@given(generator=generators, shape=FULL)
def test_clip(generator, shape):
    hold(lambda x: np.clip(x, -1.5, 2.5), apart(generator, shape))


def test_clip_with_one_limit_or_an_array_of_them():
    x = np.array([-2.25, -1, 0.5])
    hold(lambda x: np.clip(x, None, -1.5), x)
    hold(lambda x: np.clip(x, -1.5, None), x)
    hold(lambda x: np.clip(x, np.array([[-1.5], [-2.5]]), 0.25), x)
    narrow = tape.leaf(x.astype(np.float32))
    assert tape.gradients(np.clip(narrow, np.array(-1.5), 2.5).sum(), [narrow])[0].dtype == np.float32


def test_a_number_on_the_limit_is_not_cut():
    """By clip, nor by a minimum with a constant; a maximum with a constant is a ReLU, which gives nothing at 0."""
    x = tape.leaf(np.array([-2.0, -1, 0, 1, 2]))
    for y in (np.clip(x, -1, 1), np.clip(x, -1, np.array(1.0))):
        np.testing.assert_array_equal(tape.gradients(y.sum(), [x]), [[0, 1, 1, 1, 0]])
    for constant in (1.0, np.full(5, 1.0), tape.TapeOps.asarray(np.ones(1))):
        for y in (np.minimum(x, constant), np.minimum(constant, x)):
            np.testing.assert_array_equal(tape.gradients(y.sum(), [x]), [[1, 1, 1, 1, 0]])
        for y in (np.maximum(x, constant), np.maximum(constant, x)):
            np.testing.assert_array_equal(tape.gradients(y.sum(), [x]), [[0, 0, 0, 0, 1]])


@given(generator=generators, shapes=mutually_broadcastable_shapes(num_shapes=3, **BROADCAST))
def test_where(generator, shapes):
    condition, x, y = (normal(generator, shape) for shape in shapes.input_shapes)
    hold(np.where, condition > 0, x, y)
    hold(lambda x: np.where(condition > 0, x, -1.0), x)


@given(
    generator=generators,
    shapes=mutually_broadcastable_shapes(signature=np.matmul.signature.replace("?", ""), **BROADCAST),
)
def test_matrix_products_that_are_broadcast(generator, shapes):
    hold(np.matmul, *(normal(generator, shape) for shape in shapes.input_shapes))


def test_a_matrix_in_a_list():
    x = normal(np.random.default_rng(0), (2, 3))
    hold(lambda x: np.matmul(x, [[1.0], [2.0], [3.0]]), x)
    hold(lambda x: [[1.0, 2.0]] @ x, x)


def test_vectors_in_a_matrix_product_are_an_error():
    with pytest.raises(TypeError, match="matmul has a rule for matrices only"):
        tape.leaf(np.ones((2, 3))) @ np.ones(3)


def axes_of(data, shape, several=True):
    """Any axis, counted from either end, or several, or None for all."""
    every = st.integers(-len(shape), len(shape) - 1)
    tuples = st.lists(every, unique_by=lambda axis: axis % len(shape)).map(tuple)
    return data.draw(st.one_of(every, st.none(), *([tuples] if several else [])))


@pytest.mark.parametrize("function", [np.sum, np.mean], ids=lambda function: function.__name__)
@given(data=st.data(), generator=generators, shape=SHAPES, keepdims=st.booleans())
def test_sums_and_means(function, data, generator, shape, keepdims):
    axis = axes_of(data, shape)
    summed = zip(shape, np.sum(np.ones(shape), axis=axis, keepdims=True).shape, strict=True)
    assume(function is np.sum or all(size for size, left in summed if left == 1))  # NumPy knows no mean of nothing
    hold(lambda x: function(x, axis=axis, keepdims=keepdims), normal(generator, shape))
    hold(lambda x: getattr(x, function.__name__)(axis=axis, keepdims=keepdims), normal(generator, shape))


@pytest.mark.parametrize("function", [np.max, np.min], ids=lambda function: function.__name__)
@given(data=st.data(), generator=generators, shape=FULL, keepdims=st.booleans())
def test_largest_and_smallest(function, data, generator, shape, keepdims):
    axis = axes_of(data, shape)
    hold(lambda x: function(x, axis=axis, keepdims=keepdims), apart(generator, shape))
    initial = float(generator.integers(-2, 3))
    hold(lambda x: function(x[:0], axis=0, initial=initial, keepdims=keepdims), apart(generator, shape))
    hold(lambda x: getattr(x, function.__name__)(axis=axis, initial=initial), apart(generator, shape))


def test_equal_largest_numbers_share_the_gradient():
    x = tape.leaf(np.array([[1.0, 3, 3], [2, 2, 2]]))
    [gradient] = tape.gradients(x.max(axis=1).sum(), [x])
    np.testing.assert_allclose(gradient, [[0, 0.5, 0.5], [1 / 3] * 3])


def test_the_largest_of_nothing_is_the_initial_number():
    x = tape.leaf(np.zeros((2, 0)))
    assert tape.gradients((x.max(axis=1, initial=-1.0) * 2).sum(), [x])[0].shape == (2, 0)


def test_every_rule_has_a_test():
    """By name in this file or in test_rules_shapes, or in one of the tables above."""
    elsewhere = {np.clip, np.where, np.matmul, np.sum, np.mean, np.max, np.min, np.reshape, np.swapaxes, np.moveaxis}
    elsewhere |= {np.copy}
    elsewhere |= {np.transpose, np.broadcast_to, np.repeat, np.concatenate, np.stack, np.take_along_axis}
    assert set(tape.RULES) == {*ONE, *TWO} | elsewhere
