"""What every part of the model is made from."""

from dataclasses import dataclass, replace
from typing import Any

from dsv4.config import Config
from dsv4.model.rounding import Rounding
from dsv4.model.weights import Weights
from dsv4.ops import Ops


@dataclass(frozen=True)
class Part:
    """The model's settings, the backend, where activations are rounded, and the weights of one part of the model."""

    config: Config
    ops: Ops
    rounding: Rounding
    weights: Weights

    @property
    def name(self) -> str:
        """What the names of the part's weights begin with, such as `layers.2.attn.`."""
        return self.weights.prefix

    def under(self, prefix: str) -> "Part":
        """A part of this part."""
        return replace(self, weights=self.weights.under(prefix))

    def __getitem__(self, name: str) -> Any:
        """A weight of the part, where the backend computes."""
        return self.weights[name]
