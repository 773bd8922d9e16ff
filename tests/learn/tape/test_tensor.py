"""What a Tensor is, what it refuses, and what the sweep visits. No gradient is lost without a word."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dsv4.learn import tape


@pytest.fixture
def x():
    return tape.leaf(np.array([[1.0, 2, 3], [4, 5, 6]]))


@pytest.mark.parametrize(
    ("use", "name"),
    [
        (np.cumsum, "numpy.cumsum"),
        (np.sort, "numpy.sort"),
        (np.tanh, "numpy.tanh"),
        (np.floor, "numpy.floor"),
        (np.frexp, "numpy.frexp"),
        (np.add.reduce, "numpy.add.reduce"),
        (np.multiply.accumulate, "numpy.multiply.accumulate"),
        (lambda x: np.exp(x, out=np.zeros(x.shape)), "numpy.exp has no rule with out"),
        (lambda x: np.exp(x, where=x > 2), "numpy.exp has no rule with where"),
        (lambda x: np.einsum("ab->ba", x), "einsum"),
        (lambda x: np.linalg.norm(x), "numpy.linalg.norm"),
        (lambda x: x**3, "numpy.power"),
        (lambda x: np.max(x, axis=0, where=x.data > 2, initial=0), "where"),
        (lambda x: x.max(axis=0, initial=tape.leaf(0.0)), "max has no gradient by its argument initial"),
        (lambda x: np.max(x, 0, np.zeros(3)), "positional"),
        (lambda x: np.sum(x, 0, np.float64), "positional"),
        (lambda x: np.mean(x, 0, np.float64), "positional"),
    ],
)
def test_a_function_without_a_rule_is_an_error_that_names_it(x, use, name):
    with pytest.raises(TypeError, match=name):
        use(x)


@pytest.mark.parametrize(
    "use",
    [
        np.asarray, np.array, float, bool, list, lambda x: np.array([x, x]), lambda x: np.zeros(3).__iadd__(x[0]),
        lambda x: np.zeros((2, 3)).__setitem__(0, x[0]), lambda x: 1 if x.sum() > 3 and x.sum() else 0, tuple,
    ],
)  # fmt: skip
def test_the_numbers_are_not_to_be_had_unasked(x, use):
    with pytest.raises(TypeError, match="tape: "):
        use(x)


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x * [x[0], x[1]],
        lambda x: [[x[0]], [x[1]]] * x,
        lambda x: x < [[x[0]], [x[1]]],
        lambda x: np.where([True, False, True], x, [x[0], x[1]]),
        lambda x: np.concatenate([x, [x[0]]]),
        lambda x: x.__setitem__(0, [x[0, 0], x[0, 1], x[0, 2]]),
        lambda x: x[(x, 0)],
    ],
)
def test_a_list_of_tensors_is_an_error_that_says_what_to_do(x, use):
    with pytest.raises(TypeError, match=r"expected arrays, found a list with a Tensor in it: np\.stack makes one"):
        use(x)


@pytest.mark.parametrize("use", [np.concatenate, np.stack])
def test_what_is_joined_comes_in_a_list(x, use):
    with pytest.raises(TypeError):
        use(x)


def test_a_gradient_that_no_rule_gives_is_an_error(x):
    for use in (lambda: np.clip(np.ones(3), x[0], 5.0), lambda: np.clip(x, x - 1, None), lambda: np.clip(x, 0, x[0])):
        with pytest.raises(TypeError, match=r"tape: .*clip has no gradient by its argument [23]"):
            use()


def test_an_operator_that_writes_is_an_error(x):
    with pytest.raises(TypeError, match=r"numpy\.add has no rule with out"):
        x += 1


def test_choices_and_comparisons_are_plain_arrays(x):
    for found in (x > 2, x == x, np.isfinite(x), np.argsort(x), np.argmax(x), x.astype(bool), x.astype(np.int64)):
        assert isinstance(found, np.ndarray | np.integer)
        assert np.asarray(found).dtype.kind in "bi"
    assert len(np.nonzero(x)) == 2


def test_a_constant_has_no_node_and_may_go_through_anything_number_by_number(x):
    constant = tape.TapeOps.asarray(np.ones(3))
    assert constant.node is None
    assert np.tanh(constant).node is None
    assert (constant * constant).node is None
    assert (constant * x).node is not None
    assert np.zeros_like(x).node is None
    with pytest.raises(TypeError, match="tanh"):
        np.tanh(constant * x)


def test_integers_do_not_become_tensors(x):
    for numbers in (3, [1, 2], np.arange(3), np.ones(2, bool)):
        with pytest.raises(TypeError, match=r"tape: expected floats, found (int64|bool)"):
            tape.leaf(numbers)
        with pytest.raises(TypeError, match=r"tape: expected floats, found (int64|bool)"):
            tape.Tensor(numbers)
    assert isinstance(np.zeros_like(x, dtype=np.int64), np.ndarray)
    assert isinstance(np.where(x > 2, 1, 0), np.ndarray)


def test_what_looks_like_an_array(x):
    assert (x.shape, x.ndim, x.size, x.dtype, x.nbytes, len(x)) == ((2, 3), 2, 6, np.float64, 48, 2)
    assert repr(x).startswith("Tensor(array([[1.")


def test_python_numbers_keep_the_dtype():
    x = tape.leaf(np.ones(3, np.float32))
    y = 2 * x / 3.0 - 1
    assert y.dtype == np.float32
    assert tape.gradients(y.sum(), [x])[0].dtype == np.float32


def test_gradients_have_the_dtype_of_what_they_are_of():
    x, y = tape.leaf(np.ones(3, np.float32)), tape.leaf(np.ones((2, 3)))
    found = tape.gradients((x * y).sum(), [x, y])
    assert [one.dtype for one in found] == [np.float32, np.float64]
    np.testing.assert_array_equal(found[0], [2, 2, 2])


def test_an_earlier_view_does_not_see_a_later_write():
    x = tape.leaf(np.ones(3))
    rows = tape.TapeOps.zeros((4, 3), np.float64)
    rows[0] = 2 * x
    view = rows[:2]
    squares = view * view
    rows[0] = 5 * x
    after = tape.TapeOps.write(rows, 1, 7 * x)
    np.testing.assert_array_equal(view.data[0], 2)
    np.testing.assert_array_equal(rows.data[1], 0)
    np.testing.assert_array_equal(tape.gradients(squares.sum(), [x])[0], 8)
    np.testing.assert_array_equal(tape.gradients(after.sum(), [x])[0], 12)


def test_a_written_leaf_leaves_its_array_alone():
    array = np.ones(3)
    x = tape.leaf(array)
    x[0] = 5.0
    np.testing.assert_array_equal(array, 1)


def test_a_copy_is_written_to_by_itself(x):
    other = copy.deepcopy(x)
    other[0] = 0.0
    assert x.data.all()
    assert other.node is not x.node


def test_a_cast_to_the_same_dtype_is_written_to_by_itself(x):
    """As NumPy's, unless copy=False: then it is the same array."""
    other = x.astype(np.float64)
    other[0] = 0.0
    assert x.data.all()
    np.testing.assert_array_equal(tape.gradients((x * x).sum(), [x])[0], 2 * x.data)
    assert x.astype(np.float64, copy=False) is x


def test_gradients_of_what_has_no_node_are_an_error(x):
    """A leaf that is off the path has zeros; a constant, or a plain array, was never asked to remember anything."""
    for constant in (tape.TapeOps.asarray(x.data), x.data):
        with pytest.raises(ValueError, match="gradients: expected Tensors with a node, found a constant at place 1"):
            tape.gradients(x.sum(), [x, constant])


def test_zeros_for_what_the_loss_does_not_depend_on(x):
    other = tape.leaf(np.ones(2, np.float32))
    [gradient] = tape.gradients(x.sum(), [other])
    np.testing.assert_array_equal(gradient, np.zeros(2, np.float32), strict=True)
    [gradient] = tape.gradients(tape.Tensor(1.0), [other])
    np.testing.assert_array_equal(gradient, np.zeros(2, np.float32), strict=True)


def test_a_loss_of_several_numbers_is_an_error(x):
    with pytest.raises(ValueError, match=r"expected a loss of one number, found shape \(2, 3\)"):
        tape.gradients(x, [x])


def test_the_graph_may_be_swept_again_also_for_another_loss(x):
    shared = np.exp(x)
    one, other = shared.sum(), (2 * shared[0]).sum()
    first = tape.gradients(one, [x])[0]
    second = tape.gradients(other, [x])[0]
    np.testing.assert_array_equal(tape.gradients(one, [x])[0], first)
    np.testing.assert_array_equal(first, np.exp(x.data))
    np.testing.assert_array_equal(second, np.exp(x.data) * [[2], [0]])


def test_threads_may_sweep_one_graph_at_once(x):
    loss = np.exp(x * x).sum()
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: tape.gradients(loss, [x])[0], range(20)):
            np.testing.assert_array_equal(found, tape.gradients(loss, [x])[0])


def test_gradients_of_a_result_on_the_way_and_of_the_loss_itself(x):
    middle = 3 * x
    loss = (middle * middle).sum()
    of_x, of_middle, of_loss = tape.gradients(loss, [x, middle, loss])
    np.testing.assert_allclose(of_middle, 6 * x.data)
    np.testing.assert_allclose(of_x, 18 * x.data)
    np.testing.assert_array_equal(of_loss, 1)


def test_nothing_is_computed_for_what_is_not_asked_for(x):
    """Neither on ways that lead elsewhere, nor for another operand of the same operation."""

    def forbidden(gradient):
        raise AssertionError("computed in vain")

    other = tape.leaf(np.ones(3))
    elsewhere = tape.tensor.recorded(lambda a: (2 * a, (forbidden,)), [other])
    side = tape.tensor.recorded(lambda a, b: (a * b, (lambda g: g * elsewhere.data, forbidden)), [x, elsewhere])
    [gradient] = tape.gradients(side.sum(), [x])
    np.testing.assert_array_equal(gradient, 2)
    with pytest.raises(AssertionError, match="in vain"):
        tape.gradients(side.sum(), [other])


def test_gradients_are_arrays_of_their_own(x):
    first, second = tape.gradients((x.sum() + x.sum()), [x, x])
    first += 1
    assert (second == 2).all()


def test_a_gradient_that_two_operands_share_is_not_written_to():
    """The gradient of a sum is that of both its operands, one array; what else one of them gets is not the other's."""
    x, y = tape.leaf(np.ones(3)), tape.leaf(np.ones(3))
    apart = (3 * x).sum()
    together = (2 * (x + y)).sum()
    of_x, of_y = tape.gradients(apart + together, [x, y])
    np.testing.assert_array_equal(of_x, 5)
    np.testing.assert_array_equal(of_y, 2)


def test_a_long_chain():
    """Neither the sweep nor the end of a graph's life runs into the limit of recursion."""
    x = tape.leaf(np.ones(2))
    y = x
    for _ in range(20_000):
        y = y + 1
    np.testing.assert_array_equal(tape.gradients(y.sum(), [x])[0], 1)
    del y


def test_a_graph_ends_with_its_last_result(x):
    """Nodes hold their parents, not the other way round, and no data: nothing is left behind."""
    import weakref

    class Watched(np.ndarray):
        pass

    big = np.ones((2, 3)).view(Watched)
    seen = weakref.ref(big)
    y = np.exp(x) * big
    del big
    assert seen() is not None
    del y
    assert seen() is None
