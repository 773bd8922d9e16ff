"""V4.1 against outputs of the official code: every layer's results, logits, what the drafter reads, drafts.

`v41_float` has float weights and rounds nothing; `v41_quant` has FP8, FP4 and bfloat16 weights and rounds everything. A
value that falls on the other side of a rounding boundary changes all that follows it, so there layers are compared one
by one, each fed the official output of the layer before.
"""

import numpy as np
import pytest

from dsv4.model.span import Span
from dsv4.model41.block import first_pre
from dsv4.model41.source import Published
from dsv4.text.generate import generate
from dsv4.verify41_released import with_stale_keys
from model41 import golden41
from model41.golden41 import PROMPTS, STEPS, Seen, chosen, expected, prompt, slots

FLOAT, QUANT = "v41_float", "v41_quant"


@pytest.fixture(scope="module")
def models(backend):
    return {name: golden41.model(name, backend) for name in (FLOAT, QUANT)}


def run(model, name, row):
    """Logits of the prompt in one pass and of each step behind it, with what the passes showed and left in rings."""
    ids, length = prompt(name, row)
    cache = model.new_cache(1, max_rollback=0)
    passes, rings = [], []
    for start, stop in [(0, length), *((t, t + 1) for t in range(length, length + STEPS))]:
        seen = Seen(model.ops)
        seen["logits"] = model.ops.to_numpy(model(ids[None, start:stop], cache, observe=seen))
        passes.append(seen)
        rings.append(slots(model, cache.mtp))
    return passes, rings


@pytest.fixture(scope="module")
def float_runs(models):
    return {row: run(models[FLOAT], FLOAT, row) for row in PROMPTS}


@pytest.mark.parametrize("row", PROMPTS)
def test_float_passes_agree(float_runs, row):
    golden = expected(FLOAT)
    (first, *steps), rings = float_runs[row]
    for part, found in (("prefill", [first]), ("decode", steps)):
        logits, hidden = (np.concatenate([one[key][0] for one in found]) for key in ("logits", "main_hidden"))
        np.testing.assert_allclose(logits, golden[f"{row}.{part}.logits"], rtol=0, atol=2e-4)
        np.testing.assert_allclose(hidden, golden[f"{row}.{part}.main_hidden"], rtol=0, atol=5e-5)
    np.testing.assert_allclose(rings[0], golden[f"{row}.prefill.rings"], rtol=0, atol=5e-5)
    np.testing.assert_allclose(rings[-1], golden[f"{row}.decode.rings"], rtol=0, atol=5e-5)


@pytest.mark.parametrize("row", PROMPTS)
def test_every_choice_of_entries_while_decoding_agrees(float_runs, row):
    (_, *steps), _ = float_runs[row]
    names = [name for name in expected(FLOAT) if name.startswith(f"{row}.decode.layers.")]
    assert len(names) == 4
    for name in names:
        found = [step[name.removeprefix(f"{row}.decode.")][0, 0] for step in steps]
        assert chosen(found) == chosen(expected(FLOAT)[name]), name


def results_of_layers(golden, seen, config):
    """Each official result of the first prompt's prefill, beside the one found."""
    for name, official in golden.items():
        if not name.startswith("p0.prefill.layers."):
            continue
        key = name.removeprefix("p0.prefill.").replace(".gate.", ".ffn.gate.")
        found = seen[key] if ".gate." in key else seen[key][0]
        if key.endswith("topk"):
            assert chosen(found) == chosen(official), name
        elif key.endswith("candidates"):
            visible = np.tril(np.ones(official.shape, bool))
            blocks = np.arange(official.shape[1]) // config.candidate_block_size
            pool = np.array([np.isin(blocks, row[row >= 0]) for row in found])
            np.testing.assert_array_equal(pool & visible, (official == 1) & visible, err_msg=name)
        else:
            yield name, found, official


def test_every_result_of_float_layers_agrees(models, float_runs):
    seen = float_runs["p0"][0][0]
    compared, order, weights = 0, {}, {}
    for name, found, official in results_of_layers(expected(FLOAT), seen, models[FLOAT].config):
        if name.endswith("indices"):
            ours, theirs = np.argsort(found), np.argsort(official)  # experts come in any order, weights in that order
            np.testing.assert_array_equal(
                np.take_along_axis(found, ours, -1), np.take_along_axis(official, theirs, -1), err_msg=name
            )
            order[name.removesuffix("indices")] = ours, theirs
        elif name.endswith("gate.weights"):
            weights[name.removesuffix("weights")] = found, official
        else:
            np.testing.assert_allclose(found, official, rtol=0, atol=5e-5, err_msg=name)
        compared += 1
    assert compared == 10 * 7 + 3 * 3 + 2
    for gate, (found, official) in weights.items():
        ours, theirs = order[gate]
        np.testing.assert_allclose(
            np.take_along_axis(found, ours, -1),
            np.take_along_axis(official, theirs, -1),
            rtol=0,
            atol=5e-5,
            err_msg=gate,
        )
    rows = [seen[f"layers.{layer}.engram.hash_ids"][0] for layer in models[FLOAT].config.engram.layer_ids]
    np.testing.assert_array_equal(np.stack(rows, axis=1), expected(FLOAT)["p0.prefill.engram.hash_ids"])


def test_a_padded_batch_agrees(models):
    """All four prompts side by side, then steps with their own positions; what stands in padding does not matter."""
    model, golden = models[FLOAT], expected(FLOAT)
    texts = [prompt(FLOAT, row) for row in PROMPTS]
    longest = max(length for _, length in texts)
    ids = np.full((4, longest), 7)
    for number, (text, length) in enumerate(texts):
        ids[number, longest - length :] = text[:length]
    mask = np.arange(longest) >= longest - np.array([length for _, length in texts])[:, None]
    cache = model.new_cache(4)
    logits = model.ops.to_numpy(model(ids, cache, mask))
    for number, row in enumerate(PROMPTS):
        np.testing.assert_allclose(logits[number][mask[number]], golden[f"{row}.prefill.logits"], rtol=0, atol=2e-4)
    for step in range(STEPS):
        following = np.array([text[length + step] for text, length in texts])
        found = model.ops.to_numpy(model(following[:, None], cache))
        for number, row in enumerate(PROMPTS):
            official = golden[f"{row}.decode.logits"][step]
            np.testing.assert_allclose(found[number, 0], official, rtol=0, atol=2e-4)


@pytest.mark.parametrize("row", PROMPTS)
def test_the_released_loop_scores_with_stale_keys(models, row):
    """What the official decoding loop does without its correction is this, and this model does not do it."""
    golden, (ids, length) = expected(FLOAT), prompt(FLOAT, row)
    model = with_stale_keys(models[FLOAT])
    cache = model.new_cache(1)
    model(ids[None, :length], cache)
    steps, seen = [], []
    for t in range(length, length + STEPS):
        seen.append(Seen(model.ops))
        steps.append(model.ops.to_numpy(model(ids[None, t : t + 1], cache, observe=seen[-1]))[0, 0])
    np.testing.assert_allclose(np.stack(steps), golden[f"{row}.decode.released.logits"], rtol=0, atol=2e-4)
    for layer in model.config.index_source_layer_ids:
        name = f"layers.{layer}.attn.indexer.topk"
        assert chosen([one[name][0, 0] for one in seen]) == chosen(golden[f"{row}.decode.released.{name}"]), name
    assert np.abs(np.stack(steps) - golden[f"{row}.decode.logits"]).max() > 1


def rounded_rows(found, official):
    """What is allowed where all is rounded: nearly all numbers are equal, and few rows differ at all."""
    delta, spread = np.abs(found - official), official.std()
    assert found.shape == official.shape
    assert np.median(delta) < 1e-5 * spread
    assert np.sqrt(np.mean(delta**2)) < 1e-2 * spread
    assert np.mean(delta.reshape(len(delta), -1).max(axis=1) > 1e-4 * spread) <= 0.2


def test_rounded_layers_agree_one_by_one(models):
    model, golden = models[QUANT], expected(QUANT)
    ids, length = prompt(QUANT, "p0")
    given = ids[None, :length]
    streams = model.first_streams(model.ops.asarray(given))
    pre, published, seen = first_pre(model.ops, streams), Published(), Seen(model.ops)
    for layer in range(model.config.num_hidden_layers):
        model.layer(layer, streams, pre, given, published, seen)
        streams, pre = (golden[f"p0.prefill.layers.{layer}.{part}"][None] for part in ("out", "pre_mix"))
    for name, found, official in results_of_layers(golden, seen, model.config):
        if name.endswith(("compressor.out", "indexer.keys")):
            np.testing.assert_array_equal(found, official, err_msg=name)
        elif name.endswith("indices"):
            assert (np.sort(found) == np.sort(official)).all(axis=1).mean() >= 0.98, name
        else:
            rounded_rows(*(np.sort(one) if "gate.weights" in name else one for one in (found, official)))


@pytest.mark.parametrize("row", PROMPTS)
def test_rounded_passes_agree_end_to_end(models, row):
    golden = expected(QUANT)
    (first, *steps), _ = run(models[QUANT], QUANT, row)
    for part, found in (("prefill", [first]), ("decode", steps)):
        logits, official = np.concatenate([one["logits"][0] for one in found]), golden[f"{row}.{part}.logits"]
        assert np.sqrt(np.mean((logits - official) ** 2)) < 1.5e-1 * official.std(), part
        assert np.mean(logits.argmax(-1) == official.argmax(-1)) >= 0.9, part


def drafts(model, name, row):
    """The drafts of all points, from the official states of the main model, by the names of the file."""
    golden, (ids, _) = expected(name), prompt(name, row)
    hidden = np.concatenate([golden[f"{row}.prefill.main_hidden"], golden[f"{row}.decode.main_hidden"]])
    rings, found, stages, ops = model.new_cache(1, max_rollback=0).mtp, [], [], model.ops
    for t in golden[f"{row}.draft.t"].tolist():
        new = hidden[None, int(rings.lengths[0]) : t + 1]
        span = Span(rings.lengths, np.array([new.shape[1]]), new.shape[1], ops.asarray)
        seen, given = Seen(ops), ids[t + 1 : t + 2]
        model.dspark.read(ops.asarray(new), span, rings.layers, seen)
        rings.finish(span.counts)
        block = model.dspark.block(given, rings.lengths, rings.layers, seen)
        draft = model.dspark.draft(block, ops.asarray(given), lambda logits: logits.argmax(axis=-1))
        stages.append([seen[f"mtp.{stage}.out"][0] for stage in range(model.config.draft_layers)])
        found.append(
            [ops.to_numpy(one)[0] for one in (block.base, block.hidden, *draft)] + [seen["mtp.0.main_x"][0, -1]]
        )
    names = ("base_logits", "collapsed", "ids", "logits", "confidence", "main_x")
    results = {key: np.stack(arrays) for key, arrays in zip(names, zip(*found, strict=True), strict=True)}
    return results | {"rings": slots(model, rings), "stages": np.stack(stages, axis=1)}


@pytest.mark.parametrize("row", PROMPTS)
def test_float_drafts_agree(models, row):
    golden, found = expected(FLOAT), drafts(models[FLOAT], FLOAT, row)
    np.testing.assert_array_equal(found["ids"], golden[f"{row}.draft.ids"][:, 1:])
    np.testing.assert_allclose(found["rings"], golden[f"{row}.decode.rings"], rtol=0, atol=5e-5)
    for key, most in (
        ("main_x", 5e-5),
        ("collapsed", 5e-5),
        ("confidence", 5e-5),
        ("base_logits", 2e-4),
        ("logits", 2e-4),
    ):
        np.testing.assert_allclose(found[key], golden[f"{row}.draft.{key}"], rtol=0, atol=most, err_msg=key)
    if row == "p0":
        places = np.searchsorted(golden["p0.draft.t"], golden["p0.draft.stages.t"])
        official = golden["p0.draft.stages.out"]
        np.testing.assert_allclose(found["stages"][:, places], official, rtol=0, atol=5e-5)


@pytest.mark.parametrize("row", PROMPTS)
def test_rounded_drafts_agree(models, row):
    golden, found = expected(QUANT), drafts(models[QUANT], QUANT, row)
    np.testing.assert_array_equal(found["rings"], golden[f"{row}.decode.rings"])
    for key in ("main_x", "collapsed", "confidence", "base_logits", "logits"):
        delta, spread = np.abs(found[key] - golden[f"{row}.draft.{key}"]), golden[f"{row}.draft.{key}"].std()
        assert np.median(delta) < 1e-5 * spread, key
        assert np.sqrt(np.mean(delta**2)) < 1e-2 * spread, key
    assert np.mean(found["ids"] == golden[f"{row}.draft.ids"][:, 1:]) >= 0.97


@pytest.mark.parametrize("row", PROMPTS[:3])
def test_each_round_of_the_greedy_speculative_runs_is_the_official_one(models, row):
    """Of a wrong ring, or of a rollback that loses something, only the rounds tell."""
    golden, (ids, length) = expected(FLOAT), prompt(FLOAT, row)
    count, most = len(golden[f"{row}.spec.t"]), STEPS + 2 * (models[FLOAT].config.dspark.block_size + 1)
    generation = generate(models[FLOAT], ids[:length], most, temperature=0, stop_ids=[], speculative=True)
    rounds = []
    generation.rounds.watch = rounds.append
    text = [token.id for token in generation]
    np.testing.assert_array_equal(text[: STEPS + 1], ids[length:])
    found = {
        "t": [one.position for one in rounds[:count]],
        "given": [one.given for one in rounds[:count]],
        "drafts": [one.drafts for one in rounds[:count]],
        "accepted": [one.accepted for one in rounds[:count]],
        "next": [one.following[0] for one in rounds[:count]],
    }
    for key, values in found.items():
        np.testing.assert_array_equal(values, golden[f"{row}.spec.{key}"], err_msg=key)
    assert golden[f"{row}.spec.accepted"].min() == 0
