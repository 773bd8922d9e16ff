"""`dsv4 posttrain`: stages of post-training as a recipe says, a picture of one, and what a model scores."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from dsv4.backends import backend as backend_named
from dsv4.cli.app import BackendOption, JsonOption, app, only_v4
from dsv4.errors import SettingError, quoted

PLOT, SCORE = "plot", "score"


@app.command()
def posttrain(
    recipe: Annotated[
        list[str], typer.Argument(metavar="RECIPE", help="The recipe, a JSON file; or plot DIR, or score MODEL.")
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Directory of the run; each stage has one inside.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", "-s", help="The seed of every stage.", show_default="the recipe's")
    ] = None,
    backend: BackendOption = "auto",
    world: Annotated[
        list[str] | None, typer.Option("--world", help="For score: a world; may be repeated.", show_default="all")
    ] = None,
    mode: Annotated[str, typer.Option("--mode", help="For score: non-think, high or max.")] = "non-think",
    window: Annotated[
        int | None,
        typer.Option("--window", help="For score: the most tokens of an answer.", show_default="the mode's"),
    ] = None,
    tasks: Annotated[int, typer.Option("--tasks", help="For score: how many held-out tasks of each world.")] = 100,
    temperature: Annotated[
        float, typer.Option("--temperature", "-t", help="For score: 0 takes the likeliest tokens, 1 draws.")
    ] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Post-train a model: `dsv4 posttrain recipe.json --out DIR`.

    Runs the stages of the recipe one after another: fine-tuning (sft), reinforcement learning (grpo) and distillation
    (opd). Each has a directory of its name in DIR, in which model/ is an ordinary checkpoint. A run that was killed can
    be continued with --resume; unfinished answers are continued after their last token. `dsv4 posttrain plot DIR/STAGE`
    draws the log of a stage, and `dsv4 posttrain score MODEL` measures a model on held-out tasks.
    """
    if recipe[0] == PLOT:
        _plot(recipe[1:])
        return
    if recipe[0] == SCORE:
        _score(recipe[1:], world, mode, window, tasks, seed or 0, temperature, backend, as_json)
        return
    from dsv4.learn.post.recipe_json import read_post_recipe
    from dsv4.learn.post.run import posttrain as train

    if out is None or len(recipe) != 1:
        found = "none" if out is None else quoted(recipe)
        raise SettingError(f"{'--out' if out is None else 'recipe'}: expected one path, found {found}")
    read = read_post_recipe(recipe[0], seed)
    with _watcher(sum(stage.steps for stage in read.stages)) as watch:
        model = train(read, out, resume, backend_named(backend), watch)
    print(model)


def _plot(directories: list[str]) -> None:
    from dsv4.learn.post.plot import draw_stage
    from dsv4.learn.run_directory import RunDirectory

    if len(directories) != 1:
        raise SettingError(f"posttrain plot: expected the directory of one stage, found {quoted(directories)}")
    directory = RunDirectory(directories[0])
    file = directory.path / "plot.png"
    draw_stage(directory.log.read(), file)
    print(file)


def _score(
    models: list[str],
    worlds: list[str] | None,
    mode: str,
    window: int | None,
    tasks: int,
    seed: int,
    temperature: float,
    backend: str,
    as_json: bool,
) -> None:
    """A line for each world: score, tokens of an answer, and how many came to an end."""
    from dsv4.learn.post.efforts import Effort
    from dsv4.learn.post.scores import score
    from dsv4.learn.post.worlds import WORLDS
    from dsv4.loading import load
    from dsv4.text.tokenizer import Tokenizer

    if len(models) != 1:
        raise SettingError(f"posttrain score: expected the directory of one model, found {quoted(models)}")
    effort = Effort.named(mode)
    if window is not None:
        effort = replace(effort, window=window)
    model = only_v4(load(models[0], backend), "posttrain score")
    tokenizer = Tokenizer.from_file(models[0])
    how = {"mode": mode, "seed": seed, "temperature": temperature}
    for name in worlds or WORLDS:
        found = score(model, tokenizer, name, effort, tasks, seed, temperature)
        if as_json:
            print(json.dumps({"world": name, **how, **found._asdict()}))
        else:
            print(f"{name:<12} {found.score:.3f}  {found.tokens:.1f} tokens  {found.ended:.0%} ended")


@contextmanager
def _watcher(steps: int) -> Iterator[Any]:
    """Shows progress: a bar on a terminal, elsewhere a line for every tenth step."""
    if not sys.stderr.isatty():
        yield _lines
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("post-training", total=steps)

        def show(stage: Any, report: Any, seconds: float) -> None:
            bar.update(task, advance=1, description=_words(stage, report))

        yield show


def _lines(stage: Any, report: Any, seconds: float) -> None:
    if (report.step + 1) % 10 == 0 or report.step + 1 == stage.steps:
        print(f"{_words(stage, report)}, step {report.step + 1} of {stage.steps}", file=sys.stderr, flush=True)


def _words(stage: Any, report: Any) -> str:
    measures = "".join(f", {name} {value:.2f}" for name, value in report.measures.items())
    return f"{stage.name} ({stage.kind}): loss {report.loss:.3f}{measures}"
