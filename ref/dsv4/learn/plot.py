"""The log of a training run as one picture."""

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from dsv4.checkpoint.atomic import replacing
from dsv4.errors import SettingError, TrainingError

COLOURS = ("#3b6ea5", "#d98032", "#5a9367", "#8e6c8a", "#9a9a9a", "#b5474b")

Curves = dict[str, tuple[list[int], list[float]]]
"""Steps and values by what they are called."""


def draw(log: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Losses, learning rate, load of the busiest expert, where the indexers stand, and the gradient norm, by step.

    log: the lines of a run's log, with null for numbers that were not finite; file: where the PNG goes. Raises
    SettingError without matplotlib or where the file cannot be written, TrainingError for a log without a line.
    """
    names = {name for line in log for name in line["losses"]} - {"balance"}
    panels = {
        "loss (nats)": {name: curve(log, lambda line, name=name: line["losses"].get(name)) for name in sorted(names)},
        "learning rate": {"η": curve(log, lambda line: line["learning_rate"])},
        "busiest expert\n(1: even load)": _each(log, "load"),
        "indexer\n(0: chance, 1: best)": _each(log, "standing"),
        "gradient norm": {"‖g‖": curve(log, lambda line: line["gradient_norm"])},
    }
    draw_panels(log, file, panels, "dsv4 train")


def draw_panels(log: Sequence[Mapping[str, Any]], file: Path, panels: Mapping[str, Curves], title: str) -> None:
    """Panels below each other, the first of them three times as high, by what they show. Raises as `draw`."""
    if find_spec("matplotlib") is None:
        raise SettingError("train plot: expected matplotlib, found none installed: pip install 'dsv4[train]'")
    if not log:
        raise TrainingError("log: expected at least one step, found none")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 12), layout="constrained", dpi=110)
    axes = figure.subplots(len(panels), 1, sharex=True, height_ratios=[3, *[1] * (len(panels) - 1)])
    for panel, (label, curves) in zip(axes, panels.items(), strict=True):
        _panel(panel, label, curves)
        _mark_stages(panel, log)
    axes[-1].set_xlabel("step")
    figure.suptitle(title)
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png")


def _panel(axes: Any, label: str, curves: Curves) -> None:
    """Thin lines as measured, thick ones smoothed over fifty values."""
    known = {name: curve for name, curve in curves.items() if curve[1]}
    for number, (name, (steps, values)) in enumerate(known.items()):
        colour, width = COLOURS[number % len(COLOURS)], min(50, max(1, len(values) // 4))
        axes.plot(steps, values, color=colour, linewidth=0.6, alpha=0.35)
        smooth = np.convolve(values, np.full(width, 1 / width), "valid")
        axes.plot(steps[width - 1 :], smooth, color=colour, linewidth=1.6, label=name)
    axes.set_ylabel(label)
    axes.grid(alpha=0.25)
    if len(known) > 1:
        axes.legend(fontsize=8, loc="upper right")


def _mark_stages(axes: Any, log: Iterable[Mapping[str, Any]]) -> None:
    """A line where another stage begins, and red where training went back."""
    before = None
    for line in log:
        if before not in (None, line["kind"]):
            axes.axvline(line["step"], color="#333333", linewidth=0.8, linestyle=":")
        if line["verdict"] != "go on":
            axes.axvline(line["step"], color="#b5474b", linewidth=1)
        before = line["kind"]


def _each(log: Sequence[Mapping[str, Any]], key: str) -> Curves:
    """A curve for each name below a key of the lines."""
    names = sorted({name for line in log for name in line[key]})
    return {name.rstrip("."): curve(log, lambda line, name=name: line[key].get(name)) for name in names}


def curve(log: Sequence[Mapping[str, Any]], value: Any) -> tuple[list[int], list[float]]:
    """Steps, and what a function gives of their lines: without those for which it gives None."""
    found = [(line["step"], value(line)) for line in log]
    known = [(step, number) for step, number in found if number is not None]
    return [step for step, _ in known], [number for _, number in known]
