"""The layers of a model whose weights are held in a bounded memory."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from dsv4.model.on_demand import OnDemand
from dsv4.model.stored_experts import expert_group
from dsv4.model.weight_groups import Group
from dsv4.model.weight_store import WeightStore
from dsv4.model.weights import Weights

T = TypeVar("T")


class StoredLayers(OnDemand[T]):
    """Blocks that are made when their weights have come: while one computes, those of the next are read."""

    def __init__(
        self, store: WeightStore, names: Sequence[str], experts: int, make: Callable[[Weights, int], T]
    ) -> None:
        """names: of all weights of the model; experts: how many a token visits in a layer; make: takes the weights by
        their full names, and the number of a layer.

        Raises SettingError where the budget does not hold one layer with the experts of one token, and what is outside
        of the layers but the embedding, of which rows are read.
        """
        self._store, self._names = store, names
        self._groups = [
            Group(f"layers.{n}.", of_layer, _numbered(make, n), place=n)
            for n, of_layer in sorted(_names_by_layer(names).items())
        ]
        self.experts = experts * store.size(expert_group("layers.0.ffn.experts.0."))
        """Bytes that a layer's experts take for one token."""
        self._require_room(outside(names), "the head")

    def require_room_to_draft(self) -> None:
        """Raises SettingError where the budget does not hold what drafts, but its routed experts, beside one layer."""
        self._require_room(draft_weights(self._names), "the head, what drafts")

    def require_room_beside(self, nbytes: int, what: str) -> None:
        """Raises SettingError where the budget does not hold so many bytes of something else beside one layer."""
        self._require_room(outside(self._names), f"{what}, the head", nbytes)

    def __len__(self) -> int:
        return len(self._groups)

    def item(self, number: int) -> T:
        """One layer, its weights read from the file if they are not in memory."""
        with self._store.use([self._groups[number]]) as [block]:
            return block

    def __iter__(self) -> Iterator[T]:
        """Each layer in turn, whose weights are in memory until the next one is asked for."""
        for number, group in enumerate(self._groups):
            self._store.ahead(self._groups[number : number + 2], leave=self.experts)
            with self._store.use([group]) as [block]:
                yield block

    def _require_room(self, names: Iterable[str], what: str, nbytes: int = 0) -> None:
        """Raises SettingError where the budget does not hold these weights, which will stay, and so many bytes more,
        beside one layer."""
        least = nbytes + self._store.bytes_of(names) + max(map(self._store.size, self._groups)) + self.experts
        self._store.require_room(least, f"{what}, one layer and its experts for one token")


def _numbered(make: Callable[[Weights, int], T], number: int) -> Callable[[Weights], T]:
    return lambda weights: make(weights, number)


def outside(names: Iterable[str]) -> list[str]:
    """What every token needs besides the layers, of all weights of a model: the head, but not rows of the embedding."""
    return [name for name in names if not name.startswith(("layers.", "mtp.", "embed."))]


def draft_weights(names: Iterable[str]) -> list[str]:
    """The weights of what drafts, of all weights of a model; not its routed experts, and no bias for image tokens."""
    others = ".ffn.experts.", ".gate.bias_vl"
    return [name for name in names if name.startswith("mtp.") and not any(part in name for part in others)]


def _names_by_layer(names: Iterable[str]) -> dict[int, tuple[str, ...]]:
    """The weights of each layer but its routed experts, and the table of an Engram, of which rows are read."""
    by_layer = defaultdict(list)
    for name in names:
        if name.startswith("layers.") and ".ffn.experts." not in name and not name.endswith(".engram.embed.weight"):
            by_layer[int(name.split(".")[1])].append(name)
    return {number: tuple(of_layer) for number, of_layer in by_layer.items()}
