"""One step of training after another: losses, gradients, optimiser, balance, and the repair of spikes (report §4.2).

A step is a function of the state before it, the recipe and the texts, to the last bit: the batch is cut into SHARDS
parts whatever the number of cores, each part is computed by itself, and the parts are added in order. This holds on one
machine with one number of threads for each product (`dsv4.learn.blas`): another number adds in another order.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol

import numpy as np

from dsv4.errors import TrainingError, quoted
from dsv4.learn.anticipatory import LOSSES, SpikeWatch, Verdict, routed_by, routing_indices
from dsv4.learn.clip import clip_gradients
from dsv4.learn.gradients import Pass, step
from dsv4.learn.learner import SHARDS, Learner, check_state, in_threads, under
from dsv4.learn.losses.balance import balanced_bias, expert_loads
from dsv4.learn.losses.indexer import captures
from dsv4.learn.recipe import Kind, Recipe
from dsv4.learn.schedule import Moment, moment, stage_config
from dsv4.learn.texts.batches import Batch
from dsv4.learn.trainable import Trainable, TrainableModel
from dsv4.learn.who_learns import is_indexer
from dsv4.ops.types import Array, Ints

CHOICES = "choices."
"""What the names of choices in a state begin with."""


class Feed(Protocol):
    """Where the batches come from."""

    def batch(self, step: int) -> Batch:
        """The batch of a step: the same whenever it is asked for."""


class Report(NamedTuple):
    """What one step reports."""

    step: int
    kind: Kind
    losses: dict[str, float]
    """By name, without their weights, in nats where they are cross-entropies."""
    gradient_norm: float
    """Before it was clipped."""
    learning_rate: float
    tokens: int
    """Tokens that were predicted."""
    load: dict[str, float]
    """Of each gate that balances: the load of its busiest expert, 1 being the mean of all."""
    anticipatory: bool
    """Whether older weights chose the experts."""
    verdict: Verdict

    @property
    def loss(self) -> float:
        """The one in which spikes are looked for."""
        return _watched(self.losses)

    def to_json(self) -> dict[str, Any]:
        """As a line of the log."""
        return self._asdict()


class Trainer(Learner):
    """A model that is being trained on texts, and everything that changes with it."""

    def __init__(self, recipe: Recipe, weights: Trainable, feed: Feed) -> None:
        """weights: of the recipe's model, float32; they change."""
        super().__init__(recipe.model, weights)
        self.recipe, self.feed = recipe, feed
        self.watch = SpikeWatch(recipe.spikes) if recipe.spikes else None
        self._choices: dict[str, Ints] = {}  # of experts, made for later steps, by "step.shard.gate"

    @property
    def keep_from(self) -> int:
        """As of `Learner`: a spike may send training back."""
        return self.step - (self.recipe.spikes.rollback if self.recipe.spikes else 0)

    @np.errstate(all="ignore")
    def advance(self) -> Report:
        """Do the next step.

        The report's verdict says whether the step counts. Where it does not, the weights are what they were, and
        training is to go back to an earlier state and to call `begin_anticipatory`, or to stop. Raises CheckpointError
        for weights that no model can be made of: numbers that are not finite, or that their format cannot hold.
        """
        now, number = moment(self.recipe, self.step), self.step
        if self.watch is not None and number > 0 and moment(self.recipe, number - 1).stage != now.stage:
            self.watch.forget()
        anticipatory = self.watch is not None and self.watch.is_anticipatory(number)
        self._choose_ahead(number)
        found = self._gradients(now, number)  # what is not finite is looked for, and said in words
        clipped = clip_gradients(found.gradients, self.recipe.clip_norm)
        verdict = self._verdict(number, _watched(found.losses) if np.isfinite(clipped.norm) else np.nan)
        if verdict == "go on":
            self.optimiser.step(clipped.gradients, now.learning_rate)
            self._balance(found.loads, now)
            self.step += 1
        load = {gate: float(counts.max() / counts.mean()) for gate, counts in found.loads.items()}
        rate = now.learning_rate
        return Report(
            number, now.stage.kind, found.losses, clipped.norm, rate, found.tokens, load, anticipatory, verdict
        )

    def begin_anticipatory(self, spiked_at: int) -> None:
        """After the way back from a spike at a step: let older weights choose the experts for a while."""
        if self.watch is None:
            raise TrainingError("spikes: expected a rule for them in the recipe, found none")
        self.watch.begin(self.step, spiked_at)

    @np.errstate(all="ignore")
    def captures(self, step: int) -> dict[str, float]:
        """Where the indexers stand on the first part of a step's batch: see `losses.indexer.Capture.standing`.

        In the warm-up as they will choose after it; nothing in the dense stage, in which they learn nothing.
        """
        now = moment(self.recipe, step)
        if now.stage.kind == "dense":
            return {}
        [model, *_] = self._models_of(self.weights.config, now.quantise)
        ids, mask = _shards(self.feed.batch(step))[0]
        run = Pass(model, ids, mask, observes=True)
        return {name: found.standing for name, found in captures(model, run.seen, run.mask).items()}

    def state(self) -> dict[str, Array | Ints]:
        """Everything that `load_state` needs, as arrays by name."""
        choices = {CHOICES + name: array for name, array in self._choices.items()}
        return {**super().state(), **choices, **(self.watch.state() if self.watch else {})}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where the trainer of `state` stood, with the same bits. Raises TrainingError for another model's."""
        _check_state(state, self.state())
        self._load(state)
        self._choices = under(CHOICES, state)
        if self.watch:
            self.watch.load_state(state)

    def _verdict(self, step: int, loss: float) -> Verdict:
        if self.watch is not None:
            return self.watch.verdict(step, loss)
        return "go on" if np.isfinite(loss) else "stop"

    def _gradients(self, now: Moment, number: int) -> "_Found":
        """Of the whole batch: each part's counted by the tokens that it predicts."""
        shards, models = _shards(self.feed.batch(number)), self._models_for(now)

        def part(place: int) -> "_Found":
            ids, mask = shards[place]
            chosen = under(f"{number}.{place}.", self._choices)
            with np.errstate(all="ignore"), routed_by(models[place], chosen) if chosen else nullcontext():
                found = step(models[place], ids, mask, _losses(now, self.recipe), observes=True)
            loads = expert_loads(self.recipe.model, found.seen, mask)
            learnt = {name: gradient for name, gradient in found.gradients.items() if _learns(name, now.stage.kind)}
            return _Found(found.losses, learnt, loads, int(mask.sum() - len(mask)))

        parts = in_threads(part, len(shards))
        self._choices = {name: one for name, one in self._choices.items() if not name.startswith(f"{number}.")}
        return _joined(parts)

    def _models_for(self, now: Moment) -> list[TrainableModel]:
        """The models of a step: before the sparse stages, their indexers choose all entries."""
        return self._models_of(stage_config(self.weights.config, now.stage), now.quantise)

    def _balance(self, loads: Mapping[str, Ints], now: Moment) -> None:
        if now.stage.kind == "indexer":
            return
        for gate, load in loads.items():
            bias = self.weights.others[f"{gate}bias"]
            self.weights.others[f"{gate}bias"] = balanced_bias(bias, load, self.recipe.bias_speed)

    def _choose_ahead(self, number: int) -> None:
        """Let the weights of now choose the experts of later steps, where the watch asks for it."""
        for later in self.watch.steps_to_route(number) if self.watch else ():
            if later >= self.recipe.steps:
                continue
            models = self._models_for(moment(self.recipe, later))
            for place, (ids, mask) in enumerate(_shards(self.feed.batch(later))):
                run = Pass(models[place], ids, mask, with_mtp=models[place].mtp is not None, observes=True)
                for gate, chosen in routing_indices(self.recipe.model, run.seen).items():
                    self._choices[f"{later}.{place}.{gate}"] = chosen


class _Found(NamedTuple):
    losses: dict[str, float]
    gradients: dict[str, Array]
    loads: dict[str, Ints]
    tokens: int


def _losses(now: Moment, recipe: Recipe) -> dict[str, float]:
    """The weight of each loss in the sum, by its name in `gradients.LOSSES`."""
    if now.stage.kind == "indexer":
        return {"indexer_warmup": 1.0}
    losses = {"next_token": 1.0, "balance": recipe.balance_weight}
    if recipe.model.num_nextn_predict_layers:
        losses["mtp"] = now.mtp_weight
    if now.stage.kind != "dense":
        losses["indexer"] = recipe.indexer_weight
    return {name: weight for name, weight in losses.items() if weight}


def _learns(name: str, kind: Kind) -> bool:
    """Whether a parameter learns in a stage."""
    return {"dense": not is_indexer(name), "indexer": is_indexer(name)}.get(kind, True)


def _shards(batch: Batch) -> list[tuple[Ints, Any]]:
    """The rows in parts; fewer parts where there are fewer rows."""
    parts = min(SHARDS, len(batch.ids))
    return list(zip(np.array_split(batch.ids, parts), np.array_split(batch.mask, parts), strict=True))


def _watched(losses: Mapping[str, float]) -> float:
    """The loss in which spikes are looked for."""
    return losses["next_token"] if "next_token" in losses else losses["indexer_warmup"]


def _joined(parts: list[_Found]) -> _Found:
    """Losses and gradients as means of the parts', each weighed by the tokens that it predicts; loads as sums.

    For the losses of the next token and of MTP, that is the mean over all tokens. Those of balance and of the indexer
    are no sums over predicted tokens: of the whole batch at once they would be slightly different.
    """
    tokens = sum(part.tokens for part in parts)
    shares = [part.tokens / tokens for part in parts]

    def mean(of: list[Any]) -> Any:
        return sum(one * share for one, share in zip(of, shares, strict=True))

    first = parts[0]
    losses = {name: float(mean([part.losses[name] for part in parts])) for name in first.losses}
    gradients = {name: mean([part.gradients[name] for part in parts]) for name in first.gradients}
    loads: dict[str, Any] = {gate: sum(part.loads[gate] for part in parts) for gate in first.loads}
    return _Found(losses, gradients, loads, tokens)


def _check_state(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise TrainingError unless a state has the arrays of the trainer's own one; lists may have another length."""
    expected = {name: array for name, array in own.items() if not name.startswith(CHOICES)}
    found = {name: array for name, array in state.items() if not name.startswith(CHOICES)}
    check_state(found, expected, of_any_size=(LOSSES,))
    for name in state.keys() - found.keys():
        if state[name].ndim != 2 or state[name].dtype.kind != "i":
            raise TrainingError(f"{quoted(name)}: expected numbers of experts [T, k], found {state[name].dtype}")
