"""What every part of a V4.1 model is made from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from dsv4.config41 import Config41
from dsv4.model.stored_experts import StoredExperts
from dsv4.model.weight_store import WeightStore
from dsv4.model.weights import Experts, StoredTensors, Weights
from dsv4.model41.rounding import Rounding41
from dsv4.ops import Ops
from dsv4.ops.engram import table_rows
from dsv4.ops.types import Array, Ints


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
    token_classes: Ints | None = None
    """[vocab] the class of each token, which an Engram needs."""
    store: WeightStore | None = None
    """Where weights are held when memory is bounded; None where all of them stay."""

    @property
    def name(self) -> str:
        """What the names of the part's weights begin with, such as `layers.2.attn.`."""
        return self.weights.prefix

    def under(self, prefix: str) -> "Part41":
        """A part of this part."""
        return replace(self, weights=self.weights.under(prefix))

    def experts(self, count: int) -> Experts | StoredExperts:
        """The routed experts, whose names begin with that of the part."""
        if self.store is None:
            return Experts(self.weights, count)
        return StoredExperts(self.store, self.ops, self.name, count)

    def table(self, name: str) -> Callable[[Ints], Array]:
        """Gives rows of a weight, by their numbers [...] -> [..., width] float32; the others stay in the file."""
        if self.store is None:
            return partial(table_rows, self.source.weight(self.name + name))
        return partial(self.store.table_rows, self.name + name)

    def __getitem__(self, name: str) -> Any:
        """A weight of the part, where the backend computes."""
        return self.weights[name]
