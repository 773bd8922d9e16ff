"""What a backend does at once, against the operations one after the other, which define it: the same bits."""

import numpy as np
import pytest

from dsv4.model.span import Span
from dsv4.ops import Expert, Ops
from dsv4.ops.quantise import quantise_fp4, quantise_fp8
from dsv4.ops.rope import rope_frequencies
from verdicts import exact

LENGTHS = pytest.mark.parametrize("length", [1, 3, 9], ids=["one token", "few", "many"])
WEIGHTS = pytest.mark.parametrize("weighted", [True, False], ids=["weight", "no weight"])


def numbers(backend, seed, *shape):
    return backend.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def same(backend, found, expected):
    exact(backend.to_numpy(found), backend.to_numpy(expected))


@LENGTHS
@pytest.mark.parametrize("channels", [512, 128, 6], ids=str)
def test_streams_are_collapsed_and_normalised(backend, length, channels):
    streams, pre = numbers(backend, 1, 2, length, 4, channels), numbers(backend, 2, 2, length, 4)
    given = streams, pre, numbers(backend, 3, channels), 1e-6
    found = backend.collapse_norm(*given)
    same(backend, found, Ops.collapse_norm(backend, *given))
    weight = backend.place(quantise_fp8(np.random.default_rng(4).standard_normal((8, channels), np.float32)))
    again = backend.asarray(backend.to_numpy(found))  # other numbers, of which nothing is known
    for rounds in (True, False):
        same(backend, backend.linear(found, weight, rounds), backend.linear(again, weight, rounds))


@LENGTHS
@WEIGHTS
@pytest.mark.parametrize("shape", [(512,), (3, 128), (20, 64), (2, 10)], ids=str)
def test_heads_are_normalised_and_turned(backend, length, weighted, shape):
    x = np.random.default_rng(1).standard_normal((2, length, *shape), np.float32)
    x[..., -4:] *= 1000  # turned, and not to be seen in the scale of the channels before
    x, weight = backend.asarray(x), numbers(backend, 2, shape[-1]) if weighted else None
    positions = backend.asarray(np.arange(2 * length).reshape(2, length) * 1000 - 500)
    frequencies = backend.asarray(rope_frequencies(4, 10000.0))
    given = weight, 1e-6, positions, frequencies
    found = backend.norm_rope(x, *given)
    same(backend, found, Ops.norm_rope(backend, x, *given))
    if len(shape) == 1:  # an entry
        again = backend.asarray(backend.to_numpy(found))
        same(backend, backend.fake_quant_content(found, 64, 4), backend.fake_quant_content(again, 64, 4))


@LENGTHS
@pytest.mark.parametrize(("channels", "kept"), [(512, 64), (96, 4), (68, 4), (80, 64), (7, 3)])
def test_the_last_channels_are_not_rounded(backend, length, channels, kept):
    x = np.random.default_rng(1).standard_normal((2, length, channels), np.float32)
    x[..., -kept:] *= 1000  # not to be seen in the scale of the block before
    x = backend.asarray(x)
    found = backend.to_numpy(backend.fake_quant_content(x, 64, kept))
    same(backend, found, Ops.fake_quant_content(backend, x, 64, kept))
    exact(found[..., -kept:], backend.to_numpy(x)[..., -kept:])


@pytest.mark.parametrize("channels", [32, 64, 128, 16])
@pytest.mark.parametrize("rows", [1, 5, 600])
def test_a_rotated_vector_is_rounded_as_any_other(backend, rows, channels):
    """Whether a backend rounds it together with what made it or later."""
    rotated = backend.hadamard(numbers(backend, 1, 1, rows, channels))
    again = backend.asarray(backend.to_numpy(rotated))
    same(backend, backend.fake_quant_fp4(rotated), backend.fake_quant_fp4(again))


@LENGTHS
@pytest.mark.parametrize("rounds", [True, False])
@pytest.mark.parametrize("shape", [(8, 64), (64, 128), (3, 32), (2, 16)], ids=str)
def test_queries_of_the_indexer_are_turned_and_rotated(backend, length, rounds, shape):
    heads, channels = shape
    x = np.random.default_rng(1).standard_normal((2, length, *shape), np.float32)
    x[0, 0, 0] = np.tile([1, -1], channels // 2)  # at position 0 the rotation leaves one number of it
    x[-1, -1, -1] *= 1e-35  # too small for three pieces
    positions = np.arange(2 * length).reshape(2, length) * 1000
    x, positions, frequencies = map(backend.asarray, (x, positions, rope_frequencies(8, 10000.0)))
    found = backend.index_queries(x, positions, frequencies, rounds)
    rotated = backend.hadamard(backend.rope(x, positions, frequencies))
    same(backend, found, backend.fake_quant_fp4(rotated) if rounds else rotated)
    again = backend.asarray(backend.to_numpy(found))  # other numbers, of which nothing is known
    keys, weights = numbers(backend, 2, 2, 40, channels), numbers(backend, 3, 2, length, heads)
    visible = backend.asarray(np.full((2, length), 30))
    same(backend, backend.index_scores(found, keys, weights), backend.index_scores(again, keys, weights))
    chosen = backend.index_top_k(found, keys, weights, visible, 7)
    same(backend, chosen, backend.index_top_k(again, keys, weights, visible, 7))


@pytest.mark.parametrize("ratio", [4, 128])
@pytest.mark.parametrize(("starts", "counts", "length"), [((7, 130), (1, 1), 1), ((0, 3), (6, 2), 6)])
def test_projections_go_into_both_rings(backend, ratio, starts, counts, length):
    """The score with what its position adds; padding of the shorter sequence stays out of the rings."""
    keep, width = ratio - 1, 8
    span = Span(np.array(starts), np.array(counts), length, place=backend.asarray)
    ring = span.ring(keep, keep + 3)
    rows, ape = tuple(numbers(backend, seed, 2, length, width) for seed in (1, 2)), numbers(backend, 3, ratio, width)

    def stored():
        return tuple(backend.write(numbers(backend, seed, 2, keep + 3, width), (0, 0), 7) for seed in (4, 5))

    found = backend.extend_pending(stored(), rows, ape, ring)
    expected = Ops.extend_pending(backend, stored(), rows, ape, ring)
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            same(backend, one, other)
    places = (np.array(starts)[:, None] + np.arange(length)) % ratio
    score = backend.to_numpy(rows[1]) + backend.to_numpy(ape)[places]
    exact(backend.to_numpy(found[1][1])[:, keep:], score)


@LENGTHS
@pytest.mark.parametrize("heads", [1, 8, 20])
def test_the_output_of_attention_is_turned(backend, length, heads):
    queries, keys = numbers(backend, 1, 1, length, heads, 96), numbers(backend, 2, 1, 80, 96)
    index = backend.asarray(np.tile(np.arange(-2, 70), (1, length, 1)))
    sink, frequencies = numbers(backend, 3, heads), backend.asarray(rope_frequencies(32, 10000.0))
    positions = backend.asarray(-np.arange(7, 7 + length)[None])
    given = queries, keys, index, keys, index, sink, positions, frequencies
    same(backend, backend.turned_attention(*given), Ops.turned_attention(backend, *given))


@LENGTHS
@pytest.mark.parametrize("store", [np.asarray, quantise_fp8, quantise_fp4])
@pytest.mark.parametrize("rounds", [True, False])
def test_an_expert_is_added(backend, length, store, rounds):
    x, routed = numbers(backend, 1, length, 128), numbers(backend, 2, length, 128)
    generator = np.random.default_rng(3)
    shapes = (256, 128), (128, 256), (256, 128)
    matrices = Expert(*(store(generator.standard_normal(shape, np.float32)) for shape in shapes))
    matrices = Expert(*(backend.place(matrix) for matrix in matrices))
    given = routed, x, matrices, 5.0, rounds
    same(backend, backend.add_expert(*given), Ops.add_expert(backend, *given))
