"""The bundled model in transformers: the numbers in tests/data/eval/eval.json, by which all backends are judged."""

import json
from pathlib import Path

import numpy as np
import pytest

from dsv4 import Tokenizer, bundled_model
from dsv4.checkpoint.convert import convert

pytestmark = pytest.mark.oracle

DATA = Path(__file__).parents[1] / "data" / "eval"
EXPECTED = json.loads((DATA / "eval.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def bundled(theirs, tmp_path_factory):
    """The weights as they are stored, in float32: without rounding, as `fake_quant="off"` computes."""
    directory = tmp_path_factory.mktemp("bundled") / "float32"
    convert(bundled_model(), directory, to="float32")
    return theirs.open_directory(directory)


def test_likelihood(theirs, bundled) -> None:
    window, count = EXPECTED["window"], EXPECTED["windows"]
    text = (DATA / "eval.txt").read_text(encoding="utf-8")
    ids = np.array(Tokenizer.from_file(bundled_model()).encode(text))[: count * window + 1]
    surprises = []
    for start in range(0, count * window, window):
        logits = theirs.logits(bundled, ids[None, start : start + window])[0].astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        came = np.take_along_axis(logits, ids[start + 1 : start + window + 1, None], axis=-1)[:, 0]
        surprises.append(np.log(np.exp(logits).sum(axis=-1)) - came)
    assert abs(np.mean(surprises) - EXPECTED["nll"]) < 1e-6


def test_greedy_text(theirs, bundled) -> None:
    prompt = np.array([Tokenizer.from_file(bundled_model()).encode(EXPECTED["greedy_prompt"])])
    count = len(EXPECTED["greedy_ids"]) - prompt.shape[1]
    found = theirs.greedy(bundled, prompt, count)
    assert [*prompt[0], *found[0]] == EXPECTED["greedy_ids"]
