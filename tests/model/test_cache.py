"""The cache's own promises: bytes counted by hand, independent forks, room to grow, rollback's limits."""

import numpy as np
import pytest

import tiny
from dsv4.errors import PromptError

LAYERS = (0, 4, 128, 4)
CONFIG = tiny.CONFIG


@pytest.fixture(scope="module")
def model(backend):
    return tiny.model(backend)


def bytes_by_hand(lengths, ratios, number):
    """What sequences of these lengths need for their next token. number: bytes of one number."""
    parts = dict.fromkeys(("window", "compressed", "indexer keys", "pending"), 0)
    for length in lengths:
        for ratio in ratios:
            parts["window"] += min(length, CONFIG.sliding_window) * CONFIG.head_dim
            if ratio == 128:
                parts["compressed"] += length // 128 * CONFIG.head_dim
                parts["pending"] += 2 * (length % 128) * CONFIG.head_dim  # values and scores
            if ratio == 4:
                previous = 4 if length >= 4 else 0
                parts["compressed"] += length // 4 * CONFIG.head_dim
                parts["indexer keys"] += length // 4 * CONFIG.index_head_dim
                width = 2 * CONFIG.head_dim + 2 * CONFIG.index_head_dim  # both halves, for entries and for keys
                parts["pending"] += 2 * (length % 4 + previous) * width
    return {name: count * number for name, count in parts.items()}


@pytest.mark.parametrize("lengths", [(1,), (3,), (4,), (7, 8), (9, 127), (128, 1, 260)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bytes_are_those_counted_by_hand(backend, lengths, dtype):
    model = tiny.model(backend, dtype=dtype)
    cache = model.new_cache(len(lengths))
    assert set(cache.nbytes().values()) == {0}
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    model(tiny.tokens(1, *mask.shape), cache, mask)
    assert cache.nbytes() == bytes_by_hand(lengths, LAYERS, np.dtype(dtype).itemsize)


def test_bytes_include_the_mtp_layer_and_follow_a_rollback(model):
    cache, ids = model.new_cache(), tiny.tokens(2, 130)
    states = model.states(ids, cache)
    model.mtp_logits(states[:, :20], ids[1:21], cache)
    number = model.dtype.itemsize
    main, mtp = bytes_by_hand([130], LAYERS, number), bytes_by_hand([20], [0], number)
    assert cache.nbytes() == {name: main[name] + mtp[name] for name in main}
    cache.rollback(3)
    main = bytes_by_hand([127], LAYERS, number)
    assert cache.nbytes() == {name: main[name] + mtp[name] for name in main}


def arrays(cache):
    """Every array of a cache that is written to."""
    for track in (cache.main, cache.mtp):
        for layer in track.layers:
            yield layer.window.rows
            for part in (layer.compressor, layer.indexer):
                if part:
                    yield from (part.kv.rows, part.score.rows, part.entries.rows)


def test_a_fork_shares_no_memory(model):
    cache = model.new_cache()
    model(tiny.tokens(3, 130), cache)
    fork = cache.fork()
    for one, other in zip(arrays(cache), arrays(fork), strict=True):
        np.testing.assert_array_equal(model.ops.to_numpy(one), model.ops.to_numpy(other))
        assert not np.shares_memory(one, other)
    assert not np.shares_memory(cache.lengths, fork.lengths)


def test_forks_go_their_own_ways(model):
    fetch, start = model.ops.to_numpy, tiny.tokens(4, 2, 126)
    ways = [tiny.tokens(5 + way, 2, 9) for way in range(3)]
    cache = model.new_cache(2)
    model(start, cache)
    caches = [cache, cache.fork(), cache.fork()]
    found = [[] for _ in caches]
    for step in range(9):  # in turn, so that a shared row would be overwritten
        for number, one in enumerate(caches):
            found[number].append(fetch(model(ways[number][:, step : step + 1], one)))
    for way, logits in zip(ways, found, strict=True):
        expected = fetch(model(np.concatenate([start, way], axis=1)))[:, 126:]
        tiny.close(np.concatenate(logits, axis=1), expected)


def test_it_grows_as_long_as_the_sequence_does(backend):
    """Far more compressed entries than an empty cache has room for, by single steps and in one go."""
    model = tiny.model(backend, compress_ratios=(4, 0))
    ids = tiny.tokens(6, 1, 600)
    cache = model.new_cache(max_rollback=0)
    room = cache.main.layers[0].compressor.entries.rows.shape[1]
    assert room < 75
    parts = [model(part, cache) for part in np.split(ids, [300, *range(301, 320), 590], axis=1)]
    assert cache.main.layers[0].compressor.entries.rows.shape[1] >= 150
    fetched = np.concatenate([backend.to_numpy(part) for part in parts], axis=1)
    tiny.close(fetched, backend.to_numpy(model(ids)))


def test_lengths_count_what_each_sequence_was_fed(model):
    cache = model.new_cache(2)
    np.testing.assert_array_equal(cache.lengths, [0, 0])
    model([[1, 2, 3], [4, 5, 6]], cache, [[1, 1, 1], [0, 0, 1]])
    np.testing.assert_array_equal(cache.lengths, [3, 1])
    cache.rollback([1, 0])
    np.testing.assert_array_equal(cache.lengths, [2, 1])
    model([[1], [2]], cache, [[False], [True]])
    np.testing.assert_array_equal(cache.lengths, [2, 2])


@pytest.mark.parametrize("length", [4, 8, 128, 131, 256])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_rollback_across_block_boundaries(model, length, count):
    """What the forgotten tokens completed is completed again by others."""
    fetch = model.ops.to_numpy
    cache = model.new_cache(max_rollback=5)
    model(tiny.tokens(7, length), cache)
    count = min(count, length - 1)
    cache.rollback(count)
    new = tiny.tokens(8, 140)
    found = np.concatenate([fetch(model(part, cache)) for part in np.split(new, [1, 2, 130])], axis=1)
    whole = np.concatenate([tiny.tokens(7, length)[: length - count], new])
    tiny.close(found, fetch(model(whole))[:, length - count :])


@pytest.mark.parametrize(("max_rollback", "count"), [(0, 1), (3, 4), (500, 21), (500, -1)])
def test_rollback_beyond_its_limits(model, max_rollback, count):
    ids = tiny.tokens(9, 21)
    cache = model.new_cache(max_rollback=max_rollback)
    model(ids[:20], cache)
    with pytest.raises(PromptError, match=rf"rollback: expected .*{min(max_rollback, 20)}.* found {count}"):
        cache.rollback(count)
    np.testing.assert_array_equal(cache.lengths, [20])
    tiny.close(model.ops.to_numpy(model(ids[20:], cache)), model.ops.to_numpy(model(ids))[:, 20:])


def test_rollbacks_add_up(model):
    """Two rollbacks of two tokens are one of four: the limit counts from the furthest position."""
    cache = model.new_cache(max_rollback=3)
    model(tiny.tokens(9, 20), cache)
    cache.rollback(2)
    with pytest.raises(PromptError, match="max_rollback = 3 tokens behind the furthest position, found 4"):
        cache.rollback(2)
    cache.rollback(1)
    np.testing.assert_array_equal(cache.lengths, [17])


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_a_call_that_fails_halfway_can_be_made_again(model, layer):
    """As long as it was no longer than what the cache can take back."""
    ids = tiny.tokens(10, 140)

    def fail(name, result):
        if name == f"layers.{layer}.out":
            raise KeyboardInterrupt

    cache = model.new_cache(max_rollback=9)
    model(ids[:125], cache)
    with pytest.raises(KeyboardInterrupt):
        model(tiny.tokens(11, 9), cache, observe=fail)
    np.testing.assert_array_equal(cache.lengths, [125])
    fetch, kept = model.ops.to_numpy, cache.fork()
    tiny.close(fetch(model(ids[125:], cache)), fetch(model(ids))[:, 125:])
    with pytest.raises(KeyboardInterrupt):
        model(tiny.tokens(11, 10), kept, observe=fail)
    with pytest.raises(PromptError, match="cache: expected one whose last call succeeded"):
        model(ids[125:], kept)
