"""A report as a picture: for each row the fraction of the roof, and how many times as long NumPy takes."""

import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dsv4.atomic import replacing
from dsv4.bench.case import ROOF, Row
from dsv4.bench.machine import machine_in_words
from dsv4.bench.run import Report
from dsv4.bench.stage import NUMPY
from dsv4.bench.timing import Spread
from dsv4.errors import SettingError

BLUE, ORANGE, GREY, DARK = "#3b6ea5", "#d98032", "#9a9a9a", "#333333"


def require_matplotlib() -> None:
    """Raises SettingError where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise SettingError("--plot: expected matplotlib, found none installed: pip install 'dsv4[bench]'")


def draw(report: Report, file: Path) -> None:
    """Write the picture as a PNG file. Raises SettingError where it cannot be written."""
    require_matplotlib()
    from matplotlib.figure import Figure

    rows = report.rows[::-1]  # the first one on top
    figure = Figure(figsize=(12, 2.2 + 0.3 * len(rows)), layout="constrained", dpi=120)
    roof, numpy = figure.subplots(1, 2, sharey=True)
    _draw_bars(roof, rows, [row.roof_fraction for row in rows], BLUE, "{:.0%}", start=0)
    _draw_bars(numpy, rows, [row.ratios.get(NUMPY) for row in rows], ORANGE, "{:.3g}×", start=1)
    _draw_goals(roof, rows, ROOF)
    _draw_goals(numpy, rows, NUMPY)
    _label(roof, numpy)
    words = textwrap.fill(machine_in_words(report.machine), 150)
    figure.suptitle(f"dsv4 bench, backend {report.backend}, {report.threads} threads\n{words}", fontsize=9, color=DARK)
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png")


def _draw_bars(axes: Any, rows: list[Row], values: list[Spread | None], colour: str, number: str, start: float) -> None:
    """A bar from `start`, with its spread and its number, for each row that has one."""
    for place, value in enumerate(values):
        if value is None:
            continue
        below, above = max(0.0, value.median - value.low), max(0.0, value.high - value.median)
        axes.barh(place, value.median - start, left=start, height=0.7, color=colour)
        axes.errorbar(value.median, place, xerr=[[below], [above]], color=DARK, linewidth=1, capsize=2)
        axes.annotate(
            number.format(value.median),
            (max(value.median, value.high), place),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=DARK,
        )
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
    axes.set_ylim(-0.7, len(rows) - 0.3)


def _draw_goals(axes: Any, rows: list[Row], against: str) -> None:
    for place, row in enumerate(rows):
        for verdict in row.verdicts:
            if verdict.goal.against == against:
                axes.plot([verdict.goal.least] * 2, [place - 0.42, place + 0.42], color=DARK, linewidth=2)


def _label(roof: Any, numpy: Any) -> None:
    roof.set_xlabel("fraction of the read bandwidth measured in turns (goal: black line)", fontsize=8)
    roof.axvline(1, color=GREY, linestyle=":", linewidth=1)
    roof.set_xlim(left=0, right=max(1.15, roof.get_xlim()[1]))
    numpy.set_xlabel("how many times as long NumPy takes (goal: black line)", fontsize=8)
    numpy.set_xscale("log")
    numpy.axvline(1, color=GREY, linestyle=":", linewidth=1)
    numpy.set_xlim(left=min(0.7, numpy.get_xlim()[0]), right=max(12.0, 2 * numpy.get_xlim()[1]))
    numpy.xaxis.set_major_formatter("{x:g}")
    for axes in (roof, numpy):
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(axis="x", color="#e5e5e5", linewidth=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
