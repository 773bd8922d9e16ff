"""The official results of V4.1 in tests/data/golden, and the model that they are of."""

from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from dsv4.checkpoint import open_checkpoint
from dsv4.model.span import Span
from dsv4.model41.model import Model41
from dsv4.ops import Ops

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
PROMPTS = ("p0", "p1", "p2", "p3")
STEPS = 24


@cache
def expected(name: str) -> dict[str, np.ndarray]:
    """The official results, under their names."""
    return load_file(GOLDEN / name / "expected.safetensors")


def model(name: str, ops: Ops) -> Model41:
    """The model of which they are; the classes of its tokens are those of the file, as it has no tokenizer."""
    checkpoint = open_checkpoint(GOLDEN / name)
    checkpoint.validate()
    return Model41(checkpoint, ops, checkpoint.config.quantised, token_classes=expected(name)["engram.token_map"])


def prompt(name: str, row: str) -> tuple[np.ndarray, int]:
    """The tokens of a prompt with what follows it, and the prompt's length."""
    return expected(name)[f"{row}.input_ids"], int(expected(name)[f"{row}.length"][0])


class Seen(dict):
    """An observer that keeps the last result of each name, on the host."""

    def __init__(self, ops: Ops) -> None:
        super().__init__()
        self.ops = ops

    def __call__(self, name, result) -> None:
        self[name] = self.ops.to_numpy(result)


def slots(model: Model41, rings) -> np.ndarray:
    """[stages, w, c] the rings of one sequence by slot, as they are stored: zeros where there is no key yet."""
    window, length = model.config.sliding_window, int(rings.lengths[0])
    here = Span(rings.lengths, np.zeros(1, np.int64), 1, model.ops.asarray)
    newest = np.stack([model.ops.to_numpy(ring.window.newest(here))[0] for ring in rings.layers])
    positions = length - window + np.arange(window)
    found = np.zeros_like(newest)
    found[:, positions[positions >= 0] % window] = newest[:, positions >= 0]
    return found


def chosen(rows: np.ndarray) -> list[set[int]]:
    """Entry numbers as sets: their order does not matter, and −1 is none."""
    return [set(row[row >= 0].tolist()) for row in rows]
