"""What every part of a V4.1 model is made from."""

from dataclasses import dataclass, replace
from typing import Any, Protocol

from dsv4.config41 import Config41
from dsv4.model.weights import Experts, StoredTensors, Weights
from dsv4.model41.rounding import Rounding41
from dsv4.ops import Ops


class Source41(StoredTensors, Protocol):
    """Where a model's weights come from. `dsv4.checkpoint.Checkpoint41` is one; others need no files."""

    @property
    def config(self) -> Config41:
        """The configuration that the weights belong to."""


@dataclass(frozen=True)
class Part41:
    """The model's settings, the backend, where activations are rounded, and the weights of one part of the model."""

    config: Config41
    ops: Ops
    rounding: Rounding41
    weights: Weights
    source: Source41

    @property
    def name(self) -> str:
        """What the names of the part's weights begin with, such as `layers.2.attn.`."""
        return self.weights.prefix

    def under(self, prefix: str) -> "Part41":
        """A part of this part."""
        return replace(self, weights=self.weights.under(prefix))

    def experts(self, count: int) -> Experts:
        """The routed experts, whose names begin with that of the part."""
        return Experts(self.weights, count)

    def table(self, name: str) -> Any:
        """A weight of which single rows are read: it stays in its file, and its values are not looked at."""
        return self.source.weight(self.name + name)

    def __getitem__(self, name: str) -> Any:
        """A weight of the part, where the backend computes."""
        return self.weights[name]
