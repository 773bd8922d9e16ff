"""The bundled model: likelihood of a play that it has not read and its greedy text, as `transformers` computed them.

tests/oracle/test_bundled.py holds the expected numbers to `transformers` itself.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from dsv4 import bundled_model, generate, load
from dsv4.text.tokenizer import Tokenizer

DATA = Path(__file__).parents[1] / "data" / "eval"
EXPECTED = json.loads((DATA / "eval.json").read_text(encoding="utf-8"))
WINDOW = EXPECTED["window"]


def likelihood(model) -> float:
    """Mean negative log-likelihood in nats per token over consecutive windows, each from a fresh start."""
    tokenizer = Tokenizer.from_file(bundled_model())
    ids = np.array(tokenizer.encode((DATA / "eval.txt").read_text(encoding="utf-8")))
    count = (len(ids) - 1) // WINDOW
    assert count == EXPECTED["windows"]
    windows, following = (ids[start : start + count * WINDOW].reshape(count, WINDOW) for start in (0, 1))
    logits = model.ops.to_numpy(model(windows)).astype(np.float64)  # [windows, WINDOW, vocab]
    largest = logits.max(axis=-1, keepdims=True)
    total = largest + np.log(np.exp(logits - largest).sum(axis=-1, keepdims=True))
    return float(np.mean(total - np.take_along_axis(logits, following[..., None], axis=-1)))


def test_likelihood_is_that_of_transformers(backend) -> None:
    assert abs(likelihood(load(backend=backend.name, fake_quant="off")) - EXPECTED["nll"]) < 1e-5


def test_greedy_tokens_are_those_of_transformers(backend) -> None:
    tokenizer = Tokenizer.from_file(bundled_model())
    prompt = tokenizer.encode(EXPECTED["greedy_prompt"])
    assert prompt == EXPECTED["greedy_ids"][: len(prompt)]
    model, count = load(backend=backend.name, fake_quant="off"), len(EXPECTED["greedy_ids"]) - len(prompt)
    found = [token.id for token in generate(model, prompt, max_new_tokens=count, temperature=0, stop_ids=())]
    assert found == EXPECTED["greedy_ids"][len(prompt) :]


@pytest.mark.parametrize(("fake_quant", "nats", "distance"), [("off", 3.26297, 2e-5), ("on", 3.26368, 2e-3)])
def test_likelihood_of_the_bundled_model_is_that_of_its_card(backend, fake_quant, nats, distance) -> None:
    """With rounding, another order of sums tips other values: NumPy 2.4 and 2.5 are 8e-4 apart, on and off 4e-3."""
    found = likelihood(load(backend=backend.name, fake_quant=fake_quant))
    assert abs(found - nats) < distance
    card = (bundled_model() / "README.md").read_text(encoding="utf-8")
    assert f"| {nats:.5f} | {np.exp(nats):.3f} |" in card
