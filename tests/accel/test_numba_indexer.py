"""The Numba indexer's bits: a query by itself gives what it gives in any batch, on any number of threads."""

import numpy as np
import pytest

from dsv4.ops import Ops, chunks
from verdicts import exact

numba = pytest.importorskip("numba", reason="the Numba backend needs Numba")

THREADS = sorted({1, 2, numba.config.NUMBA_NUM_THREADS})


@pytest.fixture(scope="module")
def kernels():
    from dsv4_accel.numba import NumbaOps

    return NumbaOps()


@pytest.fixture(params=THREADS)
def threads(request):
    """Kernels run on so many threads, as far as the machine has them."""
    before = numba.get_num_threads()
    numba.set_num_threads(min(request.param, numba.config.NUMBA_NUM_THREADS))
    yield request.param
    numba.set_num_threads(before)


def arrays(batch, length, heads, width, entries):
    generator = np.random.default_rng([batch, length, heads, width, entries])
    shapes = (batch, length, heads, width), (batch, entries, width), (batch, length, heads)
    return [generator.standard_normal(shape).astype(np.float32) for shape in shapes]


SHAPES = [(2, 3, 64, 128, 1000), (1, 5, 20, 64, 700), (3, 9, 8, 64, 193), (1, 1, 130, 128, 5000)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_score_is_the_same_in_any_company(kernels, threads, shape):
    """Alone with its key, or with some other keys: in another tile, another task and another form of the kernel."""
    queries, keys, weights = arrays(*shape)
    whole = kernels.index_scores(queries, keys, weights)
    for b, t in [(0, 0), (shape[0] - 1, shape[1] - 1)]:
        query = queries[b : b + 1, t : t + 1], weights[b : b + 1, t : t + 1]
        for first, behind in [(0, 1), (3, 4), (1, 100), (97, shape[4])]:
            alone = kernels.index_scores(query[0], keys[b : b + 1, first:behind], query[1])
            exact(alone[0, 0], whole[b, t, first:behind])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_number_of_threads_does_not_matter(kernels, shape):
    queries, keys, weights = arrays(*shape)
    visible = np.random.default_rng(0).integers(0, shape[4] + 1, shape[:2])
    results = []
    for count in THREADS:
        numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
        scores = kernels.index_scores(queries, keys, weights)
        results += [
            (scores, kernels.top_k(scores, visible, 99), kernels.index_top_k(queries, keys, weights, visible, 99))
        ]
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    for scores, chosen, at_once in results:
        exact(scores, results[0][0])
        exact(chosen, results[0][1])
        exact(at_once, chosen)


@pytest.mark.parametrize("k", [1, 99, 512])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_choice_is_the_references_own(kernels, threads, shape, k):
    """From the same scores both choose the same, in one step, in two, and in runs of queries."""
    queries, keys, weights = arrays(*shape)
    visible = np.random.default_rng(k).integers(0, shape[4] + 1, shape[:2])
    expected = Ops.top_k(kernels.index_scores(queries, keys, weights), visible, k)
    exact(kernels.index_top_k(queries, keys, weights, visible, k), expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "MAX_NUMBERS", 2 * shape[0] * shape[4])
        exact(kernels.index_top_k(queries, keys, weights, visible, k), expected)


@pytest.mark.parametrize("distinct", [1, 2, 50, 10**6])
@pytest.mark.parametrize("order", ["random", "rising", "falling"])
def test_the_best_of_a_long_context(kernels, threads, distinct, order):
    """A size at which most blocks are passed over; scores of a few blocks, or of all, may reach the limit."""
    scores = np.random.default_rng(distinct).integers(0, distinct, (1, 1, 70_001)).astype(np.float32)
    if order != "random":
        scores = np.sort(scores) if order == "rising" else np.sort(scores)[..., ::-1]
    for visible in (70_001, 70_000, 64 * 512, 64 * 511 + 1):
        visible = np.array([[visible]])
        exact(kernels.top_k(scores, visible, 512), Ops.top_k(scores, visible, 512))


@pytest.mark.parametrize("width", [1, 16, 40])
@pytest.mark.parametrize("slots", [8, 128])
def test_a_compressed_entry_is_the_same_in_any_company(kernels, threads, slots, width):
    kv, score = np.random.default_rng(slots).standard_normal((2, 3, 90, slots, width)).astype(np.float32)
    whole = kernels.compress(kv, score)
    for b, entry in [(0, 0), (2, 89)]:
        exact(kernels.compress(kv[b, entry], score[b, entry]), whole[b, entry])
    exact(kernels.compress(kv[..., :1], score[..., :1]), whole[..., :1])


def test_a_channel_without_any_slot_is_no_number(kernels):
    """It is outside the contract, and must do no harm to the others."""
    kv, score = np.random.default_rng(0).standard_normal((2, 8, 40)).astype(np.float32)
    expected = kernels.compress(kv, score)
    score[:, 17], expected[17] = -np.inf, np.nan
    exact(kernels.compress(kv, score), expected)


def test_what_kernels_do_not_take_is_left_to_the_reference(kernels):
    """Other dtypes and counts that are no signed integers give what the reference gives."""
    queries, keys, weights = (array.astype(np.float64) for array in arrays(2, 3, 4, 8, 50))
    scores, visible = Ops.index_scores(queries, keys, weights), np.full((2, 3), 40, np.uint64)
    exact(kernels.index_scores(queries, keys, weights), scores)
    exact(kernels.top_k(scores, visible, 9), Ops.top_k(scores, visible, 9))
    exact(kernels.top_k(scores.astype(np.float32), visible, 9), Ops.top_k(scores.astype(np.float32), visible, 9))
    exact(kernels.index_top_k(queries, keys, weights, visible, 9), Ops.top_k(scores, visible, 9))
