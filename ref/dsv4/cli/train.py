"""`dsv4 train`: a model from texts, and a picture of how it went."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from dsv4.cli.app import app
from dsv4.errors import SettingError, quoted

PLOT = "plot"


@app.command()
def train(
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXT…",
            help="Text files, and JSONL files of documents or chats; write ./plot for a file called plot.",
        ),
    ],
    recipe: Annotated[Path | None, typer.Option("--recipe", help="The recipe, a JSON file.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Directory of the run: log, states, and the model.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    init: Annotated[Path | None, typer.Option("--init", help="Checkpoint to start from.", show_default="none")] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer", help="Directory of a tokenizer.", show_default="that of --init, or trained on TEXT"
        ),
    ] = None,
) -> None:
    """Train a model on texts by a recipe: `dsv4 train TEXT… --recipe recipe.json --out DIR`.

    The model in DIR/model is an ordinary checkpoint in float32, which all other commands accept; `dsv4 convert` turns
    it into the released formats. A run that was killed can be continued with --resume, and then ends with the same bits
    as an undisturbed one. `dsv4 train plot DIR` draws its log into DIR/plot.png.
    """
    if texts[0] == PLOT:
        _plot(texts[1:], recipe=recipe, out=out, resume=resume, init=init, tokenizer=tokenizer)
        return
    from dsv4.learn.pretrain import pretrain
    from dsv4.learn.recipe import read_recipe

    if recipe is None or out is None:
        raise SettingError(f"{'--recipe' if recipe is None else '--out'}: expected a path, found none")
    read = read_recipe(recipe)
    with _watcher(read.steps) as watch:
        model = pretrain(read, texts, out, resume, init, tokenizer, watch)
    print(model)


def _plot(directories: list[str], **options: object) -> None:
    """`dsv4 train plot DIR`; options: those of training, none of which belongs here."""
    from dsv4.learn.plot import draw
    from dsv4.learn.run_directory import RunDirectory

    given = [name for name, value in options.items() if value]
    if len(directories) != 1 or given:
        found = quoted(directories) + "".join(f" and --{name}" for name in given)
        raise SettingError(f"train plot: expected the directory of one run and nothing else, found {found}")
    directory = RunDirectory(directories[0])
    file = directory.path / "plot.png"
    draw(directory.log.read(), file)
    print(file)


@contextmanager
def _watcher(steps: int) -> Iterator[Any]:
    """Shows progress: a bar on a terminal, elsewhere a line every hundred steps."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not sys.stderr.isatty():
        yield _lines
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("training", total=steps)

        def show(report: Any, seconds: float) -> None:
            bar.update(task, completed=report.step + 1, description=_words(report, seconds))

        yield show


def _lines(report: Any, seconds: float) -> None:
    """Every hundredth step in a line on standard error."""
    if (report.step + 1) % 100 == 0:
        print(f"step {report.step + 1}: {_words(report, seconds)}", file=sys.stderr, flush=True)


def _words(report: Any, seconds: float) -> str:
    return f"{report.kind}, loss {report.loss:.3f}, {report.tokens / seconds:,.0f} tokens/s"
