"""The log of a stage of post-training as one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dsv4.learn.plot import Curves, curve, draw_panels

REWARDS = ("reward", "score")


def draw_stage(log: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Losses, reward or score, shares of answers, their length, and the gradient norm, by step.

    log: the lines of a stage's log; file: where the PNG goes. Raises as `dsv4.learn.plot.draw`.
    """
    losses = sorted({name for line in log for name in line["losses"]})
    measures = sorted({name for line in log for name in line.get("measures", {})})
    shares = [name for name in measures if name not in (*REWARDS, "tokens")]
    panels = {"loss (nats)": _curves(log, "losses", losses)}
    if measures:
        panels["reward or score"] = _curves(log, "measures", [name for name in measures if name in REWARDS])
        panels["share of answers"] = _curves(log, "measures", shares)
        panels["tokens of an answer"] = _curves(log, "measures", ["tokens"])
    panels["gradient norm"] = {"‖g‖": curve(log, lambda line: line["gradient_norm"])}
    draw_panels(log, file, panels, "dsv4 posttrain")


def _curves(log: Sequence[Mapping[str, Any]], key: str, names: Sequence[str]) -> Curves:
    return {name: curve(log, lambda line, name=name: line[key].get(name)) for name in names}
