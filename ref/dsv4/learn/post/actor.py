"""The model that answers: the weights of now on any backend, as they are or as they will be released."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dsv4.checkpoint.convert import released
from dsv4.config import Config
from dsv4.learn.trainable import Trainable
from dsv4.model.model import Model
from dsv4.ops import Ops
from dsv4.ops.quantise import Weight
from dsv4.parameters import parameters


def actor(weights: Trainable, config: Config, ops: Ops, quantise: bool) -> Model:
    """A model that draws answers with these weights, which must not change while it does.

    config: as it is to be released; quantise: whether to compute with packed FP4 experts, FP8 maps and bf16, and
    rounded activations, as the released model will. Source: report §5.2.1: rollouts with the weights of deployment.
    """
    return Model(Released(weights, config) if quantise else weights, ops, fake_quant=quantise)


@dataclass(frozen=True)
class Released:
    """Weights in memory as their released files would hold them: a `Source`."""

    weights: Trainable
    released_config: Config

    @property
    def config(self) -> Config:
        """That of the weights, quantised."""
        return replace(self.weights.config, quantised=True, torch_dtype="bfloat16")

    @property
    def directory(self) -> Path:
        """As in `Source`."""
        return self.weights.directory

    @property
    def nbytes(self) -> int:
        """As in `Source`: an upper bound, that of the masters."""
        return self.weights.nbytes

    @property
    def has_mtp(self) -> bool:
        """As in `Source`."""
        return self.weights.has_mtp

    def weight(self, name: str) -> Weight:
        """The weight of this name, packed. Raises ValueError where its format cannot hold it."""
        found: Any = self.weights.weight(name)
        return released(found, parameters(self.released_config)[name])

    def check_values(self, name: str) -> None:
        """As in `Source`."""
        self.weights.check_values(name)
