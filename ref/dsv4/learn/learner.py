"""What learns in a run, whatever it learns from: weights, the models that compute with them, and their optimiser."""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from dsv4.config import Config
from dsv4.errors import CheckpointError, TrainingError, quoted, reason
from dsv4.learn.optimiser import Optimiser
from dsv4.learn.qat import StoredOps, stored_values
from dsv4.learn.tape import DerivedOps
from dsv4.learn.trainable import Trainable, TrainableModel
from dsv4.learn.vjp import VJPS
from dsv4.ops.types import Array, Ints

SHARDS = 2
"""Parts of a batch, each of which a thread computes."""

R = TypeVar("R")


class Learner:
    """Weights that are being trained, and everything that changes with them."""

    def __init__(self, config: Config, weights: Trainable) -> None:
        """config: of the model as it will be stored; weights: of this model, float32; they change."""
        self.config, self.weights = config, weights
        self.optimiser = Optimiser(config, weights.parameters)
        self.step = 0
        """The next one; the first is 0."""
        self._models: tuple[Any, list[TrainableModel]] = (None, [])

    @property
    def keep_from(self) -> int:
        """Training may go back from here to the state after so many steps, so that it must be kept."""
        return self.step

    def state(self) -> dict[str, Array | Ints]:
        """Everything that `load_state` needs, as arrays by name."""
        weights = {f"weights.{name}": array for name, array in self.weights.items()}
        optimiser = {f"optimiser.{name}": array for name, array in self.optimiser.state().items()}
        return {"step": np.array(self.step, np.int64), **weights, **optimiser}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where the learner of `state` stood, with the same bits. Raises TrainingError for another model's."""
        check_state(state, self.state())
        self._load(state)

    def _load(self, state: Mapping[str, Any]) -> None:
        """A state that was checked; it may hold more."""
        self.step = int(state["step"])
        for name in self.weights.parameters:
            self.weights.parameters[name] = state[f"weights.{name}"]
        for name in self.weights.others:
            self.weights.others[name] = state[f"weights.{name}"]
        self.optimiser.load_state(under("optimiser.", state))

    def _models_of(self, config: Config, quantise: bool) -> list[TrainableModel]:
        """A model for each part, over the same weights: as they are, or as they will be stored."""
        if self._models[0] != (config, quantise):
            ops = StoredOps() if quantise else DerivedOps(VJPS)
            views = [Trainable(config, self.weights.parameters, self.weights.others) for _ in range(SHARDS)]
            models = [TrainableModel(view, ops, fake_quant=quantise) for view in views]
            self._models = (config, quantise), models
        stored = self.weights.parameters
        if quantise:
            try:
                stored = stored_values(self.config, self.weights.parameters)
            except ValueError as error:
                raise CheckpointError(f"weights that are to be stored: {reason(error)}") from error
        for model in self._models[1]:
            model.weights.parameters = stored
        return self._models[1]


def in_threads(compute: Callable[[int], R], count: int) -> list[R]:
    """compute(0) … compute(count − 1), beside each other; their results in order."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(compute, range(count)))


def under(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Those whose names begin with the prefix, by the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def check_state(state: Mapping[str, Any], own: Mapping[str, Any], of_any_size: Collection[str] = ()) -> None:
    """Raise TrainingError unless a state has the arrays of the learner's own one; some may have another length."""
    for name in sorted(own.keys() ^ state.keys()):
        wanted = "an array" if name in own else "none of this name"
        raise TrainingError(f"{quoted(name)}: expected {wanted}, found {'none' if name in own else 'one'}")
    for name, array in own.items():
        shape = (state[name].size,) if name in of_any_size else array.shape
        if (state[name].shape, state[name].dtype) != (shape, array.dtype):
            words = f"expected {array.dtype} {shape}, found {state[name].dtype} {state[name].shape}"
            raise TrainingError(f"{quoted(name)}: {words}")
