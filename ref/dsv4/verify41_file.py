"""The file of a V4.1 model's results: the texts in it, what it may hold, and what of it can be compared."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsv4.config41 import Config41
from dsv4.errors import PromptError
from dsv4.ops.types import Ints
from dsv4.verify import Results, mapped_results

SETTINGS = ("input_ids", "length", "draft.t", "draft.stages.t")
"""What a file says about the results of a text, and what is no result."""


@dataclass(frozen=True)
class Text:
    """Tokens whose results are compared: one pass over the first ones, then the others one by one."""

    name: str
    """p0, p1, …"""
    ids: Ints
    """[T]"""
    length: int
    """S: how many of them the first pass takes."""

    @property
    def steps(self) -> int:
        """How many are read one by one: all others but the last, which only follows."""
        return max(len(self.ids) - self.length - 1, 0)

    @property
    def draft_positions(self) -> Ints:
        """t: behind which drafts are made, of the token at t + 1; not behind the first, which has none before it."""
        return np.arange(max(self.length - 1, 1), len(self.ids) - 1)

    @property
    def stage_positions(self) -> Ints:
        """Those of which the stages' outputs are stored."""
        return self.draft_positions[:1]


def texts_of(ids: Ints, length: int) -> list[Text]:
    """Rows of ids [B, T] as texts whose first pass takes so many of them."""
    return [Text(f"p{number}", row, length) for number, row in enumerate(ids)]


def settings_of(text: Text) -> Results:
    """What a file says about a text."""
    return {"input_ids": text.ids, "length": np.array([text.length])}


def read_results41(path: Path, config: Config41) -> tuple[Results, list[Text]]:
    """The results in a safetensors file, mapped, and the texts that they are of.

    Raises PromptError where the file is missing or foreign, has no texts, or where streams, shares or states that
    layers or drafts would be computed from do not fit a text and this configuration.
    """
    results = mapped_results(path)
    names = sorted({found[1] for name in results if (found := re.match(r"(p\d+)\.", name))}, key=lambda p: int(p[1:]))
    if not names:
        raise PromptError(f"{path}: expected results of texts, such as p0.input_ids and p0.prefill.logits, found none")
    texts = [_text(path, name, results) for name in names]
    for text in texts:
        _check_inputs(path, text, results, config)
    return results, texts


def comparable(results: Mapping[str, npt.NDArray[Any]], texts: Sequence[Text], config: Config41) -> Results:
    """The results as two runs can be compared: without what is no result, and in one order where the order is free.

    Pools count for visible entries, since a block that reaches behind them may be in it whole or in part. The weights
    of experts go by the experts' numbers.
    """
    lengths = {text.name: text.length for text in texts}
    found: Results = {}
    for name, one in results.items():
        text, _, of_text = name.partition(".")
        if text in lengths and of_text in SETTINGS:
            continue
        if name.endswith("candidates"):
            ratio = config.compress_ratios[int(of_text.split(".")[2])]
            visible = (np.arange(lengths[text]) + 1)[:, None] // ratio > np.arange(one.shape[1])
            one = np.where(visible, one, 0)
        elif name.endswith("gate.weights"):
            indices = results.get(name.replace("weights", "indices"))
            one = one if indices is None else np.take_along_axis(one, np.argsort(indices, axis=1), axis=1)
        found[name] = one
    return found


def _text(path: Path, name: str, results: Results) -> Text:
    ids, length = results.get(f"{name}.input_ids"), results.get(f"{name}.length")
    if ids is None or ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        found = "none" if ids is None else f"{ids.dtype} {ids.shape}"
        raise PromptError(f"{path}: {name}.input_ids: expected integers [length], found {found}")
    if length is None or length.shape != (1,) or not 1 <= length[0] <= len(ids):
        found = "none" if length is None else f"{length.tolist()}"
        raise PromptError(f"{path}: {name}.length: expected [a number from 1 to {len(ids)}], found {found}")
    return Text(name, np.array(ids, np.int64), int(length[0]))


def _check_inputs(path: Path, text: Text, results: Results, config: Config41) -> None:
    """Raises PromptError for what a part would be computed from and is of another shape."""
    length, streams = text.length, (config.hc_mult, config.hidden_size)
    targets = len(config.dspark.target_layer_ids) if config.dspark else 0
    shapes: dict[str, tuple[int, ...]] = {
        "prefill.main_hidden": (length, targets * config.hidden_size),
        "decode.main_hidden": (text.steps, targets * config.hidden_size),
    }
    for number in range(config.num_hidden_layers):
        shapes[f"prefill.layers.{number}.out"] = (length, *streams)
        shapes[f"prefill.layers.{number}.pre_mix"] = (length, config.hc_mult)
    for name, shape in shapes.items():
        found = results.get(f"{text.name}.{name}")
        if found is not None and found.shape != shape:
            raise PromptError(f"{path}: {text.name}.{name}: expected shape {list(shape)}, found {list(found.shape)}")
    positions = results.get(f"{text.name}.draft.t", text.draft_positions)
    if not (np.isin(positions, np.arange(len(text.ids) - 1)).all() and (np.diff(positions) > 0).all()):
        expected = f"rising positions below {len(text.ids) - 1}"
        raise PromptError(f"{path}: {text.name}.draft.t: expected {expected}, found {positions.tolist()}")
