"""A run of Decoupled DiLoCo, from texts to a checkpoint; it may be killed, and is resumed.

- `DIR/recipe.json`, `texts.json`, `tokenizer`, `states/`: as `dsv4 train` leaves them at the first step
- `DIR/diloco/run.json`: settings, what goes wrong, and the seed
- `DIR/diloco/tape.jsonl`: a line for each event; `replay.replayed` makes the run again from it
- `DIR/diloco/states/`: in virtual time: snapshots of all learners, the syncer and the messages on their way
- `DIR/diloco/fragment-…`: with real processes: what the syncer has of each fragment
- `DIR/diloco/plot.png`: loss, goodput and bytes
- `DIR/model/`: the syncer's model, an ordinary checkpoint
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dsv4.arguments import flag, integer
from dsv4.errors import SettingError, TrainingError, quoted
from dsv4.learn.begin import Files, begin, reopen, text_files
from dsv4.learn.blas import one_blas_thread
from dsv4.learn.diloco.chaos import QUIET, Chaos
from dsv4.learn.diloco.fragments import packed
from dsv4.learn.diloco.learner import Learner
from dsv4.learn.diloco.real.run import run
from dsv4.learn.diloco.settings import Settings
from dsv4.learn.diloco.snapshot import put_back, taken
from dsv4.learn.diloco.syncer import Syncer
from dsv4.learn.diloco.warm_start import warmed_up
from dsv4.learn.diloco.world import Line, World
from dsv4.learn.recipe import Recipe, read_recipe
from dsv4.learn.run_directory import RunDirectory
from dsv4.learn.run_log import RunLog
from dsv4.learn.snapshots import write_model
from dsv4.learn.texts.documents import read_documents
from dsv4.learn.texts.feed import TextFeed
from dsv4.learn.trainable import Trainable
from dsv4.learn.trainer import Feed, Trainer
from dsv4.parameters import parameters
from dsv4.text.tokenizer import Tokenizer

Watcher = Callable[[World, Line], None]
"""Called with each line of the tape."""


class Start:
    """How a run begins: what every learner and the syncer have in common."""

    def __init__(
        self,
        recipe: Recipe,
        weights: Trainable,
        feed_of: Callable[[int], Feed],
        settings: Settings,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """weights: the first ones; feed_of: the batches of each learner; state: of a trainer that has done some steps,
        which all learners go on from, weights and optimiser. Raises SettingError as `fragments_of`.
        """
        self.recipe, self.weights, self.feed_of, self.settings = recipe, weights, feed_of, settings
        self.state = state
        self.fragments = fragments_of(recipe, settings)

    def learner(self, number: int) -> Learner:
        """A learner at the start. Arrays are shared: nothing writes into them."""
        weights = Trainable(self.weights.config, dict(self.weights.parameters), dict(self.weights.others))
        trainer = Trainer(self.recipe, weights, self.feed_of(number))
        if self.state is not None:
            trainer.load_state(self.state)
        return Learner(number, trainer, self.fragments, self.settings.bits)

    def syncer(self) -> Syncer:
        """The syncer at the start."""
        first = 0 if self.state is None else int(self.state["step"])
        return Syncer(dict(self.weights.items()), self.fragments, self.settings, range(first, self.recipe.steps))

    def world(self, chaos: Chaos, seed: int, log: Callable[[Line], None] = lambda line: None) -> World:
        """The whole in virtual time."""
        return World(self.learner, self.syncer, chaos.check(self.settings.learners), integer("seed", seed), log)

    def merged_weights(self, syncer: Syncer) -> Trainable:
        """The model that counts: the syncer's tensors, and those that never change."""
        arrays = {name: syncer.weights.get(name, array) for name, array in self.weights.items()}
        return Trainable.from_arrays(self.weights.config, arrays)


def fragments_of(recipe: Recipe, settings: Settings) -> tuple[tuple[str, ...], ...]:
    """The tensors of each fragment: all of the recipe's model but the hash layers' tables, which never change.

    Raises SettingError for more fragments than tensors, for a warm start that leaves no step, and for a recipe with a
    rule for spikes: no learner goes back by itself.
    """
    if settings.warm_start >= recipe.steps:
        expected = f"fewer than the {recipe.steps} steps of the recipe"
        raise SettingError(f"warm_start: expected {expected}, found {settings.warm_start}")
    if recipe.spikes is not None:
        raise SettingError(f"{recipe.source}: spikes: expected null for Decoupled DiLoCo, found a rule")
    sizes = {name: one.size for name, one in parameters(recipe.model).items() if one.format != "i64"}
    return packed(sizes, settings.fragments)


def train(
    recipe: Recipe | str | Path,
    texts: Sequence[str | Path],
    out: str | Path,
    settings: Settings,
    chaos: Chaos = QUIET,
    seed: int = 0,
    resume: bool = False,
    watch: Watcher = lambda world, line: None,
    ray: str | None = None,
) -> Path:
    """Train with several learners, and give back the path of the merged model's checkpoint.

    recipe, texts, out: as of `dsv4.learn.pretrain`; a step of the recipe is one of each learner, and learner m draws
    its batches by the recipe's seed + 1 + m. settings, chaos: see there; seed: of everything that the world draws;
    resume: go on where the run stands; ray: None for virtual time, in which a run has the same bits whether it was
    interrupted or not, and `watch` is called with each line of the tape; else for real processes, at this address of
    Ray's, or "local". Raises as `pretrain` does, SettingError for settings that do not fit each other, and as
    `real.run.run`.
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    files, directory = text_files(texts), RunDirectory(out)
    if flag("resume", resume) and not directory.exists:
        raise TrainingError(f"{directory.path}: expected a run to resume, found none")
    chaos.check(settings.learners)
    fragments_of(recipe, settings)  # what is wrong with them is said before anything is made
    begun = None if resume else begin(out, recipe, files, None)
    made = RunDirectory(directory.path / "diloco")
    made.log = RunLog(made.path / "tape.jsonl")
    with ExitStack() as stack:
        stack.enter_context(directory.locked())
        made.path.mkdir(exist_ok=True)
        stack.enter_context(made.locked())
        stack.enter_context(one_blas_thread())
        made_by = {"settings": asdict(settings), "chaos": chaos._asdict(), "seed": seed, "real": ray is not None}
        _check_same(made, made_by)
        start = _start(directory, begun or reopen(directory, recipe, files), files, settings)
        if ray is None:
            syncer = _virtual(made, start.world(chaos, seed), recipe.checkpoint_interval, watch)
        else:
            syncer = run(start, made.path.absolute(), chaos, seed, ray)
        write_model(directory, Trainer(recipe, start.merged_weights(syncer), start.feed_of(0)))
    return directory.model


def _virtual(made: RunDirectory, world: World, interval: int, watch: Watcher) -> Syncer:
    """All events that are left, with a snapshot after each `interval` steps of the syncer's clock; the syncer then."""

    def log(line: Line) -> None:
        made.log.append(line)
        watch(world, line)

    lines = 0
    if made.steps():
        state, lines = made.load_state(made.newest())
        put_back(world, state)
    made.log.cut(lines)
    world.log, kept = log, _clock(world)
    while not world.is_over:
        world.advance()
        if _clock(world) // interval > kept // interval:
            kept = _clock(world)
            made.save_state(kept, taken(world), kept)
    made.save_state(_clock(world), taken(world), _clock(world))
    if world.syncer is None:
        raise AssertionError("a run that is over without a syncer")
    return world.syncer


def _clock(world: World) -> int:
    """The syncer's clock; 0 while it is gone, when nothing is kept."""
    return 0 if world.syncer is None else world.syncer.clock


def _start(directory: RunDirectory, trainer: Trainer, files: Files, settings: Settings) -> Start:
    """How learners begin after the warm start: each with the same texts, in an order of its own."""
    recipe, tokenizer = trainer.recipe, Tokenizer.from_file(directory.tokenizer)
    documents = {name: read_documents(path, tokenizer) for name, path in files.items()}
    one = warmed_up(directory, trainer, settings.learners, settings.warm_start, documents)

    def feed_of(number: int) -> Feed:
        return TextFeed(replace(recipe, seed=recipe.seed + 1 + number), documents)

    return Start(recipe, one.weights, feed_of, settings, one.state())


def _check_same(made: RunDirectory, values: dict[str, Any]) -> None:
    """Write what the run is made by, or raise TrainingError where it was begun with something else."""
    plain = json.loads(json.dumps(values))
    if not (made.path / "run.json").exists():
        made.write_json("run.json", plain)
        return
    known = made.read_json("run.json")
    for key, value in plain.items():
        if not isinstance(known, dict) or known.get(key) != value:
            found = known.get(key) if isinstance(known, dict) else known
            raise TrainingError(f"{made.path}: expected a run with the same {key}, found {quoted(found)}")


def tape_of(out: str | Path) -> list[dict[str, Any]]:
    """The event tape of a run's directory. Raises TrainingError where there is none, or a line is none."""
    path = Path(out) / "diloco" / "tape.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: expected the tape of a run, found: {error}") from error
    return lines
