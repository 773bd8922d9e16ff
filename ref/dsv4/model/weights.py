"""The weights as the model's parts ask for them: by the names of the released files, checked when first used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from dsv4.config import Config
from dsv4.model.on_demand import OnDemand
from dsv4.ops import Expert, Ops, Routing
from dsv4.ops.types import Array, Ints

MATRICES = ("w1", "w2", "w3")
"""Of an expert, by their names in the files."""


Mixture = Callable[[Array, Routing, Sequence[Expert]], Array]
"""Tokens [T, d], the experts that they visit, by their places in a list, and that list -> [T, d]."""


class StoredTensors(Protocol):
    """Weights by name, whatever model they belong to."""

    @property
    def config(self) -> Any:
        """The configuration that the weights belong to, of V4 or of V4.1."""

    @property
    def directory(self) -> Path:
        """The name that error messages show. It need not exist."""

    @property
    def nbytes(self) -> int:
        """The size of all weights in bytes."""

    @property
    def has_mtp(self) -> bool:
        """Whether there are weights of draft layers, `mtp.*`: an MTP layer, or the stages of a DSpark drafter."""

    def weight(self, name: str) -> Any:
        """The weight of this name: a NumPy array as stored, or an Fp8Weight or Fp4Weight, still packed."""

    def check_values(self, name: str) -> None:
        """Raises CheckpointError if it is missing, has another dtype or shape, or holds a NaN or an infinity."""


class Source(StoredTensors, Protocol):
    """Where a model's weights come from. `dsv4.Checkpoint` is one; others need no files."""

    @property
    def config(self) -> Config:
        """The configuration that the weights belong to."""


class Weights(Protocol):
    """The weights of one part of the model, whose names begin with `prefix`."""

    @property
    def prefix(self) -> str:
        """What the names begin with: "layers.3.attn.", or nothing for the whole model."""

    def under(self, prefix: str) -> "Weights":
        """The weights of a part of it: weights.under("attn.")["wkv.weight"] is weights["attn.wkv.weight"]."""

    def __getitem__(self, name: str) -> Any:
        """A weight where the backend computes."""


@dataclass(frozen=True)
class SourceWeights:
    """The weights of a source, placed where a backend computes."""

    source: StoredTensors
    ops: Ops
    prefix: str = ""

    def under(self, prefix: str) -> "SourceWeights":
        """As in `Weights`."""
        return replace(self, prefix=self.prefix + prefix)

    def __getitem__(self, name: str) -> Any:
        """The weight where the backend computes: a dense array as stored, or an Fp8Weight or Fp4Weight, still packed.

        Raises CheckpointError if it is missing, has another dtype or shape, or holds a NaN or an infinity.
        """
        full_name = self.prefix + name
        self.source.check_values(full_name)
        return self.ops.place(self.source.weight(full_name))


class Experts(OnDemand[Expert]):
    """The routed experts of a layer, each read from the file when a token first needs it."""

    def __init__(self, weights: Weights, count: int) -> None:
        """weights: those under "experts."; count: how many experts there are."""
        self._weights = weights
        self._loaded: list[Expert | None] = [None] * count

    def __len__(self) -> int:
        return len(self._loaded)

    def item(self, number: int) -> Expert:
        """One expert, read from the file the first time."""
        expert = self._loaded[number]
        if expert is None:
            expert = self._loaded[number] = read_expert(self._weights.under(f"{number}."))
        return expert

    def ahead(self, numbers: Ints) -> None:
        """These experts will be asked for. Nothing is to do: pages of a mapped file come when they are touched."""

    def mixture(self, mix: Mixture, tokens: Array, routing: Routing) -> Array:
        """What `mix` makes of tokens [T, d] and their experts: [T, d]."""
        return mix(tokens, routing, self)


def read_expert(weights: Weights) -> Expert:
    """The three matrices of one expert."""
    return Expert(*(weights[f"{matrix}.weight"] for matrix in MATRICES))
