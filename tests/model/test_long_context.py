"""The end of a context of 1,048,576 tokens: positions around 2^20, with a packed cache filled up to them.

Only the last tokens are computed. What a million tokens before them leave behind is random here, the same for all.
"""

import tracemalloc

import numpy as np
import pytest

import tiny
from dsv4.cost.memory import cache_bytes
from dsv4.errors import PromptError
from dsv4.ops import Ops

END = 2**20
BEFORE = END - 20
"""The last tokens complete an entry of the HCA layer, and five of CSA's."""

SIZES = {"compress_ratios": (4, 128), "num_nextn_predict_layers": 0, "max_position_embeddings": END}


@pytest.fixture(scope="module")
def model():
    return tiny.model(Ops(), fake_quant=True, **SIZES)


@pytest.fixture(scope="module")
def long_cache(model):
    """A packed cache of a sequence of BEFORE tokens."""
    generator = np.random.default_rng(0)
    cache = model.new_cache(max_rollback=0, packed=True, drafts=False)
    for layer in cache.main.layers:
        fill(layer.window, generator)
        for part in filter(None, (layer.compressor, layer.indexer)):
            fill(part.kv, generator)
            fill(part.score, generator)
            entries = generator.standard_normal((1, END // part.ratio, part.entries.coding.channels))
            part.entries.rows = part.entries.coding.pack(entries)
    cache.main.lengths = cache.main.furthest = np.array([BEFORE])
    return cache


def fill(rows, generator):
    """Random numbers at every slot of a ring."""
    shape = (*rows.rows.shape[:2], rows.coding.channels)
    rows.rows = rows.coding.pack(generator.standard_normal(shape))


def logits_of(model, cache, ids, cuts):
    parts = np.split(ids, np.cumsum(cuts)[:-1], axis=1)
    return np.concatenate([model(part, cache) for part in parts], axis=1)


@pytest.mark.parametrize("cuts", [[1, 19], [8, 8, 4], [14, *[1] * 6]], ids=["first", "blocks", "steps"])
def test_chunkings_agree_up_to_the_last_position(model, long_cache, cuts):
    ids = tiny.tokens(1, 1, END - BEFORE)
    whole, cut = long_cache.fork(), long_cache.fork()
    tiny.close(logits_of(model, cut, ids, cuts), logits_of(model, whole, ids, [END - BEFORE]))
    assert cut.lengths.tolist() == whole.lengths.tolist() == [END]
    predicted = cache_bytes(model.config, END, "packed")
    predicted["pending"] *= 2  # float64 here
    assert cut.nbytes() == whole.nbytes() == predicted


def test_a_token_behind_the_last_position_is_refused(model, long_cache):
    cache = long_cache.fork()
    model(tiny.tokens(1, 1, END - BEFORE), cache)
    with pytest.raises(PromptError, match=r"1048576"):
        model([[1]], cache)


def test_memory_is_flat_while_decoding(model, long_cache):
    cache = long_cache.fork()
    ids = tiny.tokens(2, 1, END - BEFORE)
    model(ids[:, :-12], cache)
    room = [store.rows.nbytes for store in cache._stores()]
    tracemalloc.start()
    held = []
    for token in ids[0, -12:]:
        model([[token]], cache)
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert [store.rows.nbytes for store in cache._stores()] == room
    assert max(held[4:]) < held[3] + 2**16  # a copy of what is cached would be a hundred times that
