"""The verdict *same text*: the bundled model writes on every backend what it writes on NumPy's.

With rounding on, texts may part: a number that lies on the boundary between two codes, as 0.71875 does, falls to one
side or the other by the last bit of a sum. So there the proof is of another kind. Both runs are gone through again,
step by step as they were made: the numbers to be rounded agree, and where texts part, nothing had parted before the
first value was tipped.
"""

import functools

import numpy as np
import pytest

from backends import CUDA_ON_HOST, backend_names
from conftest import created, marked
from dsv4 import bundled_model, generate, load
from dsv4.model.model import Model
from dsv4.ops import Ops
from dsv4.ops.quantise import is_quantised
from dsv4.text.tokenizer import Tokenizer

PROMPTS = ["ROMEO.", "Enter the King and his train.", "JULIET.\nO", "To be, or not to be", "Good morrow, my lord; what"]
GREEDY = {"temperature": 0}
DRAWN = {"temperature": 0.8, "top_p": 0.95, "seed": 3}
LENGTH = 200


def prompts() -> list[list[int]]:
    tokenizer = Tokenizer.from_file(bundled_model())
    return [tokenizer.encode(prompt) for prompt in PROMPTS]


@pytest.fixture(
    scope="module", params=[marked(name) for name in backend_names() if name not in ("numpy", CUDA_ON_HOST)]
)
def accelerated(request):
    """Every backend but NumPy's own in turn; skipped where it cannot run."""
    return created(request.param)


@functools.cache
def texts(name: str, **options) -> list[list[int]]:
    """What a backend writes after each prompt, all of them in one batch, without rounding."""
    model = load(backend=name, fake_quant="off")
    found: list[list[int]] = [[] for _ in PROMPTS]
    for token in generate(model, prompts(), max_new_tokens=LENGTH, stop_ids=[], **options):
        found[token.sequence].append(token.id)
    assert {len(text) for text in found} == {LENGTH}
    return found


@pytest.mark.parametrize("options", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_the_text_is_numpys(accelerated, options) -> None:
    assert texts(accelerated.name, **options) == texts("numpy", **options)


@pytest.mark.parametrize("fake_quant", ["off", "on"])
def test_the_greedy_text_with_drafts_is_the_text_without(backend, fake_quant) -> None:
    """And the drafts are worth something: a good part of them is kept."""
    model = load(backend=backend.name, fake_quant=fake_quant)
    options = {"max_new_tokens": 60, "temperature": 0, "stop_ids": []}
    runs = [generate(model, prompts()[0], **options, speculative=speculative) for speculative in (False, True)]
    plain, drafted = ([token.id for token in run] for run in runs)
    assert plain == drafted
    assert runs[1].accepted > 10


@pytest.mark.parametrize("options", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("sequence", range(len(PROMPTS)))
def test_texts_with_rounding_part_only_where_a_rounding_tips(accelerated, sequence, options) -> None:
    prompt = prompts()[sequence]
    expected, found = (rounded_text(name, sequence, **options) for name in ("numpy", accelerated.name))
    parting = next((step for step in range(LENGTH) if found[step] != expected[step]), LENGTH)
    ids = prompt + expected[:parting]
    logits, calls = zip(*(recorded_steps(ops, ids, len(prompt)) for ops in (Ops(), accelerated)), strict=True)
    tipped = first_tipped(len(ids), *calls)
    agree = np.abs(logits[0] - logits[1]).max(axis=-1) < 1e-4 * logits[0].std()  # [S]
    assert agree[:tipped].all()
    assert parting == LENGTH or not agree[-1], "another token without another logit"


def rounded_text(name: str, sequence: int, **options) -> list[int]:
    """What a backend writes after a prompt, alone, with rounding."""
    model = load(backend=name, fake_quant="on")
    return [token.id for token in generate(model, prompts()[sequence], max_new_tokens=LENGTH, stop_ids=[], **options)]


Call = tuple[str, np.ndarray, np.ndarray, np.ndarray]
"""Of a rounding: its name, the positions [n] of its rows, the numbers before it and those after it, [n, ·]."""


def recorded_steps(ops: Ops, ids: list[int], prompt: int) -> tuple[np.ndarray, list[Call]]:
    """Logits [S, vocab] and all roundings of a run that reads a prompt at once and the rest token by token.

    Inside the experts there is another rounding, which only shows in what they return.
    """
    calls: list[Call] = []
    start, length = 0, prompt

    class Recorder(type(ops)):
        def keep(self, name, x, rounded):
            before, after = (np.array(self.to_numpy(part)) for part in (x, rounded))
            rows = len(before) if name == "experts" else before.shape[1]
            positions = start + last_tokens(length, rows)
            calls.append((name, positions, before.reshape(rows, -1), after.reshape(rows, -1)))
            return rounded

        def fake_quant_fp8(self, x, block):
            return self.keep("fake_quant_fp8", x, super().fake_quant_fp8(x, block))

        def fake_quant_fp4(self, x):
            return self.keep("fake_quant_fp4", x, super().fake_quant_fp4(x))

        def linear(self, x, weight, round_inputs=False):
            if round_inputs and is_quantised(weight):
                self.keep("linear", x, super().fake_quant_fp8(x, 128))
            return super().linear(x, weight, round_inputs)

        def linears(self, x, weights, round_inputs=False):
            if round_inputs and any(map(is_quantised, weights)):
                self.keep("linears", x, super().fake_quant_fp8(x, 128))
            return super().linears(x, weights, round_inputs)

        def experts(self, x, *arguments):
            return self.keep("experts", x, super().experts(x, *arguments))

    model = Model(load(backend="numpy").checkpoint, Recorder(), True, np.float32)
    cache, logits = model.new_cache(drafts=False), []
    for start, length in ((0, prompt), *((position, 1) for position in range(prompt, len(ids)))):
        logits.append(model.ops.to_numpy(model(ids[start : start + length], cache))[0])
    return np.concatenate(logits), calls


def first_tipped(length: int, expected, found) -> int:
    """The first position at which any rounding has another result; `length` where all are alike.

    Before a position at which one has tipped, the numbers to be rounded may differ only as sums of float32 do.
    """
    first = length
    for (name, positions, before, after), other in zip(expected, found, strict=True):
        other_name, _, other_before, other_after = other
        assert name == other_name
        sound = positions < first
        limit = 1e-5 * np.abs(before).max(initial=0)
        np.testing.assert_allclose(other_before[sound], before[sound], rtol=0, atol=limit, err_msg=name)
        least = 1e-4 * np.abs(after).max(initial=0) if name == "experts" else 0  # codes are equal or they are not
        tipped = (np.abs(other_after - after) > least).any(axis=-1)
        first = min([first, *positions[tipped]])
    return first


def last_tokens(length: int, rows: int) -> np.ndarray:
    """The position of each row: of a token, or of the last token of a compressed entry."""
    ratio = next(ratio for ratio in (1, 4, 128) if length // ratio == rows)
    return ratio * np.arange(1, rows + 1) - 1
