"""The model that answers is the one that would be released: the same bits as of a converted checkpoint."""

import numpy as np

import tiny
from dsv4.checkpoint import Checkpoint
from dsv4.checkpoint.convert import convert
from dsv4.learn import new_model
from dsv4.learn.gradients import Pass
from dsv4.learn.post.actor import actor
from dsv4.learn.post.trainer import PostTrainer
from dsv4.model.model import Model
from dsv4.ops import Ops
from learn.post.stages import FINE, MODEL

IDS = tiny.tokens(4, 2, 30, vocab=768)


def test_with_the_weights_of_release(tmp_path):
    weights = new_model(MODEL, 0, hc_scale=0.5).weights
    weights.save(tmp_path / "float")
    convert(tmp_path / "float", tmp_path / "released")
    expected = Model(Checkpoint.open(tmp_path / "released"), Ops(), True)(IDS)
    found = actor(weights, weights.config, Ops(), quantise=True)(IDS)
    np.testing.assert_array_equal(found, expected)
    assert np.abs(actor(weights, weights.config, Ops(), quantise=False)(IDS) - expected).max() > 1e-4


def test_training_computes_what_the_actor_computes():
    weights = new_model(MODEL, 0, hc_scale=0.5).weights
    trainer = PostTrainer(FINE, weights.config, weights, None)
    for quantise in (False, True):
        [model, *_] = trainer._models_of(weights.config, quantise)
        expected = actor(weights, weights.config, Ops(), quantise)(IDS)
        np.testing.assert_allclose(Pass(model, IDS).logits.data, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
