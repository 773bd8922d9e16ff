"""Gradients of whole models: against central differences in float64, and what they are of."""

import re

import numpy as np
import pytest

import tiny
from dsv4.errors import CheckpointError, PromptError, SettingError
from dsv4.learn import Trainable, TrainableModel, gradients
from dsv4.learn.tape import TapeOps
from dsv4.model.model import Model
from dsv4.ops import Ops
from dsv4.parameters import parameters
from learn.runs import trainable

STEP = 1e-6
LENGTH = 135
BOTH = {"next_token": 1.0, "mtp": 0.3}

ONE_LAYER = {"num_nextn_predict_layers": 0, "num_hash_layers": 0}
MODELS = {
    "window": {"compress_ratios": (0,), **ONE_LAYER},
    "CSA": {"compress_ratios": (4,), **ONE_LAYER},
    "HCA": {"compress_ratios": (128,), **ONE_LAYER},
    "hash": {"compress_ratios": (0,), **ONE_LAYER, "num_hash_layers": 1},
    "sigmoid": {"compress_ratios": (0,), **ONE_LAYER, "scoring_func": "sigmoid"},
    "softmax": {"compress_ratios": (0,), **ONE_LAYER, "scoring_func": "softmax"},
    "MTP": {"compress_ratios": (0, 0)},
    "MTP with CSA": {"compress_ratios": (128, 4)},
    "all": {"hc_sinkhorn_iters": 20},
}  # fmt: skip


def plain(weights, ops=None, fake_quant=False):
    """The model on NumPy's own arrays, which are those of the weights: what is written into them is seen."""
    return Model(weights, ops or Ops(), fake_quant, np.float64)


def loss_of(model, ids, mask=None):
    """The sum of the losses, computed document by document."""
    mask = np.ones(ids.shape, bool) if mask is None else mask
    total, count = 0.0, 0
    for row, real in zip(ids, mask, strict=True):
        document = row[real][None]
        states = model.states(document)
        logits = [model.head(states)]
        if model.mtp and document.shape[1] > 1:
            logits.append(model.mtp_logits(states[:, :-1], document[:, 1:]))
        for ahead, (weight, one) in enumerate(zip((1, 0.3), logits, strict=False), start=1):
            probabilities = np.exp(one[0]) / np.exp(one[0]).sum(axis=-1, keepdims=True)
            wanted = document[0, ahead:]
            total -= weight * np.log(probabilities[np.arange(len(wanted)), wanted]).sum()
        count += document.shape[1] - 1
    return total / count


def hold(weights, found, loss, seed=0):
    """Along a direction in the space of each parameter, the loss changes as its gradient says; of experts, two do."""
    generator = np.random.default_rng(seed)
    for name, gradient in found.items():
        if re.search(r"\.experts\.[2-9]", name):
            continue
        array = weights.parameters[name]
        direction = generator.standard_normal(array.shape)
        direction /= np.linalg.norm(direction)
        direction += gradient / (np.linalg.norm(gradient) or 1)
        before, changed = array.copy(), []
        for sign in (STEP, -STEP):
            array[...] = before + sign * direction
            changed.append(loss())
        array[...] = before
        expected, slope = (changed[0] - changed[1]) / (2 * STEP), float((gradient * direction).sum())
        assert abs(slope - expected) <= 1e-5 * abs(expected) + 1e-8, f"{name}: {slope} instead of {expected}"


@pytest.mark.parametrize("kind", MODELS)
def test_central_differences(kind):
    weights = trainable(seed=3, **MODELS[kind])
    ids = tiny.tokens(1, 1, LENGTH)
    losses = BOTH if weights.has_mtp else {"next_token": 1.0}
    loss, found = gradients(TrainableModel(weights, TapeOps()), ids, losses=losses)
    assert found.keys() == weights.parameters.keys()
    model = plain(weights)
    np.testing.assert_allclose(loss, loss_of(model, ids), rtol=1e-12)
    hold(weights, found, lambda: loss_of(model, ids))
    silent = {name for name, gradient in found.items() if not gradient.any()}
    assert all(".indexer." in name or ".experts." in name for name in silent), silent


@pytest.mark.parametrize("left", [False, True])
def test_documents_of_different_lengths(left):
    """Padding predicts nothing and nobody, and each document is as if it were alone."""
    weights = trainable(seed=4)
    ids, mask = tiny.tokens(2, 3, LENGTH), np.ones((3, LENGTH), bool)
    mask[0, slice(0, 3) if left else slice(132, None)] = False
    mask[1, slice(0, 80) if left else slice(55, None)] = False
    mask[2, slice(0, -1) if left else slice(1, None)] = False  # one token: nothing to predict
    loss, found = gradients(TrainableModel(weights), ids, mask, BOTH)
    np.testing.assert_allclose(loss, loss_of(plain(weights), ids, mask), rtol=1e-12)
    counts = mask.sum(axis=1) - 1
    for name in found:
        found[name] *= counts.sum()
    for row in (0, 1):
        _, alone = gradients(TrainableModel(weights), ids[row, mask[row]], losses=BOTH)
        for name in found:
            found[name] -= counts[row] * alone[name]
    assert max(np.abs(left_over).max() for left_over in found.values()) < 1e-9


class Frozen(Ops):
    """Straight-through rounding as it pretends to be: a quantiser moves its input by as much as it did the first time.

    What the indexer chooses stays as it was, too, since rounded scores are often equal.
    """

    def __init__(self):
        self.known, self.number = [], None

    def again(self):
        """From here on, as in the first run."""
        self.number = -1

    def _the_first_time(self, compute):
        if self.number is None:
            self.known.append(compute())
            return self.known[-1]
        self.number += 1
        return self.known[self.number]

    def fake_quant_fp8(self, x, block):
        return x + self._the_first_time(lambda: Ops.fake_quant_fp8(x, block) - x)

    def fake_quant_fp4(self, x):
        return x + self._the_first_time(lambda: Ops.fake_quant_fp4(x) - x)

    def index_top_k(self, *arguments):
        return self._the_first_time(lambda: Ops.index_top_k(*arguments))


def test_rounded_activations_have_straight_through_gradients():
    weights, ids = trainable(seed=3, compress_ratios=(0, 4, 128, 4)), tiny.tokens(1, 1, LENGTH)
    loss, found = gradients(TrainableModel(weights, TapeOps(), fake_quant=True), ids, losses=BOTH)
    model = plain(weights, ops := Frozen(), fake_quant=True)

    def loss_again():
        ops.again()
        return loss_of(model, ids)

    np.testing.assert_allclose(loss, loss_of(model, ids), rtol=1e-12)
    np.testing.assert_allclose(loss, loss_again(), rtol=1e-12)
    hold(weights, {name: gradient for name, gradient in found.items() if ".attn" in name}, loss_again)


def test_the_loss_is_in_nats_per_token():
    """Logits of zero are the same for all tokens: log of their number."""
    weights = trainable()
    weights.parameters["head.weight"] = np.zeros_like(weights.parameters["head.weight"])
    loss, _ = gradients(TrainableModel(weights), tiny.tokens(1, 2, 9))
    np.testing.assert_allclose(loss, np.log(weights.config.vocab_size))


def test_any_model_may_be_asked():
    source = tiny.checkpoint(1)
    ids = tiny.tokens(1, 1, 9)
    for dtype in (np.float32, np.float64):
        _, expected = gradients(TrainableModel(Trainable.of(source, dtype)), ids)
        _, found = gradients(tiny.model(Ops(), source, dtype=dtype), ids)
        assert found.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name], strict=True)
            assert found[name].dtype == dtype


def test_packed_weights_are_taken_as_floats_and_activations_rounded_where_the_model_rounds():
    source = tiny.quantised(tiny.checkpoint(1, **tiny.WIDE))
    ids = tiny.tokens(1, 1, 9)
    expected, _ = gradients(TrainableModel(Trainable.of(source), fake_quant=True), ids)
    loss, found = gradients(tiny.model(Ops(), source, fake_quant=True, dtype=np.float32), ids)
    assert loss == expected
    assert loss != gradients(tiny.model(Ops(), source, dtype=np.float32), ids)[0]
    assert found["layers.0.ffn.shared_experts.w1.weight"].any()


def test_gradients_are_of_all_that_learns():
    weights = trainable()
    _, found = gradients(TrainableModel(weights), tiny.tokens(1, 2, 9))
    table = parameters(weights.config)
    assert list(found) == [name for name in table if not name.endswith(("gate.bias", "gate.tid2eid"))]
    for name, gradient in found.items():
        assert gradient.shape == table[name].shape
        assert np.isfinite(gradient).all()
        assert (
            gradient.any()
            or name.startswith("mtp.")
            or ".indexer." in name
            or ".experts." in name
            or "compressor" in name
        )


def test_wrong_arguments():
    model = TrainableModel(trainable(num_nextn_predict_layers=0, compress_ratios=(0, 4)))
    ids = tiny.tokens(1, 1, 9)
    with pytest.raises(SettingError, match=r"losses: expected some of next_token, mtp.*, found mpt"):
        gradients(model, ids, losses={"mpt": 1.0})
    with pytest.raises(SettingError, match="found none"):
        gradients(model, ids, losses={})
    with pytest.raises(CheckpointError, match="expected an MTP layer"):
        gradients(model, ids, losses={"mtp": 1.0})
    with pytest.raises(PromptError, match="expected a sequence of at least two tokens"):
        gradients(model, ids[:, :1])
    with pytest.raises(PromptError, match="token ids: expected 0 … 39"):
        gradients(model, ids + 40)
