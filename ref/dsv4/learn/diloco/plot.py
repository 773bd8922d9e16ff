"""The event tape of a run as one picture: loss, goodput and bytes, by time."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from dsv4.checkpoint.atomic import replacing
from dsv4.errors import SettingError, TrainingError
from dsv4.learn.plot import COLOURS

WINDOW = 20.0
"""Seconds over which goodput is a mean."""


def draw(tape: Sequence[Mapping[str, Any]], learners: int, file: Path) -> None:
    """Each learner's loss, the share of learners' time in which they train, and what was sent.

    tape: lines of a run's tape; learners: M; file: where the PNG goes. Raises SettingError without matplotlib or where
    the file cannot be written, TrainingError for a tape without a step.
    """
    if find_spec("matplotlib") is None:
        raise SettingError("diloco train: expected matplotlib for --plot, found none: pip install 'dsv4[train]'")
    steps = [line for line in tape if line["event"] == "step"]
    if not steps:
        raise TrainingError("tape: expected at least one step, found none")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained", dpi=110)
    loss, share, sent = figure.subplots(3, 1, sharex=True, height_ratios=[3, 1, 1])
    for m in range(learners):
        own = [line for line in steps if line["learner"] == m]
        times, losses = ([line[key] for line in own] for key in ("time", "loss"))
        loss.plot(times, losses, color=COLOURS[m % len(COLOURS)], linewidth=1, label=f"learner {m}")
    loss.set_ylabel("loss (nats)")
    loss.legend(fontsize=8, loc="upper right")
    moments = np.linspace(0, max(float(line["time"]) for line in tape), 200)
    share.plot(moments, goodput(steps, learners, moments), color=COLOURS[0])
    share.set_ylabel("goodput")
    share.set_ylim(0, 1.05)
    merges = [line for line in tape if line["event"] == "merged"]
    for place, key in enumerate(("up", "down")):
        sent.plot(
            [line["time"] for line in merges], [line[key] / 1e6 for line in merges], color=COLOURS[place], label=key
        )
    sent.set_ylabel("sent (MB)")
    sent.legend(fontsize=8, loc="upper left")
    sent.set_xlabel("time (s)")
    for panel in (loss, share, sent):
        panel.grid(alpha=0.25)
        for line in tape:
            if line["event"] == "killed":
                panel.axvline(line["time"], color="#b5474b", linewidth=1, linestyle=":")
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png")


def goodput(steps: Sequence[Mapping[str, Any]], learners: int, times: Any, window: float = WINDOW) -> Any:
    """The share of all learners' time in which they did a step that was finished, in the window before each time.

    steps: lines of steps, each of which ends at its `time` and took its `seconds`; times [n]. Returns [n] float.
    """
    ends = np.array([line["time"] for line in steps])
    begins = ends - np.array([line["seconds"] for line in steps])
    shares = []
    for time in np.asarray(times, float):
        start = max(0.0, time - window)
        within = np.clip(np.minimum(ends, time) - np.maximum(begins, start), 0, None).sum()
        shares.append(within / (learners * (time - start)) if time > start else 0.0)
    return np.array(shares)
