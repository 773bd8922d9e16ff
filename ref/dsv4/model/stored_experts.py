"""The routed experts of a layer whose weights are held in a bounded memory."""

import numpy as np

from dsv4.model.on_demand import OnDemand
from dsv4.model.weight_groups import Group
from dsv4.model.weight_store import WeightStore
from dsv4.model.weights import MATRICES, Mixture, Weights, read_expert
from dsv4.ops import Expert, Ops, Routing
from dsv4.ops.types import Array, Ints


class StoredExperts(OnDemand[Expert]):
    """As `dsv4.model.weights.Experts`, which keeps all of them; here they come and go."""

    def __init__(self, store: WeightStore, ops: Ops, prefix: str, count: int) -> None:
        """prefix: what their names begin with, such as `layers.3.ffn.experts.`; count: how many there are."""
        self._store, self._ops, self._prefix, self._count = store, ops, prefix, count

    def __len__(self) -> int:
        return self._count

    def item(self, number: int) -> Expert:
        """One expert, its weights read from the file if they are not in memory."""
        with self._store.use([self.group(number)]) as [expert]:
            return expert

    def group(self, number: int) -> Group[Expert]:
        """The weights of one expert."""
        return expert_group(f"{self._prefix}{range(self._count)[number]}.")

    def ahead(self, numbers: Ints) -> None:
        """These experts will be asked for: numbers of any shape."""
        self._store.ahead(self._groups(np.unique(self._ops.to_numpy(numbers)).tolist()))

    def mixture(self, mix: Mixture, tokens: Array, routing: Routing) -> Array:
        """What `mix` makes of tokens [T, d] and their experts: [T, d]. It is given only experts that are in memory.

        Where not all of them fit, they come in turns, each with all of its tokens. Every visit of a token to an expert
        is then computed by itself, and a token's visits are added in their order, as all backends do.
        """
        chosen = self._ops.to_numpy(routing.indices)
        turns = self.turns(np.unique(chosen).tolist())
        if len(turns) == 1:
            with self._store.use(self._groups(turns[0])) as experts:
                return mix(tokens, Routing(routing.weights, self._places(chosen, turns[0])), experts)
        outputs = self._ops.zeros((*chosen.shape, tokens.shape[-1]), tokens.dtype)  # [T, k, d]
        for numbers, following in zip(turns, [*turns[1:], []], strict=True):
            token, slot = np.nonzero(np.isin(chosen, numbers))
            with self._store.use(self._groups(numbers)) as experts:
                self._store.ahead(self._groups(following))
                visits = Routing(routing.weights[token, slot][:, None], self._places(chosen[token, slot], numbers))
                outputs = self._ops.write(outputs, (token, slot), mix(tokens[token], visits, experts))
        total: Array = outputs.sum(axis=1)
        return total

    def turns(self, numbers: list[int]) -> list[list[int]]:
        """These experts in lists that fit in memory: one where all fit, else such that the next can be read meanwhile.

        Those that are in memory already come first.
        """
        groups = self._groups(numbers)
        fit = self._store.room_for(groups) // self._store.size(groups[0])
        if len(numbers) <= fit:
            return [numbers]
        order = sorted(numbers, key=lambda number: not self._store.holds(self.group(number)))
        at_once = max(1, fit // 2)
        return [order[start : start + at_once] for start in range(0, len(order), at_once)]

    def _groups(self, numbers: list[int]) -> list[Group[Expert]]:
        return [self.group(number) for number in numbers]

    def _places(self, chosen: Ints, numbers: list[int]) -> Ints:
        """Where each chosen expert stands in a list that has all of them, for every token [.., k], placed."""
        order = np.argsort(numbers)
        places: Ints = order[np.searchsorted(numbers, chosen, sorter=order)]
        return self._ops.asarray(places if places.ndim > 1 else places[:, None])


def expert_group(prefix: str) -> Group[Expert]:
    """The weights of an expert whose names begin like this, such as `layers.3.ffn.experts.17.`."""

    def make(weights: Weights) -> Expert:
        return read_expert(weights.under(prefix))

    return Group(prefix, tuple(f"{prefix}{matrix}.weight" for matrix in MATRICES), make)
