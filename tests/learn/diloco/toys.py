"""A trainer that costs nothing: a few tensors that are drawn to a target, each learner with noise of its own."""

import threading
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from dsv4.learn.diloco.fragments import packed
from dsv4.learn.diloco.learner import Learner
from dsv4.learn.diloco.settings import Settings
from dsv4.learn.diloco.syncer import Syncer
from dsv4.learn.diloco.world import World

BIAS = "layers.0.ffn.gate.bias"
SHAPES = {"embed.weight": (6, 4), "a": (8, 4), "b": (5, 3), "c": (7,), "d": (3, 3), "norm.weight": (4,), BIAS: (3,)}
TOKENS = 10
"""Of a step."""


class Step(NamedTuple):
    step: int
    loss: float
    tokens: int
    verdict: str = "go on"


def first_weights(shapes=SHAPES):
    g = np.random.default_rng(0)
    return {name: g.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def target(name, shapes=SHAPES):
    return np.random.default_rng(len(name)).standard_normal(shapes[name]).astype(np.float32)


class Weights:
    def __init__(self, shapes):
        arrays = first_weights(shapes)
        self.others = {BIAS: arrays.pop(BIAS)} if BIAS in arrays else {}
        self.parameters = arrays

    def weight(self, name):
        return self.parameters[name] if name in self.parameters else self.others[name]


class Toy:
    """As `Trainer`, as far as a learner asks."""

    def __init__(self, number, recipe):
        self.number, self.recipe, self.weights, self.step = number, recipe, Weights(recipe.shapes), 0

    def advance(self):
        if self.recipe.seconds:
            threading.Event().wait(self.recipe.seconds)
        loss = 0.0
        for place, (name, shape) in enumerate(self.recipe.shapes.items()):
            held = self.weights.parameters if name in self.weights.parameters else self.weights.others
            noise = np.random.default_rng((self.number, self.step, place)).standard_normal(shape)
            distance = held[name] - target(name, self.recipe.shapes)
            loss += float(np.sum(np.square(distance)))
            held[name] = held[name] - np.float32(0.05) * (distance + np.float32(0.1) * noise.astype(np.float32))
        self.step += 1
        return Step(self.step - 1, loss, TOKENS)

    def state(self):
        return {"step": np.array(self.step), **{name: self.weights.weight(name) for name in self.recipe.shapes}}

    def load_state(self, state):
        self.step = int(state["step"])
        for name in self.recipe.shapes:
            (self.weights.others if name == BIAS else self.weights.parameters)[name] = state[name]


class Start:
    """Learners and syncer as at the start of a run."""

    def __init__(self, steps=24, seconds=0.0, shapes=SHAPES, **settings):
        """seconds: that a step takes at least; shapes: of the tensors."""
        self.recipe = SimpleNamespace(steps=steps, seconds=seconds, shapes=shapes)
        self.settings = Settings(**{"learners": 3, "fragments": 3, "inner_steps": 6} | settings)
        sizes = {name: array.size for name, array in first_weights(shapes).items()}
        self.fragments = packed(sizes, self.settings.fragments)

    def learner(self, number):
        return Learner(number, Toy(number, self.recipe), self.fragments, self.settings.bits)

    def syncer(self):
        return Syncer(first_weights(self.recipe.shapes), self.fragments, self.settings, range(self.recipe.steps))

    def world(self, chaos, seed=0, log=lambda line: None):
        return World(self.learner, self.syncer, chaos, seed, log)


def distance(weights):
    """From the target, of all tensors but the bias."""
    return sum(float(np.sum(np.square(weights[name] - target(name)))) for name in SHAPES if name != BIAS)


def same_weights(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)
