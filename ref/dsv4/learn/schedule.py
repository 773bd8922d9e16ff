"""What holds at a step of training: stage, learning rate, batch, weights of the losses (report §4.2; V3's §4.2)."""

import math
from dataclasses import replace
from typing import NamedTuple

from dsv4.config import CSA_RATIO, Config
from dsv4.errors import SettingError
from dsv4.learn.recipe import Recipe, Stage


class Moment(NamedTuple):
    """What holds at one step."""

    stage: Stage
    learning_rate: float
    """η of Muon and AdamW."""
    batch: int
    """Sequences of the step, each of the stage's length."""
    mtp_weight: float
    """Of the MTP loss."""
    quantise: bool
    """Whether the model computes with weights as they will be stored."""


def moment(recipe: Recipe, step: int) -> Moment:
    """What holds at a step, of which the first is 0.

    The learning rate rises linearly over the recipe's warm-up, is constant, and falls along a cosine over the stages of
    the kind "decay"; with them, the MTP loss gets its final weight. A stage of the kind "indexer" has a learning rate
    of its own. The batch grows from the first one to that of the stage. Raises SettingError for a step behind the last.
    Source: report §4.2.2: warm-up, constant, cosine; MTP weight; V3's report §4.2: the batch.
    """
    stage = _stage_at(recipe, step)
    decays = stage.kind == "decay"
    if stage.kind == "indexer":
        rate = recipe.indexer_learning_rate
    elif decays:
        first = sum(one.steps for one in recipe.stages if one.kind != "decay")
        rate = cosine_decay(step - first, recipe.steps - first, recipe.learning_rate, recipe.final_learning_rate)
    else:
        rate = recipe.learning_rate * warm_up(step, recipe.warmup_steps)
    return Moment(
        stage=stage,
        learning_rate=rate,
        batch=ramped_batch(step, recipe.ramp_steps, recipe.first_batch, stage.batch),
        mtp_weight=recipe.final_mtp_weight if decays else recipe.mtp_weight,
        quantise=decays and recipe.quantise,
    )


def warm_up(step: int, steps: int) -> float:
    """(step + 1) / steps, at most 1: the share of the learning rate in a linear warm-up of so many steps."""
    return min(1.0, (step + 1) / max(1, steps))


def cosine_decay(step: int, steps: int, start: float, end: float) -> float:
    """end + (start − end) · (1 + cos πx) / 2 with x = (step + 1) / steps: the last step, steps − 1, has `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * (step + 1) / steps)) / 2


def ramped_batch(step: int, steps: int, first: int, last: int) -> int:
    """first + ⌊(last − first) · step / steps⌋, and `last` from step `steps` on; `last` where that is smaller."""
    if step >= steps or first >= last:
        return last
    return first + (last - first) * step // steps


def stage_config(config: Config, stage: Stage) -> Config:
    """The configuration of the model in a stage: before the sparse stages, its indexers choose all entries.

    Not in the report: what "dense attention" is in a layer that compresses; here it reads every visible entry.
    """
    entries = stage.length // CSA_RATIO
    if stage.kind in ("sparse", "decay") or entries <= config.index_topk:
        return config
    return replace(config, index_topk=entries)


def _stage_at(recipe: Recipe, step: int) -> Stage:
    end = 0
    for stage in recipe.stages:
        end += stage.steps
        if 0 <= step < end:
            return stage
    raise SettingError(f"step: expected one from 0 to {recipe.steps - 1}, found {step}")
