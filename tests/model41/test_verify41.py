"""`dsv4 verify` for V4.1: every name of the official results, what is free in them, and what it notices."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tiny41
from command import is_one_line, runner
from dsv4.backends import VARIABLE
from dsv4.errors import SettingError
from dsv4.ops import Ops
from dsv4.verify41 import compare41, differences41, trace41
from dsv4.verify41_file import SETTINGS, Text, texts_of
from dsv4.verify41_released import with_stale_keys
from model41.golden41 import GOLDEN, PROMPTS, STEPS, expected, model, prompt
from tiny import tokens

FLOAT, QUANT = "v41_float", "v41_quant"
SAID = {f"{row}.{name}" for row in PROMPTS for name in SETTINGS}


@pytest.fixture
def dsv4(monkeypatch, capfd):
    monkeypatch.setenv(VARIABLE, "numpy")
    return runner(monkeypatch, capfd)


@pytest.fixture
def verify(dsv4, tmp_path):
    """Compare a model with results: the exit status, and what was listed, by name."""

    def run(name, results):
        save_file({key: np.ascontiguousarray(one) for key, one in results.items()}, tmp_path / "results.safetensors")
        status, out, err = dsv4("verify", GOLDEN / name, "--expected", tmp_path / "results.safetensors", "--json")
        assert err == ""
        return status, {row["name"]: row for row in json.loads(out)}

    return run


def too_large(rows):
    return [name for name, row in rows.items() if row["allowed"] is not None and not row["relative"] <= row["allowed"]]


def some(*names, of=FLOAT):
    """Some official results with what the file says about their texts, to change."""
    said = {name for name in SAID if name.split(".")[0] in {one.split(".")[0] for one in names}}
    wanted = (said & expected(of).keys()) | {"engram.token_map", *names}
    return {name: expected(of)[name].copy() for name in wanted}


@pytest.mark.parametrize("name", [FLOAT, QUANT])
def test_every_official_result_is_compared_and_met(verify, name):
    """The classes are taken from the file, as there is no tokenizer; all else is a result, of the released loop too."""
    status, rows = verify(name, expected(name))
    assert rows.keys() == expected(name).keys() - SAID - {"engram.token_map"}
    assert (status, too_large(rows)) == (0, [])
    released = [row for key, row in rows.items() if ".released." in key]
    assert len(released) == 4 * 5 and max(row["relative"] for row in released) < 1e-4


def test_only_parts_that_a_file_has_are_computed(verify, monkeypatch):
    monkeypatch.setattr("dsv4.verify41.with_stale_keys", None)
    monkeypatch.setattr("dsv4.verify41.greedy_rounds", None)
    monkeypatch.setattr("dsv4.verify41.drafts_of", None)
    status, rows = verify(FLOAT, some("p2.prefill.logits", "p2.decode.logits"))
    assert (status, list(rows)) == (0, ["p2.prefill.logits", "p2.decode.logits"])


def change(array, *place, by=1):
    array[place] += by


LAYER = "p0.prefill.layers.6."
WRONG = {
    "p2.decode.logits": lambda one: change(one, 3, 5),
    "p2.decode.main_hidden": lambda one: change(one, 3, 5, by=0.1),
    "p2.decode.layers.6.attn.indexer.topk": lambda one: change(one, -1, 0),
    "p2.decode.released.logits": lambda one: change(one, 3, 5),
    "p2.spec.accepted": lambda one: change(one, 2),
    "p2.draft.ids": lambda one: change(one, 2, 3),
    "p2.decode.rings": lambda one: change(one, 1, 2, 3, by=0.1),
    LAYER + "attn.indexer.candidates": lambda one: one.__setitem__((90, 0), 1 - one[90, 0]),
    LAYER + "gate.weights": lambda one: one[5].__imul__(0.9),
    LAYER + "attn.compressor.latent": lambda one: change(one, 2, 3, by=0.1),
    "p0.prefill.engram.hash_ids": lambda one: change(one, 90, 1, 3),
    "engram.multipliers": lambda one: change(one, 1, 2),
    "engram.primes": lambda one: change(one, 1, 2, 0),
}


@pytest.fixture(scope="module")
def found():
    """What the model computes for the official file: one run for all that is changed in it."""
    golden = expected(FLOAT)
    texts = [Text(row, *prompt(FLOAT, row)) for row in ("p0", "p2")]
    kept = {name: one for name, one in golden.items() if name.split(".")[0] in ("p0", "p2", "engram")}
    kept = {name: one for name, one in kept.items() if not name.startswith(("p0.decode", "p0.draft", "p0.spec"))}
    whole = model(FLOAT, Ops())
    return texts, kept, trace41(whole, texts, kept), whole.config


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_result_is_noticed_alone(found, name):
    texts, kept, results, config = found
    golden = {key: one.copy() for key, one in kept.items()}
    WRONG[name](golden[name])
    rows = differences41(results, golden, texts, config)
    assert [row.name for row in rows if not row.relative <= 1e-5] == [name]


def test_what_is_free_may_differ(found):
    """The order of chosen entries and experts, and whether a pool's last block is cut where entries are visible."""
    texts, kept, results, config = found
    golden = {name: one.copy() for name, one in kept.items()}
    for name in golden:
        if name.endswith(("topk", "gate.indices", "gate.weights")):
            golden[name] = np.flip(golden[name], axis=-1)
    pool = golden[LAYER + "attn.indexer.candidates"]
    pool[~np.tril(np.ones(pool.shape, bool))] = 0
    assert (pool != kept[LAYER + "attn.indexer.candidates"]).any()
    rows = differences41(results, golden, texts, config)
    assert [row.name for row in rows if not row.relative <= 1e-5] == []


@pytest.mark.parametrize("name", [FLOAT, QUANT])
def test_what_was_saved_has_every_official_name_and_is_met(dsv4, verify, tmp_path, name):
    """Of texts without a tokenizer the classes are made up, saved, and taken from there."""
    ids, saved = tmp_path / "ids.json", tmp_path / "saved.safetensors"
    ids.write_text(json.dumps(expected(name)["p1.input_ids"][None, :49].tolist()))
    status, out, err = dsv4("verify", GOLDEN / name, "--save", saved, "--ids", ids)
    assert (status, is_one_line(err)) == (0, True)
    count = expected(name)["engram.token_map"].max() + 1
    assert f"no tokenizer.json: token classes are made up, each id modulo {count}\n" in err
    results = load_file(saved)
    assert out == f"wrote {saved}: {len(results)} results\n"
    official = {key for key in expected(name) if key.startswith(("p0.", "engram."))}
    assert official <= results.keys()
    assert results["p0.length"] == 25 and len(results["p0.decode.logits"]) == 23
    status, rows = verify(name, results)
    assert (status, too_large(rows)) == (0, [])
    assert rows.keys() == results.keys() - SAID - {"engram.token_map"}


def test_a_model_is_compared_with_itself_in_another_dtype_but_not_in_the_same():
    ids = tokens(41, 2, 20)
    source, wide = tiny41.checkpoint(), tiny41.model(Ops())
    narrow = tiny41.Model41(source, Ops(), False, np.float32, tiny41.CLASSES)
    reported = []
    rows = compare41(narrow, wide, texts_of(ids, 12), lambda *one: reported.append(one))
    assert 0 < max(row.relative for row in rows) < 1e-4
    assert reported == [(1, 4, "p0"), (2, 4, "p1"), (3, 4, "p0"), (4, 4, "p1")]
    assert {row.name.split(".")[0] for row in rows} == {"engram", "p0", "p1"}
    with pytest.raises(SettingError, match="found numpy on both sides"):
        compare41(narrow, narrow, texts_of(ids, 12), lambda *one: None)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_texts_of_a_few_tokens(length):
    """Shorter than a block of two, without a step or a draft."""
    tiny = tiny41.model(Ops())
    for first in range(1, length + 1):
        texts = texts_of(tokens(41, 1, length), first)
        results = trace41(tiny, texts)
        assert ("p0.decode.logits" in results) == (length - first > 1)
        assert ("p0.draft.ids" in results) == (length > max(first, 2))
        assert not [
            row for row in differences41(trace41(tiny, texts, results), results, texts, tiny.config) if row.worst
        ]


def test_the_released_loop_leaves_the_model_as_it_is():
    """Its stale keys change the choice of a source of ratio 2 in every other step, and nothing else of the model."""
    whole = model(FLOAT, Ops())
    ids, length = prompt(FLOAT, "p1")
    released = with_stale_keys(whole)
    for one, name in (
        (whole, "p1.decode.logits"),
        (released, "p1.decode.released.logits"),
        (whole, "p1.decode.logits"),
    ):
        cache = one.new_cache(1)
        one(ids[None, :length], cache)
        steps = [one(ids[None, t : t + 1], cache)[0] for t in range(length, length + STEPS)]
        np.testing.assert_allclose(np.concatenate(steps), expected(FLOAT)[name], rtol=0, atol=2e-4)
    assert np.abs(expected(FLOAT)["p1.decode.logits"] - expected(FLOAT)["p1.decode.released.logits"]).max() > 1


def without(name):
    return lambda results: results.pop(name)


def replaced(name, value):
    return lambda results: results.update({name: value})


MISTAKES = {
    "another model's file": (lambda results: results.clear(), "expected results of texts, such as p0.input_ids"),
    "no ids": (without("p2.input_ids"), "p2.input_ids: expected integers [length], found none"),
    "two rows of ids": (
        replaced("p2.input_ids", np.zeros((2, 9), int)),
        "p2.input_ids: expected integers [length], found",
    ),
    "no length": (without("p2.length"), "p2.length: expected [a number from 1 to 30], found none"),
    "a length of nothing": (
        replaced("p2.length", np.array([0])),
        "p2.length: expected [a number from 1 to 30], found [0]",
    ),
    "streams of another text": (
        replaced("p2.prefill.layers.3.out", np.zeros((4, 4, 48), np.float32)),
        "p2.prefill.layers.3.out: expected shape [5, 4, 48], found [4, 4, 48]",
    ),
    "shares of other streams": (
        replaced("p2.prefill.layers.3.pre_mix", np.zeros((5, 3), np.float32)),
        "p2.prefill.layers.3.pre_mix: expected shape [5, 4], found [5, 3]",
    ),
    "states of another length": (
        replaced("p2.decode.main_hidden", np.zeros((3, 144), np.float32)),
        "p2.decode.main_hidden: expected shape [24, 144], found [3, 144]",
    ),
    "drafts behind the text": (
        replaced("p2.draft.t", np.array([4, 29])),
        "p2.draft.t: expected rising positions below 29, found [4, 29]",
    ),
    "an unknown name": (replaced("p2.prefill.logit", np.zeros(3)), "found p2.prefill.logit"),
    "no classes": (without("engram.token_map"), "tokenizer.json"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_file_that_does_not_fit_is_one_line(dsv4, tmp_path, mistake):
    spoil, message = MISTAKES[mistake]
    results = some("p2.prefill.logits", "p2.decode.main_hidden", "p2.prefill.main_hidden")
    spoil(results)
    save_file(results, tmp_path / "results.safetensors")
    status, out, err = dsv4("verify", GOLDEN / FLOAT, "--expected", tmp_path / "results.safetensors")
    assert (status, out, is_one_line(err)) == (2, "", True)
    assert message in err and len(err) < 500


def test_ids_stand_in_the_file_of_results(dsv4, tmp_path):
    (tmp_path / "ids.json").write_text("[1, 2]")
    arguments = ("--expected", GOLDEN / FLOAT / "expected.safetensors", "--ids", tmp_path / "ids.json")
    status, out, err = dsv4("verify", GOLDEN / FLOAT, *arguments)
    assert (status, out, is_one_line(err)) == (2, "", True)
    assert "--ids: expected none with --expected for a model of V4.1" in err


def test_the_table_has_a_row_for_each_part_of_all_texts(dsv4, tmp_path):
    results = some("p1.prefill.logits", "p2.prefill.logits", "p2.decode.logits")
    results["p2.prefill.logits"][1, 1] += 1
    save_file(results, tmp_path / "results.safetensors")
    status, out, _ = dsv4("verify", GOLDEN / FLOAT, "--expected", tmp_path / "results.safetensors")
    first, *rows, last = out.splitlines()
    assert (status, first.split()[0], last) == (1, "largest", "3 results compared")
    assert [row.split()[0] for row in rows] == ["p2.prefill.logits", "p2.decode.logits"]
    assert rows[0].endswith("too large") and "too large" not in rows[1]
