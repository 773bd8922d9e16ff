"""The weights of a checkpoint as the model's parts ask for them: by the names of the files, checked when first used."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

from dsv4.checkpoint import Checkpoint
from dsv4.ops import Expert, Ops


@dataclass(frozen=True)
class Weights:
    """The tensors of a checkpoint whose names begin with `prefix`."""

    checkpoint: Checkpoint
    ops: Ops
    prefix: str = ""

    def under(self, prefix: str) -> "Weights":
        """The tensors of one part: weights.under("attn.")["wkv.weight"] is weights["attn.wkv.weight"]."""
        return replace(self, prefix=self.prefix + prefix)

    def __getitem__(self, name: str) -> Any:
        """The weight where the backend computes: a dense array as stored, or an Fp8Weight or Fp4Weight, still packed.

        Raises CheckpointError if it is missing, has another dtype or shape, or holds a NaN or an infinity.
        """
        full_name = self.prefix + name
        self.checkpoint.check_values(full_name)
        return self.ops.place(self.checkpoint.weight(full_name))


class Experts(Sequence[Expert]):
    """The routed experts of a layer, each read from the file when a token first needs it."""

    def __init__(self, weights: Weights, count: int) -> None:
        """weights: those under "experts."; count: how many experts there are."""
        self._weights = weights
        self._loaded: list[Expert | None] = [None] * count

    def __len__(self) -> int:
        return len(self._loaded)

    @overload
    def __getitem__(self, number: int) -> Expert: ...
    @overload
    def __getitem__(self, number: slice) -> list[Expert]: ...
    def __getitem__(self, number: int | slice) -> Expert | list[Expert]:
        if isinstance(number, slice):
            return [self[one] for one in range(len(self))[number]]
        expert = self._loaded[number]
        if expert is None:
            expert = self._loaded[number] = read_expert(self._weights.under(f"{number}."))
        return expert


def read_expert(weights: Weights) -> Expert:
    """The three matrices of one expert."""
    return Expert(*(weights[f"{matrix}.weight"] for matrix in ("w1", "w2", "w3")))
