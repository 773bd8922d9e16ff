"""How far it reaches: one learner and many on as many tokens, undisturbed and disturbed, as rows of a table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsv4.arguments import number
from dsv4.checkpoint import Checkpoint
from dsv4.checkpoint.atomic import replacing
from dsv4.errors import SettingError
from dsv4.learn.diloco.chaos import QUIET, Chaos, Kill
from dsv4.learn.diloco.plot import goodput
from dsv4.learn.diloco.settings import Settings
from dsv4.learn.diloco.training import tape_of, train
from dsv4.learn.evaluation.likelihood import nats_per_token
from dsv4.learn.pretrain import pretrain
from dsv4.learn.recipe import Recipe
from dsv4.learn.run_directory import RunDirectory
from dsv4.model.model import Model
from dsv4.ops import Ops
from dsv4.text.tokenizer import Tokenizer


class Variant(NamedTuple):
    """What a row is made with."""

    settings: Settings | None
    """None: `dsv4 train`, one learner without an outer step."""
    chaos: Chaos = QUIET


class Run(NamedTuple):
    """A row."""

    name: str
    nats: float
    """Per token of the held-out text, of the merged model."""
    tokens: int
    """That all learners have learnt from, those of the warm start and of a killed learner included."""
    goodput: float
    """Share of the learners' virtual time in which they did a step that was finished; 1 for one learner alone."""
    bytes_up: float
    bytes_down: float
    """From and to a learner for each of the recipe's steps after the warm start."""


def reach(
    recipe: Recipe,
    texts: Sequence[str | Path],
    held_out: str,
    out: str | Path,
    variants: Mapping[str, Variant],
    window: int = 128,
) -> list[Run]:
    """A run in virtual time for each variant, below its name in `out`, and what came of it.

    recipe: of one learner; M learners do as many steps, with batches of an M-th each (`shared`). texts: as of `train`;
    held_out: a text to be judged by, in nats per token over windows of so many tokens. The recipe's seed is that of
    first weights, order of the texts, and world. A variant whose row is there already is not run again, and one that
    was interrupted is gone on with. Raises as `shared`, `train` and `nats_per_token`.
    """
    return [_run(recipe, texts, held_out, Path(out) / name, one, window) for name, one in variants.items()]


def shared(recipe: Recipe, learners: int) -> Recipe:
    """The recipe of each of so many learners, who together learn from as many tokens as one with the whole recipe.

    Raises SettingError for a batch that cannot be shared evenly.
    """
    for stage in recipe.stages:
        if stage.batch % learners:
            raise SettingError(f"batch: expected a multiple of the {learners} learners, found {stage.batch}")
    stages = tuple(replace(stage, batch=stage.batch // learners) for stage in recipe.stages)
    return replace(recipe, stages=stages)


def drawn_kills(learners: int, steps: int, between: float, seconds: float, seed: int) -> tuple[Kill, ...]:
    """Failures at random: each learner is killed again and again, and is gone for so many seconds each time.

    steps: of the run; between: steps that a learner does between two failures, on average of an exponential
    distribution. Raises SettingError for a mean that is not above 0.
    """
    if number("between", between) <= 0:
        raise SettingError(f"between: expected steps above 0, found {between}")
    kills = []
    for learner in range(learners):
        generator, after = np.random.default_rng((seed, learner)), 0.0
        while (after := after + max(1.0, float(generator.exponential(between)))) < steps:
            kills.append(Kill(learner, int(after), seconds))
    return tuple(kills)


def _run(recipe: Recipe, texts: Sequence[str | Path], held_out: str, out: Path, variant: Variant, window: int) -> Run:
    row = out / "row.json"
    if not row.exists():
        found = _alone(recipe, texts, out) if variant.settings is None else _together(recipe, texts, out, variant)
        found = found._replace(nats=_judged(out / "model", held_out, window))
        with replacing(row) as temporary:
            temporary.write_text(json.dumps(found._asdict()), encoding="utf-8")
    return Run(**json.loads(row.read_text(encoding="utf-8")))


def _alone(recipe: Recipe, texts: Sequence[str | Path], out: Path) -> Run:
    pretrain(recipe, texts, out, resume=RunDirectory(out).exists)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return Run(out.name, np.nan, sum(line["tokens"] for line in lines), 1.0, 0.0, 0.0)


def _together(recipe: Recipe, texts: Sequence[str | Path], out: Path, variant: Variant) -> Run:
    settings, chaos = variant
    assert settings is not None
    resume = RunDirectory(out).exists
    train(shared(recipe, settings.learners), texts, out, settings, chaos, recipe.seed, resume)
    tape, warm_start = tape_of(out), RunDirectory(out).log.read() if settings.warm_start else []
    steps = [line for line in tape if line["event"] == "step"]
    seconds = float(tape[-1]["time"])
    [share] = goodput(steps, settings.learners, [seconds], window=seconds)
    sent = next(line for line in reversed(tape) if line["event"] == "merged")
    count = settings.learners * (recipe.steps - settings.warm_start)
    tokens = sum(line["tokens"] for line in [*warm_start, *steps])
    return Run(out.name, np.nan, tokens, float(share), sent["up"] / count, sent["down"] / count)


def _judged(model: Path, text: str, window: int) -> float:
    ids = Tokenizer.from_file(model).encode(text)
    return nats_per_token(Model(Checkpoint.open(model), Ops(), fake_quant=False), np.array(ids), window)
