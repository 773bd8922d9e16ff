"""The layers of a model whose weights are held in a bounded memory."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

from dsv4.config import Config
from dsv4.model.block import Block
from dsv4.model.on_demand import OnDemand
from dsv4.model.part import Part
from dsv4.model.stored_experts import expert_group
from dsv4.model.weight_groups import Group
from dsv4.model.weight_store import WeightStore
from dsv4.model.weights import Weights
from dsv4.parameters import parameters


class StoredLayers(OnDemand[Block]):
    """Blocks that are made when their weights have come: while one computes, those of the next are read."""

    def __init__(self, store: WeightStore, whole: Part) -> None:
        """whole: the model that they are layers of.

        Raises SettingError where the budget does not hold one layer with the experts of one token, and what is outside
        of the layers but the embedding, of which rows are read.
        """
        self._store, config = store, whole.config
        names = _names_by_layer(config)
        self._groups = [
            Group(f"layers.{n}.", names[n], partial(_block, whole=whole, number=n), place=n)
            for n in range(config.num_hidden_layers)
        ]
        self.experts = config.num_experts_per_tok * store.size(expert_group("layers.0.ffn.experts.0."))
        """Bytes that a layer's experts take for one token."""
        self.require_room(OUTSIDE, "the head")

    def require_room(self, names: Iterable[str], what: str) -> None:
        """Raises SettingError where the budget does not hold these weights, which will stay, beside one layer."""
        least = self._store.bytes_of(names) + max(map(self._store.size, self._groups)) + self.experts
        self._store.require_room(least, f"{what}, one layer and its experts for one token")

    def __len__(self) -> int:
        return len(self._groups)

    def item(self, number: int) -> Block:
        """One layer, its weights read from the file if they are not in memory."""
        with self._store.use([self._groups[number]]) as [block]:
            return block

    def __iter__(self) -> Iterator[Block]:
        """Each layer in turn, whose weights are in memory until the next one is asked for."""
        for number, group in enumerate(self._groups):
            self._store.ahead(self._groups[number : number + 2], leave=self.experts)
            with self._store.use([group]) as [block]:
                yield block


OUTSIDE = ("head.weight", "norm.weight", "hc_head_fn", "hc_head_base", "hc_head_scale")
"""What every token needs besides the layers."""


def draft_weights(config: Config) -> list[str]:
    """The weights of what drafts, but its routed experts."""
    return [name for name in parameters(config) if name.startswith("mtp.") and ".ffn.experts." not in name]


def _names_by_layer(config: Config) -> dict[int, tuple[str, ...]]:
    """The weights of each layer but its routed experts."""
    names = defaultdict(list)
    for name in parameters(config, include_mtp=False):
        if name.startswith("layers.") and ".ffn.experts." not in name:
            names[int(name.split(".")[1])].append(name)
    return {number: tuple(of_layer) for number, of_layer in names.items()}


def _block(weights: Weights, whole: Part, number: int) -> Block:
    config = whole.config
    part = replace(whole, weights=weights).under(f"layers.{number}.")
    return Block(part, config.compress_ratios[number], config.is_hash_layer(number))
