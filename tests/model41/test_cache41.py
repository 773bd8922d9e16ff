"""Any sequence of chunks, steps, rollbacks, forks, joins and splits of a V4.1 model equals one pass over its tokens."""

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

import tiny
import tiny41
from dsv4.errors import PromptError, SettingError
from dsv4.model.cache import Cache
from dsv4.model.cut import cut
from dsv4.model.packed_cache import KeyCoding
from dsv4.model41.packed_cache import EntryCoding41, WindowCoding41
from model.test_stateful import machine
from model41.golden41 import Seen

IDS = tiny.tokens(41, 2, 60)
WIDE = {"hidden_size": 64, "head_dim": 48, "moe_intermediate_size": 32, "index_head_dim": 32}
"""Sizes at which the blocks of the number formats are met whole and in part."""


@pytest.fixture(scope="module")
def model(backend):
    return tiny41.model(backend)


def logits_of(model, ids, cache=None, mask=None):
    return model.ops.to_numpy(model(ids, cache, mask))


LENGTHS = st.sampled_from([1, 2, 3, 5, 6, 7, 12, 30])
"""Of the first chunk: before and at the end of a pair and of the window, and longer than a rollback reaches."""


@pytest.mark.parametrize("storage", ["float", "rounded", "packed"])
def test_any_way_through_a_sequence_equals_one_pass(backend, storage):
    """Drafts and rings take part; also where all is rounded, and where the rows of the caches are bytes."""
    rounds = storage != "float"
    model = tiny41.model(backend, tiny41.quantised(tiny41.checkpoint(**WIDE)) if rounds else None, rounds)
    phases = (Phase.generate,) if settings.default.derandomize else settings.default.phases  # shrinking takes minutes
    chunks = st.one_of(st.integers(0, 3), st.integers(0, 20))
    limits = settings(stateful_step_count=12, max_examples=12, phases=phases)
    run_state_machine_as_test(machine(model, LENGTHS, chunks, storage == "packed"), settings=limits)


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7, 59])
def test_chunks_of_one_size_equal_one_pass(model, chunk):
    """The state of a pair, the classes of the last tokens and the windows outlive the border of a chunk."""
    cache = model.new_cache(2, max_rollback=0)
    parts = [logits_of(model, IDS[:, t : t + chunk], cache) for t in range(0, IDS.shape[1], chunk)]
    tiny.close(np.concatenate(parts, axis=1), logits_of(model, IDS))


def test_chunks_equal_one_pass_with_rounding(backend):
    model = tiny41.model(backend, tiny41.quantised(tiny41.checkpoint(**WIDE)), fake_quant=True)
    cache = model.new_cache(1, max_rollback=0)
    parts = [logits_of(model, part, cache) for part in np.split(IDS[:1], [1, 2, 9, 10, 33], axis=1)]
    tiny.close(np.concatenate(parts, axis=1), logits_of(model, IDS[:1]))


@pytest.mark.parametrize("kept", range(20, 26))
@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_a_rollback_opens_a_pair_again(model, kept, count):
    """What stands behind `kept` tokens was another text, which completed pairs, wrote windows and classes."""
    cache = model.new_cache(2, max_rollback=9)
    other = (IDS[:, kept : kept + count] + 1) % tiny41.CONFIG.vocab_size
    model(np.concatenate([IDS[:, :kept], other], axis=1), cache)
    cache.rollback(count)
    tiny.close(logits_of(model, IDS[:, kept:40], cache), logits_of(model, IDS[:, :40])[:, kept:])


def test_one_token_prompts_and_rows_of_their_own_length(model):
    """Before the first entry there is only the window, in one row of a batch or in all."""
    mask = np.array([[True] * 30, [False] * 29 + [True]])
    cache = model.new_cache(2)
    ids = np.where(mask, IDS[:, :30], 3)
    found = logits_of(model, ids, cache, mask)
    tiny.close(found[0], logits_of(model, IDS[:1, :30])[0])
    tiny.close(found[1, -1:], logits_of(model, IDS[1:, 29:30])[0])
    more = logits_of(model, IDS[:, 30:40], cache)
    tiny.close(more[1], logits_of(model, IDS[1:, 29:40])[0, 1:])


def test_a_prompt_shorter_than_a_block_waits_for_the_rest_of_it(model):
    """One token, where entries of ratio 2 are made of two: none is made or read, and the next token completes it."""
    cache, alone, both = model.new_cache(2), Seen(model.ops), Seen(model.ops)
    tiny.close(logits_of(model, IDS[:, :1]), model.ops.to_numpy(model(IDS[:, :1], cache, observe=alone)))
    assert "layers.1.attn.compressor.out" not in alone and (alone["layers.2.attn.indexer.topk"] < 0).all()
    found = model.ops.to_numpy(model(IDS[:, 1:2], cache, observe=both))
    tiny.close(found, logits_of(model, IDS[:, :2])[:, 1:])
    assert both["layers.1.attn.compressor.out"].shape[1] == 1 and (both["layers.2.attn.indexer.topk"] == 0).all()


def test_what_stands_before_a_text_is_the_pad_token(backend):
    """The first token's n-grams reach before the text: there stands the class of engram_pad_token_id."""
    model = tiny41.model(backend)
    seen = {}
    model(IDS[:1, :2], observe=lambda name, rows: seen.update({name: model.ops.to_numpy(rows)}))
    moved = np.concatenate([np.full((1, 2), 2), IDS[:1, :2]], axis=1)
    longer = {}
    model(moved, observe=lambda name, rows: longer.update({name: model.ops.to_numpy(rows)}))
    for layer in (0, 3):
        name = f"layers.{layer}.engram.hash_ids"
        np.testing.assert_array_equal(seen[name], longer[name][:, 2:])
    others = tiny41.Model41(tiny41.checkpoint(), backend, False, model.dtype, (tiny41.CLASSES + 1) % 15)
    assert others.layers[0].engram.pad_class == 3


def test_tokens_of_one_class_name_the_same_rows(model):
    """Tokens 5 and 20 are of one class, 6 is of another."""

    def rows_of(token):
        seen = {}
        model(np.array([[3, token, 4]]), observe=lambda name, rows: seen.update({name: model.ops.to_numpy(rows)}))
        return seen["layers.0.engram.hash_ids"]

    np.testing.assert_array_equal(rows_of(5), rows_of(20))
    assert (rows_of(5)[:, 1:] != rows_of(6)[:, 1:]).all()


def test_caches_are_cut_forked_and_joined(model):
    caches = [model.new_cache(1), model.new_cache(1)]
    for row, (cache, length) in enumerate(zip(caches, (21, 34), strict=True)):
        model(IDS[row : row + 1, :length], cache)
    joined = Cache.join(caches)
    given = np.stack([IDS[0, 21:25], IDS[1, 34:38]])
    both = logits_of(model, given, joined)
    for row, start in enumerate((21, 34)):
        expected = logits_of(model, IDS[row : row + 1, : start + 4])[0, start:]
        tiny.close(both[row], expected)
        tiny.close(logits_of(model, given[row : row + 1], caches[row].fork())[0], expected)
    shorter = cut(caches[1], 0, 29)
    tiny.close(logits_of(model, IDS[1:, 29:33], shorter)[0], logits_of(model, IDS[1:, :33])[0, 29:])


def test_bytes_of_a_cache(model):
    """Entries of 12 and keys of 8 numbers at the two sources, a pending pair at that of ratio 2, two Engrams."""
    cache = model.new_cache(1, max_rollback=0)
    model(IDS[:1, :9], cache)
    number = np.dtype(model.dtype).itemsize
    found = cache.nbytes()
    assert found["compressed"] == (4 + 9) * 12 * number
    assert found["indexer keys"] == (4 + 9) * 8 * number
    assert found["pending"] == 2 * 12 * number
    assert found["window"] == (6 * 6 + 2 * 6) * 12 * number
    assert found["token classes"] == 2 * 2 * 8


def test_a_packed_cache_changes_nothing(backend):
    """Also where a prompt is cut, after a rollback, and in the drafter's rings: rounded rows are coded exactly."""
    model = tiny41.model(backend, tiny41.quantised(tiny41.checkpoint(**WIDE)), fake_quant=True)
    found = []
    for packed in (False, True):
        cache = model.new_cache(2, max_rollback=5, packed=packed)
        parts = [logits_of(model, part, cache) for part in np.split(IDS[:, :30], [7, 8, 20], axis=1)]
        cache.rollback(4)
        block = model.draft_block(IDS[:, 26], cache)
        found.append([*parts, logits_of(model, IDS[:, 26:30], cache), model.ops.to_numpy(block.base)])
        assert cache._stores()[0].rows.dtype == (np.uint8 if packed else model.dtype)
    for plain, from_bytes in zip(*found, strict=True):
        np.testing.assert_array_equal(plain, from_bytes)


def test_bytes_per_token_of_the_released_model(backend):
    """Three sources with an entry and a key for every second token, and one with both for each: 890 bytes."""
    width = (
        EntryCoding41(backend, 512, np.dtype(np.float32)).width + KeyCoding(backend, 128, np.dtype(np.float32)).width
    )
    assert (width, (3 / 2 + 1) * width) == (288 + 68, 890)
    assert WindowCoding41(backend, 512, np.dtype(np.float32)).width == 512 + 16


def test_what_a_model_refuses(model, backend):
    with pytest.raises(SettingError, match='packed cache: expected a model with fake_quant "on"'):
        model.new_cache(packed=True)
    with pytest.raises(PromptError, match="layer: expected an integer from 0 to 5"):
        model.layer(6, None, None, IDS, None)
    for classes, message in [
        (None, "expected one for each of 40 tokens, found none"),
        (tiny41.CLASSES[:-1], "expected one for each of 40 tokens, found \\(39,\\)"),
        (tiny41.CLASSES + 0.5, "expected integers, found float64"),
        (tiny41.CLASSES % 14, "expected 15, as engram_compressed_vocab_size says, found 14"),
    ]:
        with pytest.raises(SettingError, match=f"token classes: {message}"):
            tiny41.Model41(tiny41.checkpoint(), backend, False, token_classes=classes)
