"""Anticipatory routing: experts chosen by older weights, for a while after a spike of the loss (report §4.2.3).

At step t the weights θ_t compute everything but the choice of experts, which θ_{t−Δt} has made: the step's data were
fetched early, and their choice was computed and kept when these weights were the current ones. A loop of weights that
choose and choices that change weights is cut that way. It costs another forward pass, so it is on only after a spike.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dsv4.config import Config
from dsv4.learn.losses.balance import balanced_gates
from dsv4.model.model import Model
from dsv4.model.moe import MoE
from dsv4.ops import Ops, Routing
from dsv4.ops.types import Array, Ints


def routing_indices(config: Config, seen: Mapping[str, Any]) -> dict[str, Ints]:
    """The choice of experts [B·S, k] of each layer that chooses by score, by the name of its gate.

    seen: what a pass of the older weights over the same tokens reported to its observer.
    """
    return {gate: seen[f"{gate}indices"] for gate in balanced_gates(config, seen)}


@contextmanager
def routed_by(model: Model, indices: Mapping[str, Ints]) -> Iterator[None]:
    """While it lasts, the model's passes send tokens to these experts, and weigh them by its own scores.

    indices: as `routing_indices` gives them, for the tokens of the passes to come. Layers that are not named choose
    for themselves. Hash layers have no choice that could be an older one.
    """
    layers = {f"{layer.name}gate.": layer for layer in _expert_layers(model)}
    before = {gate: layers[gate].gate for gate in indices}
    try:
        for gate, chosen in indices.items():
            layers[gate].gate = GivenGate(model.config, model.ops, chosen)
        yield
    finally:
        for gate, own in before.items():
            layers[gate].gate = own


class GivenGate:
    """Routing by a choice that was made before: the experts are given, and the scores of now weigh them."""

    def __init__(self, config: Config, ops: Ops, indices: Ints) -> None:
        """indices [T, k] expert numbers."""
        self.config, self.ops, self.indices = config, ops, indices

    def __call__(self, logits: Array, ids: Ints) -> Routing:
        """As in `dsv4.model.moe.Gate`; the ids do not matter here."""
        config = self.config
        return self.ops.route_by_id(logits, self.indices, config.scoring_func, config.routed_scaling_factor)


@dataclass(frozen=True)
class SpikeRule:
    """When a loss is a spike, and what follows. Not in the report: its rule, Δt and the two lengths are not printed."""

    window: int
    """How many losses the mean and the standard deviation are of; before there are so many, none is a spike."""
    deviations: float
    """A loss above mean + deviations · standard deviation is a spike. Not in the report: MaxText's rule."""
    rollback: int
    """At a spike, training goes back at least this many steps, to the newest state that old."""
    period: int
    """For how many steps from there older weights choose the experts, at least: the period ends behind the spike."""
    delay: int
    """Δt: how many steps older they are."""


LOSSES = "spikes.losses"
"""The name, in a state, of the losses that others are measured by."""

Verdict = Literal["go on", "roll back", "stop"]


class SpikeWatch:
    """Watches the losses go by, and says when to roll back and when older weights choose.

    At a spike, training goes back by some `rollback` steps, to a snapshot of everything, this watch's state included;
    there `begin` starts the anticipatory period. A spike in that period is beyond repair: so no step is gone back from
    twice, and every run comes to an end.
    """

    def __init__(self, rule: SpikeRule) -> None:
        self.rule = rule
        self._losses: list[float] = []
        self._period = range(0)  # the steps whose experts older weights choose

    def verdict(self, step: int, loss: float) -> Verdict:
        """What to do after step `step`, whose loss this was.

        A loss that is not finite is a spike always. A spike does not join the losses that others are measured by.
        """
        if not self._is_spike(loss):
            self._losses = [*self._losses, loss][-self.rule.window :]
            return "go on"
        return "stop" if self.is_anticipatory(step) else "roll back"

    def forget(self) -> None:
        """Measure the losses to come by themselves alone: in another stage they are of another size."""
        self._losses = []

    def begin(self, step: int, spiked_at: int) -> None:
        """Start the anticipatory period with this step, the one that training went back to from a spike.

        It lasts for the rule's number of steps, and at least through the step at which the loss had leapt.
        """
        self._period = range(step, max(step + self.rule.period, spiked_at + 1))

    def is_anticipatory(self, step: int) -> bool:
        """Whether older weights choose the experts of a step."""
        return step in self._period

    def steps_to_route(self, step: int) -> range:
        """The steps whose experts are chosen by the weights before step `step`: their data are needed now.

        In the period that is step + Δt. What the first Δt steps would need lies before the rollback: their experts are
        chosen at the first one, by the oldest weights there are. Steps behind the period's end choose for themselves.
        Choices that wait for their step belong to the state of a run.
        """
        if not self.is_anticipatory(step):
            return range(0)
        end = self._period.stop
        first = step if step == self._period.start else step + self.rule.delay
        return range(min(first, end), min(step + self.rule.delay + 1, end))

    def state(self) -> dict[str, Array | Ints]:
        """What `load_state` takes to go on in the same way: arrays by name."""
        period = np.array([self._period.start, self._period.stop], np.int64)
        return {LOSSES: np.array(self._losses, np.float64), "spikes.period": period}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where the watch of `state` stood."""
        self._losses = [float(loss) for loss in state[LOSSES]]
        self._period = range(*(int(step) for step in state["spikes.period"]))

    def _is_spike(self, loss: float) -> bool:
        if not np.isfinite(loss):
            return True
        if len(self._losses) < self.rule.window:
            return False
        return loss > float(np.mean(self._losses) + self.rule.deviations * np.std(self._losses))


def _expert_layers(model: Model) -> list[MoE]:
    return [block.ffn for block in (*model.layers, *([model.mtp.block] if model.mtp else []))]
