"""How far it reaches: runs with one learner and with many, undisturbed and disturbed, as rows of one table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsv4.checkpoint import Checkpoint
from dsv4.learn.diloco.chaos import QUIET, Chaos
from dsv4.learn.diloco.plot import goodput
from dsv4.learn.diloco.settings import Settings
from dsv4.learn.diloco.training import tape_of, train
from dsv4.learn.evaluation.likelihood import nats_per_token
from dsv4.learn.recipe import Recipe, read_recipe
from dsv4.model.model import Model
from dsv4.ops import Ops
from dsv4.text.tokenizer import Tokenizer


class Run(NamedTuple):
    """One row."""

    name: str
    settings: Settings
    nats: float
    """Per token of the held-out text, of the merged model."""
    seconds: float
    """Virtual, of the whole run."""
    goodput: float
    """Share of the learners' time in which they did a step that was finished."""
    bytes_up: int
    bytes_down: int
    """From and to all learners."""


def reach(
    recipe: Recipe | str | Path,
    texts: Sequence[str | Path],
    held_out: str,
    out: str | Path,
    variants: Mapping[str, tuple[Settings, Chaos]],
    seed: int = 0,
    window: int = 128,
) -> list[Run]:
    """A run in virtual time for each variant, below its name in `out`, and what came of it.

    recipe, texts, seed: as of `training.train`; held_out: a text to be judged by, in nats per token over windows of so
    many tokens. Equal seeds give equal rows. Raises as `train` and `nats_per_token`.
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    return [_run(recipe, texts, held_out, Path(out) / name, *variants[name], seed, window) for name in variants]


def grid(learners: Sequence[int] = (1, 2, 4, 8), chaos: Chaos = QUIET) -> dict[str, tuple[Settings, Chaos]]:
    """Variants for `reach`: each number of learners, with everything else as `Settings` has it."""
    return {f"{count}": (Settings(learners=count), chaos) for count in learners}


def _run(
    recipe: Recipe, texts: Sequence[str | Path], held_out: str, out: Path, settings: Settings, chaos: Chaos, *how: int
) -> Run:
    seed, window = how
    model = train(recipe, texts, out, settings, chaos, seed)
    tape = tape_of(out)
    ids = Tokenizer.from_file(model).encode(held_out)
    steps = [line for line in tape if line["event"] == "step"]
    seconds = float(tape[-1]["time"])
    [share] = goodput(steps, settings.learners, [seconds], window=seconds)
    sent: dict[str, Any] = next(line for line in reversed(tape) if line["event"] == "merged")
    nats = nats_per_token(Model(Checkpoint.open(model), Ops(), fake_quant=False), np.array(ids), window)
    return Run(out.name, settings, nats, seconds, float(share), sent["up"], sent["down"])
