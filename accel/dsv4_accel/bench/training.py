"""The row about training: the loss of a batch and the gradient of every parameter."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from dsv4.checkpoint import Checkpoint
from dsv4.learn.blas import one_blas_thread
from dsv4.learn.gradients import gradients
from dsv4.learn.learner import SHARDS, in_threads
from dsv4.learn.tape import DerivedOps
from dsv4.learn.trainable import Trainable, TrainableModel
from dsv4.learn.vjp import VJPS
from dsv4.loading import bundled_model
from dsv4.ops.types import Ints
from dsv4_accel.bench.case import ARITHMETIC, Case, Contest, Goal
from dsv4_accel.bench.models import TRANSFORMERS, bundled_in_transformers
from dsv4_accel.bench.stage import NUMPY, OURS, Stage
from dsv4_accel.bench.timing import Contestant

BATCH, LENGTH = 8, 256


def training_cases() -> list[Case]:
    """A step's forward and backward pass, as `dsv4 train` makes them."""
    goals = Goal(2.5, TRANSFORMERS), Goal(1.6, TRANSFORMERS, of=NUMPY)
    what = f"bundled, gradients of {BATCH} × {LENGTH} tokens"
    return [Case("train.step", what, ARITHMETIC, _train_step, goals, on_cpu=True)]


def _train_step(stage: Stage) -> Contest:
    ids = stage.random.integers(0, 1000, (BATCH, LENGTH))
    contestants = {name: Contestant(_step(vjps, ids)) for name, vjps in _products(stage).items()}
    if theirs := bundled_in_transformers(stage):
        contestants[TRANSFORMERS] = Contestant(lambda: theirs.gradients(ids))
    return Contest(contestants, None)


def _products(stage: Stage) -> dict[str, Any]:
    """The vector-Jacobian products by the contestants' names: Numba has its own."""
    if stage.ops.name != "numba":
        return {NUMPY: VJPS}
    return {OURS: import_module("dsv4_accel.numba.vjp").VJPS, NUMPY: VJPS}


def _step(vjps: Any, ids: Ints) -> Callable[[], object]:
    """Each part of the batch in a thread, as the trainer does it."""
    weights = Trainable.of(Checkpoint.open(bundled_model()))
    models = [TrainableModel(weights, DerivedOps(vjps)) for _ in range(SHARDS)]
    parts = np.split(ids, SHARDS)

    def call() -> object:
        with one_blas_thread():
            return in_threads(lambda place: gradients(models[place], parts[place]), SHARDS)

    return call
