"""A report as a picture: for each row the fraction of the roof, and how many times as long the others take."""

import textwrap
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dsv4.checkpoint.atomic import replacing
from dsv4.errors import SettingError
from dsv4_accel.bench.case import ROOF, Goal, Row
from dsv4_accel.bench.machine import machine_in_words
from dsv4_accel.bench.run import Report
from dsv4_accel.bench.stage import NUMPY, OURS
from dsv4_accel.bench.timing import Spread

BLUE, ORANGE, GREY, DARK = "#3b6ea5", "#d98032", "#9a9a9a", "#333333"

MARKERS = "osD^vPX*"
"""One for each contestant that has no bars."""


def require_matplotlib() -> None:
    """Raises SettingError where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise SettingError("--plot: expected matplotlib, found none installed: pip install 'dsv4[bench]'")


def draw(report: Report, file: Path) -> None:
    """Write the picture as a PNG file. Raises SettingError where it cannot be written."""
    require_matplotlib()
    from matplotlib.figure import Figure

    rows = report.rows[::-1]  # the first one on top
    figure = Figure(figsize=(14, 2.4 + 0.3 * len(rows)), layout="constrained", dpi=120)
    roof, others = figure.subplots(1, 2, sharey=True)
    _draw_bars(roof, [row.roof_fraction for row in rows], BLUE, start=0)
    _draw_bars(others, [row.ratios.get(NUMPY) for row in rows], ORANGE, start=1)
    _write_numbers(roof, [row.roof_fraction for row in rows], "{:.0%}")
    _write_numbers(others, [row.ratios.get(NUMPY) for row in rows], "{:.3g}×")
    _draw_markers(others, rows)
    _draw_goals(roof, rows, lambda goal: goal.against == ROOF)
    _draw_goals(others, rows, lambda goal: goal.against != ROOF)
    roof.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
    roof.set_ylim(-0.7, len(rows) - 0.3)
    _label(roof, others)
    words = textwrap.fill(machine_in_words(report.machine), 170)
    figure.suptitle(f"dsv4 bench, backend {report.backend}, {report.threads} threads\n{words}", fontsize=9, color=DARK)
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png")


def _draw_bars(axes: Any, values: list[Spread | None], colour: str, start: float) -> None:
    """A bar from `start`, with its spread, for each row that has one."""
    for place, value in enumerate(values):
        if value is not None:
            axes.barh(place, value.median - start, left=start, height=0.7, color=colour)
            axes.plot([value.low, value.high], [place] * 2, color=DARK, linewidth=1)


def _write_numbers(axes: Any, values: list[Spread | None], number: str) -> None:
    """The medians in a column at the right edge, where nothing else is drawn."""
    for place, value in enumerate(values):
        if value is not None:
            at_the_edge = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center", "fontsize": 8}
            axes.text(1.0, place, number.format(value.median), color=DARK, **at_the_edge)


def _draw_markers(axes: Any, rows: list[Row]) -> None:
    """A mark for each contestant beside the row's own and NumPy, with its spread, and a legend of the marks."""
    names = list(dict.fromkeys(name for row in rows[::-1] for name in row.ratios if name != NUMPY))
    for number, name in enumerate(names):
        found = [(place, row.ratios[name]) for place, row in enumerate(rows) if name in row.ratios]
        places, values = [place for place, _ in found], [value for _, value in found]
        style = {"markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.6, "zorder": 3}
        marker = MARKERS[number % len(MARKERS)]
        [mark] = axes.plot([value.median for value in values], places, marker, label=name, **style)
        for place, value in found:
            axes.plot([value.low, value.high], [place] * 2, color=mark.get_color(), linewidth=1)
    if names:
        axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(names), frameon=False)


def _draw_goals(axes: Any, rows: list[Row], wanted: Callable[[Goal], bool]) -> None:
    """What is asked of the row's own contestant."""
    for place, row in enumerate(rows):
        for goal in (verdict.goal for verdict in row.verdicts):
            if wanted(goal) and goal.of in (OURS, row.lead):
                axes.plot([goal.least] * 2, [place - 0.42, place + 0.42], color=DARK, linewidth=2)


def _label(roof: Any, others: Any) -> None:
    roof.set_xlabel("fraction of the read bandwidth measured in turns (goals: black lines)", fontsize=8)
    roof.set_xlim(left=0, right=max(1.15, 1.12 * roof.get_xlim()[1]))
    others.set_xlabel("how many times as long NumPy (bars) and others (marks) take (goals: black lines)", fontsize=8)
    others.set_xscale("log")
    others.set_xlim(left=min(0.5, others.get_xlim()[0]), right=max(12.0, 4 * others.get_xlim()[1]))
    others.xaxis.set_major_formatter("{x:g}")
    for axes in (roof, others):
        axes.axvline(1, color=GREY, linestyle=":", linewidth=1)
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(axis="x", color="#e5e5e5", linewidth=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
