"""From a model and a batch to losses, and to the gradient of every trainable parameter."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dsv4.errors import PromptError, SettingError
from dsv4.learn.losses.balance import balance_losses
from dsv4.learn.losses.indexer import indexer_losses
from dsv4.learn.losses.labels import labels
from dsv4.learn.losses.mtp import mtp
from dsv4.learn.losses.next_token import next_token
from dsv4.learn.tape import Tensor
from dsv4.learn.tape import gradients as sweep
from dsv4.learn.trainable import TrainableModel
from dsv4.learn.who_learns import is_indexer
from dsv4.model.model import Model
from dsv4.model.observe import Observer, ignore
from dsv4.model.padding import Padding
from dsv4.ops.types import Array, Ints


class Pass:
    """One run of a model over a batch, from which losses are computed.

    model, ids [B, S] integer, mask [B, S]; states: the streams after the last block, [B, S, n, d]; mtp_logits: those
    for the token after the next, [B, S, vocab], None where the MTP module was not run; seen: what went by inside, by
    the observer's names, empty where nobody asked. All are Tensors but what holds integers.
    """

    def __init__(
        self,
        model: TrainableModel,
        ids: npt.ArrayLike,
        mask: npt.ArrayLike | None = None,
        with_mtp: bool = False,
        observes: bool = False,
    ) -> None:
        """ids [B, S] (or [S]); mask [B, S]: false at padding, or None. Each row is one document by itself.

        with_mtp: whether to run the MTP module, too; observes: whether to keep what goes by, for which the indexer's
        scores are computed besides. Raises PromptError as `Model` does, and where no sequence has two tokens.
        """
        self.model, self.mask = model, Padding.of(ids, mask).mask
        self.ids: Ints = np.where(self.mask, np.atleast_2d(np.asarray(ids)), 0)
        self.seen: dict[str, Any] = {}
        following = labels(self.ids, self.mask, 1)
        if not following.exist.any():
            raise PromptError("ids: expected a sequence of at least two tokens, found none")
        observe: Observer = self.seen.__setitem__ if observes else ignore
        self.states: Any = model.states(self.ids, mask=self.mask, observe=observe)
        self.mtp_logits: Any = None
        if with_mtp:
            self.mtp_logits = model.mtp_logits(self.states, following.ids, mask=following.exist, observe=observe)

    @cached_property
    def logits(self) -> Any:
        """[B, S, vocab] for the next token, a Tensor."""
        return self.model.head(self.states)


class Loss(NamedTuple):
    """A loss that training knows by name."""

    compute: Callable[[Pass], Any]
    """From a pass to one number, a Tensor."""
    is_learned_by: Callable[[str], bool] = lambda name: True
    """Which parameters learn from it, by official name; all others are as if what they gave were detached."""
    observes: bool = False
    """Whether it looks into `Pass.seen`."""


LOSSES: dict[str, Loss] = {
    "next_token": Loss(lambda run: next_token(run.logits, run.ids, run.mask)),
    "mtp": Loss(lambda run: mtp(run.mtp_logits, run.ids, run.mask)),
    "balance": Loss(lambda run: _sum(balance_losses(run.model.config, run.seen, run.mask)), observes=True),
    "indexer_warmup": Loss(
        lambda run: _sum(indexer_losses(run.model, run.seen, run.mask, "visible")), is_indexer, observes=True
    ),
    "indexer": Loss(
        lambda run: _sum(indexer_losses(run.model, run.seen, run.mask, "chosen")), is_indexer, observes=True
    ),
}
"""The losses by name."""


class Step(NamedTuple):
    """What one pass over a batch says."""

    losses: dict[str, float]
    """Each loss by name, without its weight."""
    gradients: dict[str, Array]
    """Of the weighted sum of the losses, by official name, for every trainable parameter."""
    seen: dict[str, Any]
    """What the pass reported: see `Pass`."""


def gradients(
    model: Model,
    ids: npt.ArrayLike,
    mask: npt.ArrayLike | None = None,
    losses: Mapping[str, float] = {"next_token": 1.0},
) -> tuple[float, dict[str, Array]]:
    """The loss of a model on a batch, and its gradient by every trainable parameter.

    model: any model, its weights taken as floats of its dtype; a `TrainableModel` is used as it is, so that nothing is
    copied. ids [B, S] integer token ids (or [S]); mask [B, S]: false at padding, which predicts nothing; each row is a
    document by itself. losses: the weight of each loss in the sum, by its name in LOSSES.
    Returns the sum, which is unless said the mean cross-entropy of the next token over all tokens that are predicted,
    in nats, and a dictionary from official names to arrays of the parameters' shape and dtype. Zeros where a loss does
    not depend on a parameter, as none of these does on the indexer's. Raises PromptError for ids or a mask that do not
    fit, SettingError for a loss of another name, CheckpointError for an MTP loss without an MTP layer.
    """
    found = step(TrainableModel.of(model), ids, mask, losses)
    return sum(weight * found.losses[name] for name, weight in losses.items()), found.gradients


def step(
    model: TrainableModel,
    ids: npt.ArrayLike,
    mask: npt.ArrayLike | None,
    losses: Mapping[str, float],
    observes: bool = False,
) -> Step:
    """As `gradients`, with each loss by itself; observes: whether to keep what went by, whatever the losses."""
    unknown = sorted(set(losses) - set(LOSSES))
    if unknown or not losses:
        raise SettingError(f"losses: expected some of {', '.join(LOSSES)}, found {', '.join(unknown) or 'none'}")
    observes = observes or any(LOSSES[name].observes for name in losses)
    run = Pass(model, ids, mask, with_mtp="mtp" in losses, observes=observes)
    values: dict[str, Tensor] = {name: LOSSES[name].compute(run) for name in losses}
    total = weighted_gradients(model, values, losses)
    return Step({name: float(value.data) for name, value in values.items()}, total, run.seen)


def weighted_gradients(
    model: TrainableModel, values: Mapping[str, Tensor], weights: Mapping[str, float]
) -> dict[str, Array]:
    """The gradient of Σ weight · loss by every trainable parameter, zeros where a loss does not depend on it.

    values: losses of one pass of the model, by name; weights: for each of them. What is called as one of LOSSES is
    learnt by the same parameters, and everything else by all.
    """
    total: dict[str, Array] = {name: np.zeros_like(array) for name, array in model.parameters.items()}
    for group, value in _by_learners(model, values, weights):
        for name, gradient in zip(group, sweep(value, [model.leaves[name] for name in group]), strict=True):
            total[name] += gradient
    return total


def _sum(losses: Mapping[str, Any]) -> Any:
    """Those of all layers; 0, on the tape, where there is none."""
    return sum(losses.values(), start=Tensor(np.zeros((), np.float32)))


def _by_learners(
    model: TrainableModel, values: Mapping[str, Tensor], weights: Mapping[str, float]
) -> list[tuple[tuple[str, ...], Tensor]]:
    """The weighted losses added up where the same parameters learn from them: one sweep for each such group."""
    sums: dict[tuple[str, ...], Any] = {}
    for name, value in values.items():
        learns = LOSSES[name].is_learned_by if name in LOSSES else lambda parameter: True
        group = tuple(filter(learns, model.parameters))
        weighted = value * value.dtype.type(weights[name])
        sums[group] = sums[group] + weighted if group in sums else weighted
    return list(sums.items())
