"""What every part of the model is made from."""

from dataclasses import dataclass, replace
from typing import Any

from dsv4.config import Config
from dsv4.model.rounding import Rounding
from dsv4.model.stored_experts import StoredExperts
from dsv4.model.weight_store import WeightStore
from dsv4.model.weights import Experts, Weights
from dsv4.ops import Ops


@dataclass(frozen=True)
class Part:
    """The model's settings, the backend, where activations are rounded, and the weights of one part of the model."""

    config: Config
    ops: Ops
    rounding: Rounding
    weights: Weights
    store: WeightStore | None = None
    """Where weights are held when memory is bounded; None where all of them stay."""

    @property
    def name(self) -> str:
        """What the names of the part's weights begin with, such as `layers.2.attn.`."""
        return self.weights.prefix

    def under(self, prefix: str) -> "Part":
        """A part of this part."""
        return replace(self, weights=self.weights.under(prefix))

    def experts(self, count: int) -> Experts | StoredExperts:
        """The routed experts, whose names begin with that of the part."""
        if self.store is None:
            return Experts(self.weights, count)
        return StoredExperts(self.store, self.ops, self.name, count)

    def __getitem__(self, name: str) -> Any:
        """A weight of the part, where the backend computes."""
        return self.weights[name]
