"""DSpark against outputs of the official code: what the stages read, their rings, drafts, and rounds of decoding.

The drafts are computed from the official states of the main model, then once more from the model's own.
"""

from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

import tiny
from dsv4 import load
from dsv4.errors import CheckpointError, PromptError
from dsv4.model.observe import ignore
from dsv4.model.span import Span
from dsv4.ops import Ops
from dsv4.verify_dspark import trace_dspark, without_settings

GOLDEN = Path(__file__).parents[1] / "data" / "golden"


PARTS = {
    "short": lambda name: name.startswith("short."),
    "rounds": lambda name: name.startswith("spec.") or name == "prefill.length",
    "long": lambda name: not name.startswith(("short.", "spec.", "input_ids")),
}
"""The official results, in parts that can be computed by themselves."""


@pytest.fixture(scope="module")
def golden(backend):
    """For a name and a part, the expected results and those found, by name."""
    known = {}

    def results_of(name, part):
        if (name, part) not in known:
            stored = load_file(GOLDEN / name / "expected.safetensors")
            expected = {key: array for key, array in stored.items() if PARTS[part](key)}
            found = trace_dspark(load(GOLDEN / name, backend=backend.name), stored["input_ids"], expected)
            known[name, part] = without_settings(expected), found
        return known[name, part]

    return results_of


@pytest.mark.parametrize("name", ["dspark_float", "dspark_quant"])
@pytest.mark.parametrize("part", PARTS)
def test_every_official_result_is_compared(golden, name, part):
    expected, found = golden(name, part)
    assert set(found) == set(expected)
    assert len(found) == {"short": 10, "long": 13, "rounds": {"dspark_float": 32, "dspark_quant": 16}[name]}[part]


def agree(expected, found):
    """Whole numbers are equal, others nearly so."""
    for name, result in found.items():
        if np.issubdtype(result.dtype, np.integer):
            np.testing.assert_array_equal(result, expected[name], err_msg=name)
        else:
            np.testing.assert_allclose(result, expected[name], rtol=0, atol=2e-4, err_msg=name)


def test_float_results_agree(golden):
    agree(*golden("dspark_float", "long"))


def test_float_results_of_a_short_prompt_agree(golden):
    """Its rings are not full at first, then just full, then written over."""
    agree(*golden("dspark_float", "short"))


def test_each_round_of_the_greedy_speculative_runs_is_the_official_one(golden):
    """Of a wrong ring, only the rounds tell: the text stays what it is."""
    expected, found = golden("dspark_float", "rounds")
    agree(expected, found)
    for prefix in (f"spec.{kind}.row{row}." for kind in ("full", "cut") for row in (0, 1)):
        accepted = expected[f"{prefix}accepted"]
        assert accepted.min() == 0 and accepted.max() > 0
    assert len(set(expected["spec.cut.row0.length"].tolist())) > 3


DRAWN_FROM_OFFICIAL_STATES = ("rings", "main_x", "base_logits", "draft.logits", "confidence", "collapsed", "stages.out")


def test_rounded_drafts_agree(golden):
    """Where all is rounded, one value that falls on the other side of a boundary changes what follows in a block."""
    expected, found = (
        {**golden("dspark_quant", "short")[one], **golden("dspark_quant", "long")[one]} for one in (0, 1)
    )
    compared = 0
    for name, result in found.items():
        if not name.endswith(DRAWN_FROM_OFFICIAL_STATES):
            continue
        delta, spread = np.abs(result - expected[name]), expected[name].std()
        assert np.median(delta) < 1e-5 * spread, name
        assert np.sqrt(np.mean(delta**2)) < 1e-2 * spread, name
        compared += 1
    assert compared == 13
    for name in ("draft.ids", "short.draft.ids"):
        assert np.mean(found[name] == expected[name]) >= 0.97, name


def test_rounded_passes_agree_end_to_end(golden):
    expected, found = golden("dspark_quant", "long")
    for name in ("prefill.main_hidden", "decode.main_hidden", "prefill.logits", "decode.logits"):
        delta, spread = found[name] - expected[name], expected[name].std()
        assert np.sqrt(np.mean(delta**2)) < 1e-1 * spread, name
    expected, found = golden("dspark_quant", "rounds")
    for name in ("spec.full.row0.text", "spec.cut.row0.text"):
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.fixture(scope="module")
def model(backend):
    return tiny.model(backend, **tiny.DSPARK)


IDS = tiny.tokens(30, 2, 150)


def greedy(logits):
    return logits.argmax(axis=-1)


def drafted(model, ids, cuts=(), **options):
    """The drafts behind all but the last of the ids, which went through the model in pieces."""
    cache = model.new_cache(len(ids), **options)
    for piece in np.split(ids[:, :-1], [cut for cut in cuts if cut < ids.shape[1] - 1], axis=1):
        model.states(piece, cache)
    return draft(model, ids[:, -1], cache)


def draft(model, given, cache):
    block = model.draft_block(given, cache)
    found = model.dspark.draft(block, model.ops.asarray(given), greedy)
    return [model.ops.to_numpy(part) for part in (found.ids, found.logits, found.confidence)]


def same(found, expected):
    np.testing.assert_array_equal(found[0], expected[0])
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        tiny.close(ours, theirs)


@pytest.mark.parametrize("length", [2, 5, 8, 9, 12, 40, 131])
def test_any_way_of_feeding_a_prompt_gives_one_draft(model, length):
    """One pass, tokens one by one, and ragged pieces, shorter and longer than the ring of 8."""
    ids = IDS[:, :length]
    whole = drafted(model, ids, max_rollback=0)
    same(drafted(model, ids, range(1, length - 1), max_rollback=0), whole)
    same(drafted(model, ids, [1, 2, 4, 20, 21, 35], max_rollback=3), whole)


@pytest.mark.parametrize("kept", [9, 12, 60, 125, 128])
def test_a_rollback_brings_back_what_the_rings_held(model, kept):
    """Across the edges of the window and of blocks of 4 and 128."""
    cache = model.new_cache(2, max_rollback=7)
    other = (IDS + 1) % tiny.CONFIG.vocab_size
    model.states(np.concatenate([IDS[:, :kept], other[:, kept : kept + 7]], axis=1), cache)
    cache.rollback(7)
    same(draft(model, IDS[:, kept], cache), drafted(model, IDS[:, : kept + 1]))


def test_rows_may_forget_different_numbers_of_tokens(model):
    cache = model.new_cache(2, max_rollback=5)
    model.states(IDS[:, :40], cache)
    cache.rollback(np.array([2, 5]))
    given = np.array([IDS[0, 38], IDS[1, 35]])
    for row, length in ((0, 39), (1, 36)):
        expected = drafted(model, IDS[row : row + 1, :length])
        same([part[row : row + 1] for part in draft(model, given, cache)], expected)


def test_a_draft_leaves_the_cache_as_it_is(model):
    cache = model.new_cache(2, max_rollback=0)
    model.states(IDS[:, :30], cache)
    before = cache.fork()
    first = draft(model, IDS[:, 30], cache)
    draft(model, IDS[:, 31], cache)
    same(draft(model, IDS[:, 30], cache), first)
    for ours, theirs in zip(cache._stores(), before._stores(), strict=True):
        np.testing.assert_array_equal(model.ops.to_numpy(ours.rows), model.ops.to_numpy(theirs.rows))
    np.testing.assert_array_equal(cache.mtp.lengths, cache.lengths)


def test_forks_and_joined_caches_draft_for_themselves(model):
    caches = [model.new_cache(1), model.new_cache(1)]
    lengths = 20, 133
    for row, (cache, length) in enumerate(zip(caches, lengths, strict=True)):
        model.states(IDS[row : row + 1, :length], cache)
    joined = type(caches[0]).join([*caches, caches[0]]).select([1, 2])
    given = np.array([IDS[1, 133], IDS[0, 20]])
    found = draft(model, given, joined)
    for place, row in ((0, 1), (1, 0)):
        same([part[place : place + 1] for part in found], drafted(model, IDS[row : row + 1, : lengths[row] + 1]))
    fork = caches[0].fork()
    model.states(IDS[:1, 20:60], fork)
    same(draft(model, IDS[:1, 20], caches[0]), drafted(model, IDS[:1, :21]))


def test_padding_is_not_put_into_rings(model):
    cache = model.new_cache(2)
    mask = np.arange(30) < np.array([[30], [11]])
    model.states(IDS[:, :30], cache, mask)
    given = np.array([IDS[0, 30], IDS[1, 11]])
    found = draft(model, given, cache)
    for row, length in ((0, 31), (1, 12)):
        same([part[row : row + 1] for part in found], drafted(model, IDS[row : row + 1, :length]))


def test_a_draft_sees_two_windows_back(backend):
    """A ring holds 8 keys; each is of a state that has seen 8 tokens."""
    changes = tiny.DSPARK | {"compress_ratios": (0, 0, 0), "num_hidden_layers": 1}
    changes["dspark"] = replace(tiny.DSPARK["dspark"], target_layer_ids=(0,))
    model = tiny.model(backend, **changes)
    other = IDS.copy()
    other[:, :20] = (other[:, :20] + 1) % tiny.CONFIG.vocab_size
    seen = 20 + 2 * (tiny.CONFIG.sliding_window - 1)
    same(drafted(model, other[:, : seen + 2]), drafted(model, IDS[:, : seen + 2]))
    assert not np.allclose(drafted(model, other[:, : seen + 1])[1], drafted(model, IDS[:, : seen + 1])[1])


def test_every_place_sees_the_whole_block(backend):
    """Noise stands behind the given token; another noise changes the first place, too."""
    source = tiny.checkpoint(**tiny.DSPARK)
    row = (np.arange(tiny.CONFIG.vocab_size) == 39)[:, None]
    changed = source.changed(embed__weight=lambda weight: np.where(row, -weight, weight))
    ids = IDS[:, :30] % 39  # the text itself has none of it
    logits, others = (drafted(tiny.model(backend, each), ids)[1] for each in (source, changed))
    assert (np.abs(logits - others).max(axis=(0, 2)) > 1e-3).all()


def test_the_confidence_of_a_place_does_not_depend_on_its_own_draft(model):
    cache = model.new_cache(2)
    model.states(IDS[:, :30], cache)
    block, given = model.draft_block(IDS[:, 30], cache), model.ops.asarray(IDS[:, 30])
    picks = [greedy, lambda logits: logits.argmin(axis=-1)]
    first, second = (model.ops.to_numpy(model.dspark.draft(block, given, pick).confidence) for pick in picks)
    np.testing.assert_array_equal(first[:, 0], second[:, 0])
    assert (first[:, 1:] != second[:, 1:]).all()


def test_a_packed_cache_holds_rings_as_bytes(backend):
    """What is read back of them is what was made, but for the rotated channels, which are in bf16."""
    source = tiny.quantised(tiny.checkpoint(**tiny.WIDE, **tiny.DSPARK))
    model, lengths = tiny.model(backend, source, fake_quant=True, dtype=np.float32), np.full(2, 11)
    floats, packed = (model.new_cache(2, max_rollback=0, packed=each).mtp.layers for each in (False, True))
    main_hidden = np.random.default_rng(0).standard_normal((2, 11, 2 * source.config.hidden_size), np.float32)
    for rings in (floats, packed):
        model.dspark.read(backend.asarray(main_hidden), Span(0 * lengths, lengths, 11, backend.asarray), rings, ignore)
    for ring, stored in zip(floats, packed, strict=True):
        rows, expected = stored.window.coding.unpack(stored.window.rows), backend.to_numpy(ring.window.rows).copy()
        expected[..., -8:] = expected[..., -8:].astype(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(backend.to_numpy(rows), expected)
        assert stored.window.rows.dtype == np.uint8
        assert stored.nbytes(lengths)["window"] == 2 * tiny.CONFIG.sliding_window * stored.window.coding.width
        ring.window.rows = rows
    for ours, theirs in zip(*(model.dspark.block(IDS[:, 11], lengths, each) for each in (floats, packed)), strict=True):
        np.testing.assert_array_equal(backend.to_numpy(ours), backend.to_numpy(theirs))


def test_a_cache_without_room_for_drafts_gives_the_same_logits_and_no_draft(model):
    cache = model.new_cache(2, drafts=False)
    tiny.close(
        model.ops.to_numpy(model(IDS[:, :20], cache)), model.ops.to_numpy(model(IDS[:, :20], model.new_cache(2)))
    )
    with pytest.raises(PromptError, match=r"expected one with room for drafts, found one of new_cache\(drafts=False\)"):
        model.draft_block(IDS[:, 20], cache)


def test_what_does_not_fit_a_draft_is_named(model):
    cache = model.new_cache(2)
    with pytest.raises(PromptError, match="given: expected one token for each of 2 sequences, which have tokens"):
        model.draft_block(IDS[:, 0], cache)
    model.states(IDS[:, :5], cache)
    with pytest.raises(PromptError, match="given: expected one token for each of 2 sequences"):
        model.draft_block(IDS[:1, 0], cache)
    with pytest.raises(PromptError, match="token ids: expected 0 … 39, found 40"):
        model.draft_block([1, 40], cache)
    mtp = tiny.model(Ops())
    with pytest.raises(CheckpointError, match=r"tiny: expected a DSpark drafter \(mtp\.\*\), found none"):
        mtp.draft_block([1], mtp.new_cache())
    with pytest.raises(CheckpointError, match="expected an MTP layer"):
        model.mtp_logits(model.states(IDS[:, :5]), IDS[:, 1:6])
