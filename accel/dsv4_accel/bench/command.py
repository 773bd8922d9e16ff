"""`dsv4 bench`: what the operations and whole passes cost on this machine, beside other implementations."""

import json
from pathlib import Path
from typing import Annotated

import typer

from dsv4.backends import backend as backend_named
from dsv4.cli.app import BackendOption, JsonOption
from dsv4.cli.ending import TOO_FAR
from dsv4.cli.progress import progress
from dsv4.errors import SettingError


def bench(
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Rows by name or pattern, such as 'fp4.*'; may be repeated.", show_default="all"),
    ] = None,
    backend: BackendOption = "auto",
    quick: Annotated[
        bool, typer.Option("--quick", help="A short look: little time and memory for each row, no large rows.")
    ] = False,
    peers: Annotated[
        bool, typer.Option("--peers/--no-peers", help="Compare with torch, transformers and ggml.")
    ] = True,
    layer_directory: Annotated[
        Path | None,
        typer.Option(
            "--layer-dir",
            help="Directory in which the checkpoint of one full-size layer is kept.",
            show_default="temporary",
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw a picture into this PNG file.")] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            "--compare",
            help="An earlier report (--json): say what is slower or faster now; exit with 1 if any is slower.",
        ),
    ] = None,
    as_json: JsonOption = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown for a page.")] = False,
) -> None:
    """Measure operations and whole passes beside NumPy, torch, transformers and ggml.

    The implementations run in turns. Look at the ratios, and at the fraction of this machine's memory bandwidth.
    """
    from dsv4_accel.bench.compare import changes, in_words, read_rows
    from dsv4_accel.bench.plot import draw, require_matplotlib
    from dsv4_accel.bench.report import as_markdown, as_text
    from dsv4_accel.bench.roof import thread_count
    from dsv4_accel.bench.run import run

    if as_json and markdown:
        raise SettingError("--markdown: expected either this or --json, found both")
    if plot is not None:
        require_matplotlib()
    earlier = read_rows(compare, backend_named(backend).name, thread_count()) if compare else []
    with progress("measuring") as report_progress:
        report = run(backend, only or (), quick, peers, layer_directory, report_progress)
    found = changes(earlier, report.rows)
    if as_json:
        print(json.dumps(report.to_json() | {"changes": [change.to_json() for change in found]}, indent=1))
    else:
        print(as_markdown(report) if markdown else as_text(report))
        for change in found:
            print(in_words(change))
    if plot is not None:
        draw(report, plot)
    if any(change.judgement == "slower" for change in found):
        raise typer.Exit(TOO_FAR)
