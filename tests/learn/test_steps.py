"""Steps of training: which parameters learn from which loss, what a pass shows, and batches in parts."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tiny
from dsv4.errors import SettingError
from dsv4.learn import TrainableModel, gradients, tape
from dsv4.learn.gradients import LOSSES, Loss, Pass, step
from dsv4.learn.losses.labels import count_predicted
from learn.runs import trainable

LENGTH = 135
BOTH = {"next_token": 1.0, "mtp": 0.3}


def test_nothing_is_detached_in_the_loss_of_mtp():
    weights = trainable()
    _, found = gradients(TrainableModel(weights), tiny.tokens(1, 2, 9), losses={"mtp": 1.0})
    for name in (
        "embed.weight",
        "head.weight",
        "layers.0.attn.wkv.weight",
        "layers.3.hc_ffn_fn",
        "mtp.0.e_proj.weight",
    ):
        assert found[name].any(), name
    assert not found["norm.weight"].any()  # the main model's head is not on the way


def test_losses_that_only_some_parameters_learn_from(monkeypatch):
    def scores(run):
        return run.seen["layers.1.attn.indexer.scores"].sum()

    model, ids = TrainableModel(trainable(seed=6)), tiny.tokens(1, 1, 40)
    monkeypatch.setitem(LOSSES, "everywhere", Loss(scores, observes=True))
    monkeypatch.setitem(LOSSES, "indexer alone", Loss(scores, lambda name: ".indexer." in name, observes=True))
    language = step(model, ids, None, {"next_token": 2.0}).gradients
    everywhere = step(model, ids, None, {"everywhere": 3.0}).gradients
    assert everywhere["embed.weight"].any()
    both = step(model, ids, None, {"indexer alone": 3.0, "next_token": 2.0})
    assert both.losses["indexer alone"] == step(model, ids, None, {"everywhere": 1.0}).losses["everywhere"]
    for name, found in both.gradients.items():
        np.testing.assert_allclose(found, everywhere[name] if ".indexer." in name else language[name], atol=1e-12)


@pytest.mark.parametrize("loss", ["indexer", "indexer_warmup"])
def test_indexers_alone_learn_from_their_losses(loss):
    """All else is as if it were detached, although the scores are made of streams that all layers made."""
    _, found = gradients(TrainableModel(trainable(seed=6)), tiny.tokens(1, 1, 40), losses={loss: 1.0})
    learnt = {name for name, gradient in found.items() if gradient.any()}
    assert learnt and all(".indexer." in name for name in learnt)


def test_weights_change_between_steps():
    """An optimiser writes into arrays or replaces them; the model is made once."""
    weights = trainable(seed=5)
    model, ids = TrainableModel(weights), tiny.tokens(1, 1, 9)
    before, first = gradients(model, ids)
    for name in weights.parameters:
        weights.parameters[name] = weights.parameters[name] - 1e-4 * first[name]
    between, second = gradients(model, ids)
    assert between < before
    for name, array in weights.parameters.items():
        array -= 1e-4 * second[name]
    weights.others["layers.1.ffn.gate.bias"] = weights.others["layers.1.ffn.gate.bias"] + np.arange(6)
    loss, found = gradients(model, ids)
    expected = gradients(TrainableModel(weights), ids)
    assert loss == expected[0]
    assert loss != before
    for name in found:
        np.testing.assert_array_equal(found[name], expected[1][name])


def test_a_run_gives_tensors_to_who_looks_on():
    """Of the MTP module, too, where it takes part."""
    model, ids = TrainableModel(trainable(seed=6)), tiny.tokens(1, 1, 40)
    seen = Pass(model, ids, with_mtp=True, observes=True).seen
    for name in ("layers.1.attn.indexer.scores", "layers.1.ffn.gate.weights", "layers.0.attn.q", "mtp.0.attn.kv"):
        assert isinstance(seen[name], tape.Tensor)
        assert seen[name].node is not None
    assert isinstance(seen["layers.1.attn.indexer.topk"], np.ndarray)
    assert not any(name.startswith("mtp.") for name in Pass(model, ids, observes=True).seen)
    assert Pass(model, ids).seen == {}


def test_parts_of_a_batch_in_threads_of_their_own():
    """Each part counts with its share of the tokens that are predicted."""
    weights, ids = trainable(seed=8), tiny.tokens(1, 3, 60)
    mask = np.arange(60) < [[60], [60], [20]]
    model = TrainableModel(weights)
    loss, expected = gradients(model, ids, mask, BOTH)
    parts = [slice(0, 1), slice(1, 3)]
    shares = [count_predicted(ids[part], mask[part]) / count_predicted(ids, mask) for part in parts]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda part: gradients(model, ids[part], mask[part], BOTH), parts))
    np.testing.assert_allclose(
        sum(share * one for share, (one, _) in zip(shares, found, strict=True)), loss, rtol=1e-12
    )
    for name, gradient in expected.items():
        total = sum(share * one[name] for share, (_, one) in zip(shares, found, strict=True))
        np.testing.assert_allclose(total, gradient, rtol=1e-9, atol=1e-12)


def test_layers_that_are_computed_again():
    weights, ids = trainable(seed=7), tiny.tokens(1, 2, LENGTH)
    mask = np.arange(LENGTH) < [[LENGTH], [50]]
    model = TrainableModel(weights, recomputes=True)
    expected = step(TrainableModel(weights), ids, mask, BOTH)
    found = step(model, ids, mask, BOTH)
    assert found.losses == expected.losses
    for name, gradient in found.gradients.items():
        np.testing.assert_allclose(gradient, expected.gradients[name], rtol=1e-12, atol=1e-15)
    assert Pass(model, ids, observes=True).seen["layers.1.attn.indexer.scores"].node is not None
    with pytest.raises(SettingError, match="cache: expected none"):
        model(ids, model.new_cache(2))


def test_a_model_on_the_tape_takes_a_cache():
    """Chunk by chunk, the gradient goes back through what the cache holds."""
    weights, ids = trainable(seed=7), tiny.tokens(1, 1, LENGTH)
    model = TrainableModel(weights)
    leaves = list(model.leaves.values())
    factors = np.random.default_rng(0).standard_normal((1, LENGTH, weights.config.vocab_size))
    expected = tape.gradients((model(ids) * factors).sum(), leaves)
    cache, total = model.new_cache(1), 0
    for start, end in ((0, 50), (50, 51), (51, 130), (130, LENGTH)):
        total = total + (model(ids[:, start:end], cache) * factors[:, start:end]).sum()
    for found, one in zip(tape.gradients(total, leaves), expected, strict=True):
        np.testing.assert_allclose(found, one, rtol=1e-9, atol=1e-11)
