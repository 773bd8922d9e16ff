"""A whole model on arrays of a device: nothing leaves it but tokens, and what it says is what NumPy says."""

import numpy as np
import pytest
from typer.testing import CliRunner

import tiny
from cuda.host_array import HostArray
from cuda.model_ops import ModelOps
from dsv4 import loading
from dsv4.cli import app
from dsv4.errors import DSV4Error
from dsv4.ops import Ops
from dsv4.text.generate import generate
from dsv4.verify import differences, layer_by_layer, trace

VOCAB = 300
"""More than any count of single numbers below, so that one row of logits would be noticed."""

PROMPTS = [tiny.tokens(seed, length, vocab=VOCAB).tolist() for seed, length in ((1, 2), (2, 7), (3, 130))]
LENGTH = 6
GREEDY = {"temperature": 0}
DRAWN = {"temperature": 0.8, "top_p": 0.9, "seed": 3}
SETTINGS = pytest.mark.parametrize("settings", [GREEDY, DRAWN], ids=["greedy", "drawn"])


@pytest.fixture(scope="module")
def checkpoint():
    return tiny.checkpoint(vocab_size=VOCAB)


@pytest.fixture(scope="module")
def model(checkpoint):
    return tiny.model(ModelOps(), checkpoint)


def tokens(model, **options):
    return list(generate(model, PROMPTS, max_new_tokens=LENGTH, stop_ids=[], **options))


@pytest.fixture
def command(monkeypatch):
    """Runs `dsv4` with these arguments, "cuda" being the device."""
    monkeypatch.setattr(loading, "backend_named", {"numpy": Ops(), "cuda": ModelOps()}.__getitem__)
    return lambda *arguments: CliRunner().invoke(app, arguments)


@SETTINGS
def test_each_token_is_all_that_comes_to_the_host(model, settings):
    HostArray.fetched = 0
    assert len(tokens(model, **settings)) == HostArray.fetched == len(PROMPTS) * LENGTH


@SETTINGS
def test_drafts_bring_a_few_numbers_more(model, settings):
    """Each distribution is looked at for numbers that are none, and each draft's two probabilities are compared."""
    HostArray.fetched = 0
    count = len(tokens(model, speculative=True, **settings))
    assert count < HostArray.fetched <= 10 * count


@pytest.mark.parametrize("speculative", [False, True])
@SETTINGS
def test_the_tokens_are_numpys(model, checkpoint, settings, speculative):
    expected = tokens(tiny.model(Ops(), checkpoint), speculative=speculative, **settings)
    assert tokens(model, speculative=speculative, **settings) == expected


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_an_error(checkpoint, temperature, bad):
    broken = checkpoint.changed(head__weight=lambda weight: np.where(np.arange(VOCAB)[:, None] == 7, bad, weight))
    message = "logits: expected numbers below infinity, found (inf|nan) for token 7"
    with np.errstate(invalid="ignore"), pytest.raises(DSV4Error, match=message):
        tokens(tiny.model(ModelOps(), broken), temperature=temperature)


def transfers(monkeypatch, layers: int, position: int) -> tuple[int, int]:
    """How many arrays one decoding step places, and how many indices of NumPy it uses."""
    model = tiny.model(ModelOps(), compress_ratios=(0, 4, 128) * layers, num_nextn_predict_layers=0)
    cache = model.new_cache(2)
    ids = tiny.tokens(4, 2, position + 1)
    model(ids[:, :position], cache)
    placed = []
    asarray = ModelOps.asarray
    monkeypatch.setattr(ModelOps, "asarray", staticmethod(lambda array: placed.append(array) or asarray(array)))
    model.ops = ModelOps()
    HostArray.indices_placed = 0
    model(ids[:, position:], cache)
    monkeypatch.undo()
    return len(placed), HostArray.indices_placed


@pytest.mark.parametrize("position", [9, 11, 127])
def test_more_layers_place_no_more_arrays(monkeypatch, position):
    """Also where the step completes entries of CSA, or of both."""
    count, indices = transfers(monkeypatch, 1, position)
    assert (count, indices) == transfers(monkeypatch, 3, position)
    assert indices == 0


def test_a_cache_forks_goes_back_and_takes_padding(model, checkpoint):
    ids, mask = tiny.tokens(5, 2, 150, vocab=VOCAB), np.ones((2, 150), bool)
    mask[0, :9] = mask[1, 140:] = False

    def logits(model):
        cache = model.new_cache(2)
        model(ids, cache, mask)
        fork = cache.fork()
        fork.rollback(np.array([3, 120]))
        parts = [model(ids[:, :40], fork), model(ids[:, :3], cache), model(ids[:, :3], fork, mask[:, 8:11])]
        return [model.ops.to_numpy(part) for part in parts]

    for found, expected in zip(logits(model), logits(tiny.model(Ops(), checkpoint)), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_results_of_every_layer_are_compared(model, checkpoint):
    ids, plain = tiny.tokens(6, 2, 140, vocab=VOCAB), tiny.model(Ops(), checkpoint)
    expected = trace(plain, ids, 136)
    found = trace(model, ids, 136) | layer_by_layer(model, ids, expected)
    assert max(difference.worst for difference in differences(found, expected)) < 1e-12


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "ROMEO.", "To be", "--max-new-tokens", "3", "--seed", "1", "--json"],
        ["generate", "ROMEO.", "--max-new-tokens", "3", "--temperature", "0"],
    ],
    ids=["drawn", "greedy"],
)
def test_the_command_writes_what_it_writes_with_numpy(command, arguments):
    plain, found = (command(*arguments, "--backend", name) for name in ("numpy", "cuda"))
    assert (found.exit_code, found.stdout) == (0, plain.stdout)


def test_the_command_verifies(command):
    assert command("verify", "--backend", "cuda", "--against", "numpy", "--length", "30").exit_code == 0
