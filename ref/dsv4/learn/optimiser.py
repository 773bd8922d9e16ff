"""Which parameter is whose: Muon for matrices, AdamW for the rest, and the state of both (report §2.4)."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dsv4.config import Config
from dsv4.errors import CheckpointError, SettingError, quoted
from dsv4.learn.adamw import adamw_step
from dsv4.learn.muon import MuonStep, muon_step
from dsv4.learn.who_learns import has_gradient
from dsv4.ops.types import Array
from dsv4.parameters import Parameter, parameters

MOMENTUM, FIRST, SECOND, STEPS = "muon.momentum.", "adamw.first.", "adamw.second.", "adamw.steps."
"""What the names of the state begin with; behind it stands the parameter's name."""

THREADS = 2
"""Stacks that are computed at a time."""

STACK = 2**18
"""Numbers of the matrices that go through the iteration together: many small ones are worth a call, and a stack that
fits in a processor's cache is a third faster than one that does not."""

Place = tuple[str, int, int]
"""A matrix: the name of the parameter that holds it, its first row there, and the row behind its last."""


def logical_matrices(parameter: Parameter, config: Config) -> tuple[slice, ...]:
    """The rows of each logically independent matrix that a parameter holds for Muon; none where AdamW has it.

    AdamW has the embedding, the head, everything with one axis, and the position biases `ape`. A routed expert's three
    matrices have names of their own already. `wo_a` holds one matrix for each output group. `hc_attn_fn` and
    `hc_ffn_fn` hold three: the projections to pre, post and comb.
    Source: report §2.4: embedding, head, norms, static biases and gating factors of mHC are AdamW's, Muon has the rest.
    Not in the report: attn_sink, ape and all of one axis with AdamW; the groups of wo_a and the three of hc_*_fn apart,
    which is ours, since "logically independent" is all that it says.
    """
    name, rows = parameter.name, parameter.shape[0]
    if len(parameter.shape) == 1 or name in ("embed.weight", "head.weight") or name.endswith(".ape"):
        return ()
    if name.endswith("wo_a.weight"):
        rank = rows // config.o_groups
        return tuple(slice(start, start + rank) for start in range(0, rows, rank))
    if name.endswith(("hc_attn_fn", "hc_ffn_fn")):
        n = config.hc_mult
        return slice(0, n), slice(n, 2 * n), slice(2 * n, rows)
    return (slice(0, rows),)


class Optimiser:
    """Muon and AdamW over the parameters of one model, each with its own part of them.

    A step puts new arrays in the places of the old ones, in the very dictionary that the caller handed over, and writes
    to no array, its own state included: copies of the dictionaries are a snapshot to which one can go back.
    """

    def __init__(self, config: Config, weights: dict[str, Array]) -> None:
        """config: the model's; weights: float arrays by official name, all that have a gradient or some of them.

        Raises SettingError for a name that is no parameter of the configuration or has no gradient, and for another
        shape than the configuration's.
        """
        self.parameters = weights
        table = parameters(config)
        for name, weight in weights.items():
            _check(table, name, weight)
        self.matrices = {name: logical_matrices(table[name], config) for name in weights}
        self._state: dict[str, Array] = {}
        for name, weight in weights.items():
            for kind in (MOMENTUM,) if self.matrices[name] else (FIRST, SECOND):
                self._state[kind + name] = np.zeros_like(weight)
        self._steps = {name: 0 for name, rows in self.matrices.items() if not rows}

    def step(self, gradients: Mapping[str, Array], learning_rate: float) -> None:
        """One step of the parameters that `gradients` names; others stay as they are, without decay.

        gradients: arrays by name, of the parameters' shapes and dtypes; learning_rate: η of both optimisers.
        Raises SettingError for a gradient of no parameter, or of another shape or dtype.
        """
        for name, gradient in gradients.items():
            weight = self.parameters.get(name)
            if weight is None:
                raise SettingError(
                    f"gradient of {quoted(name)}: expected one of the optimiser's parameters, found another"
                )
            if (gradient.shape, gradient.dtype) != (weight.shape, weight.dtype):
                expected, found = f"{weight.dtype} {weight.shape}", f"{gradient.dtype} {gradient.shape}"
                raise SettingError(f"gradient of {quoted(name)}: expected {expected}, found {found}")
        rate = float(learning_rate)  # a float64 of NumPy's would turn float32 weights into float64
        self._muon({name: gradients[name] for name in gradients if self.matrices[name]}, rate)
        self._adamw({name: gradients[name] for name in gradients if not self.matrices[name]}, rate)

    def state(self) -> dict[str, Array]:
        """What `load_state` takes to go on with the same bits: momentum, both means, and AdamW's count of steps.

        Arrays by name, to be kept as they are beside the parameters; nobody may write to them.
        """
        return self._state | {STEPS + name: np.array(count, np.int64) for name, count in self._steps.items()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Go on where the optimiser of `state` stood. Raises CheckpointError for the state of other parameters."""
        expected = self.state()
        for name in sorted(expected.keys() ^ state.keys()):
            found = "none of this name" if name in expected else "it"
            wanted = "an array" if name in expected else "nothing of this name"
            raise CheckpointError(f"optimiser's state {quoted(name)}: expected {wanted}, found {found}")
        for name, array in expected.items():
            if (state[name].shape, state[name].dtype) != (array.shape, array.dtype):
                found = f"found {state[name].dtype} {state[name].shape}"
                raise CheckpointError(
                    f"optimiser's state {quoted(name)}: expected {array.dtype} {array.shape}, {found}"
                )
        self._steps = {name: int(state[STEPS + name]) for name in self._steps}
        self._state = {name: state[name] for name in self._state}

    def _muon(self, gradients: Mapping[str, Array], learning_rate: float) -> None:
        """Matrices of one shape go through the iteration as one stack, each by itself."""

        def stepped(places: list[Place]) -> dict[Place, MuonStep]:
            weight, gradient, momentum = (
                _row_by_row(np.stack([arrays[prefix + name][start:end] for name, start, end in places]))
                for prefix, arrays in (("", self.parameters), ("", gradients), (MOMENTUM, self._state))
            )
            with np.errstate(all="ignore"):  # a thread's own; what is not finite shows in the next loss
                stacks = muon_step(weight, gradient, momentum, learning_rate)
            return {place: MuonStep(*matrices) for place, *matrices in zip(places, *stacks, strict=True)}

        after: dict[Place, MuonStep] = {}
        with ThreadPoolExecutor(THREADS) as pool:  # each stack has the same bits whoever computes it
            for steps in pool.map(stepped, _of_one_shape(gradients, self.matrices)):
                after |= steps
        for name in gradients:
            parts = [after[place] for place in _places(name, self.matrices[name])]
            self.parameters[name] = _row_by_row(np.concatenate([part.weight for part in parts]))
            self._state[MOMENTUM + name] = np.concatenate([part.momentum for part in parts])

    def _adamw(self, gradients: Mapping[str, Array], learning_rate: float) -> None:
        for name, gradient in gradients.items():
            self._steps[name] += 1
            first, second = self._state[FIRST + name], self._state[SECOND + name]
            after = adamw_step(self.parameters[name], gradient, first, second, self._steps[name], learning_rate)
            self.parameters[name] = _row_by_row(after.weight)
            self._state[FIRST + name], self._state[SECOND + name] = after.first, after.second


def _row_by_row(array: Array) -> Array:
    """The array as a file holds it: in another layout, its products may have other bits than after a resume."""
    return np.ascontiguousarray(array)


def _places(name: str, matrices: Iterable[slice]) -> list[Place]:
    return [(name, rows.start, rows.stop) for rows in matrices]


def _of_one_shape(gradients: Mapping[str, Array], matrices: Mapping[str, Iterable[slice]]) -> Iterator[list[Place]]:
    """The places of all matrices, those of one shape together, as many as make a stack."""
    groups: dict[tuple[int, int], list[Place]] = defaultdict(list)
    for name, gradient in gradients.items():
        for place in _places(name, matrices[name]):
            groups[place[2] - place[1], gradient.shape[1]].append(place)
    for (rows, columns), places in groups.items():
        size = max(1, STACK // (rows * columns))
        yield from (places[start : start + size] for start in range(0, len(places), size))


def _check(table: Mapping[str, Parameter], name: str, weight: Array) -> None:
    if name not in table or not has_gradient(table[name]):
        raise SettingError(f"optimiser: expected parameters that have a gradient, found {quoted(name)}")
    if weight.shape != table[name].shape:
        raise SettingError(f"optimiser: {name}: expected shape {table[name].shape}, found {weight.shape}")
