"""Comparing one run of a model with another: the same tokens, and the differences of every layer's results.

Each layer is also run on the expected output of the layer before, so that a difference belongs to the layer that
shows it. That matters most where activations are rounded: there a difference of 1e-7 can move a value across a rounding
boundary, and what follows drifts apart although every layer is right.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsv4.checkpoint.atomic import replacing
from dsv4.checkpoint.header import read_header
from dsv4.checkpoint.mapping import MappedFile
from dsv4.config import Config
from dsv4.errors import CheckpointError, PromptError, SettingError, shortened
from dsv4.model.language_model import LanguageModel
from dsv4.model.model import Model
from dsv4.ops.types import Array, Ints

Results = dict[str, npt.NDArray[Any]]
"""Results by name: "prefill.layers.0.attn.out" …, "prefill.logits", "decode.logits", "mtp.logits", …"""

SETS = ("topk", "indices")
"""How the names of results end whose rows may stand in any order."""

OF_A_TEXT = r"^p\d+\."
"""How the names of a text's results begin where there are several texts: "p0.prefill.logits"."""


@dataclass(frozen=True)
class Difference:
    """How far one result is from what was expected."""

    name: str
    worst: float
    """The largest |Δ|; for indices the number of rows whose sets differ, for other integers the number that differ."""
    relative: float
    """The root mean square of Δ over the standard deviation of what was expected; for integers the share of those."""

    @property
    def layer(self) -> str:
        """The part of the model that the result comes from: "layers.0", …, "prefill.logits", "decode.logits".

        Of V4.1, where results are those of several texts, it is the same part of each.
        """
        name = re.sub(OF_A_TEXT, "", self.name)
        parts = name.removeprefix("prefill.").split(".")
        return ".".join(parts[:2]) if parts[0] == "layers" else name


def compare(
    model: Model,
    reference: Model,
    ids: Ints,
    prefill: int,
    report: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> list[Difference]:
    """How far a model's results are from those of the same model on another backend, or in another dtype.

    ids [B, S] and prefill are those of `trace`, which both models run; each layer of `model` also runs on what it would
    get in `reference`. report: called after each of the three parts, with how many are done. Raises SettingError where
    the two models are one and the same, and so nothing could differ; PromptError as `trace` and `differences` do.
    """
    require_two(model, reference)
    results = trace(model, ids, prefill)
    report(1, 3, "whole passes")
    expected = trace(reference, ids, prefill)
    report(2, 3, f"whole passes of {reference.ops.name}")
    results |= layer_by_layer(model, ids, expected)
    report(3, 3, "layer by layer")
    return differences(results, expected)


def require_two(model: LanguageModel, reference: LanguageModel) -> None:
    """Raise SettingError where two models are one and the same, and so nothing could differ."""
    if _identity(model) == _identity(reference):
        name = model.ops.name
        raise SettingError(f"verify: expected two different backends to compare, found {name} on both sides")


def trace(model: Model, ids: Ints, prefill: int) -> Results:
    """Every layer's results for some tokens: one pass over the first ones, then the others one by one.

    ids [B, S] token ids; prefill: how many of them the first pass takes, 1 … S. Results of layers are those of the
    first sequence in the first pass; logits are those of all sequences. Raises PromptError as the model does.
    """
    if not 1 <= prefill <= ids.shape[1]:
        raise PromptError(f"prefill: expected 1 … {ids.shape[1]} tokens, found {prefill}")
    to_numpy = model.ops.to_numpy
    results: Results = {}

    def keep(name: str, result: Array | Ints) -> None:
        array = to_numpy(result)
        results[f"prefill.{name}"] = array[: len(array) // len(ids)]  # gate results are [B·S, k], others [B, …]

    cache = model.new_cache(len(ids))
    states = model.states(ids[:, :prefill], cache, observe=keep)
    results["prefill.logits"] = to_numpy(model.head(states))
    steps = [to_numpy(model(ids[:, t : t + 1], cache)) for t in range(prefill, ids.shape[1])]
    if steps:
        results["decode.logits"] = np.concatenate(steps, axis=1)
    if model.mtp and prefill > 1:
        results["mtp.logits"] = to_numpy(model.mtp_logits(states[:, :-1], ids[:, 1:prefill]))
    return results


def layer_by_layer(model: Model, ids: Ints, expected: Mapping[str, npt.NDArray[Any]]) -> Results:
    """The results of each layer on the expected output of the layer before, for the first sequence.

    ids [B, S]; expected: results of `trace`, of which "prefill.layers.N.out" [1, S', n, d] serve as inputs; a layer
    whose input is not there is left out. Layer 0 starts from the embedding. Raises PromptError as the model does.
    """
    results: Results = {}

    def keep(name: str, result: Array | Ints) -> None:
        results[f"prefill.{name}"] = model.ops.to_numpy(result)

    for number in range(len(model.layers)):
        before = expected.get(f"prefill.layers.{number - 1}.out")
        if before is not None:
            model.layer(number, np.array(before), ids[:1, : before.shape[1]], keep)
        elif number == 0:
            first = expected.get("prefill.layers.0.out", ids[:1])
            tokens = ids[:1, : first.shape[1]]
            model.layer(0, model.ops.to_numpy(model.first_streams(tokens)), tokens, keep)
    return results


def differences(found: Mapping[str, npt.NDArray[Any]], expected: Mapping[str, npt.NDArray[Any]]) -> list[Difference]:
    """How far each result that both hold is apart, in the order of `found`.

    SETS are compared as sets of each row. Raises PromptError where the shapes of a result differ, where a result
    is expected that was not found, and where none is expected.
    """
    unknown = [name for name in expected if name not in found]
    if unknown or not expected:
        named = unknown[0] if unknown else "none"
        known = shortened(", ".join(found))
        raise PromptError(f"expected results: expected results among {known}, found {named}")
    return [_difference(name, found[name], expected[name]) for name in found if name in expected]


def read_results(path: Path, config: Config) -> Results:
    """The results in a safetensors file, with the "input_ids" [B, T] that they are of.

    They are mapped, not read: what a comparison leaves out takes no memory, and none can be written to.

    Raises PromptError where the file is missing or foreign, or where input_ids or the streams that the layers of this
    configuration would be fed have another shape.
    """
    results = mapped_results(path)
    ids = results.get("input_ids")
    if ids is None or ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
        found = "none" if ids is None else f"{ids.dtype} {ids.shape}"
        raise PromptError(f"{path}: expected input_ids, integers [batch, length], found {found}")
    results["input_ids"] = np.array(ids)
    streams = config.hc_mult, config.hidden_size
    for number in range(config.num_hidden_layers):
        name = f"prefill.layers.{number}.out"
        shape = results[name].shape if name in results else (1, 1, *streams)
        if len(shape) != 4 or (shape[0], *shape[2:]) != (1, *streams) or shape[1] > ids.shape[1]:
            expected = f"[1, at most {ids.shape[1]}, {streams[0]}, {streams[1]}]"
            raise PromptError(f"{path}: {name}: expected shape {expected}, found {list(shape)}")
    return results


def mapped_results(path: Path) -> Results:
    """What a safetensors file holds, mapped. Raises PromptError where the file is missing or foreign."""
    try:
        entries = read_header(path)
        content = MappedFile(path)
        return {name: content.tensor(entry) for name, entry in entries.items()}
    except CheckpointError as error:
        raise PromptError(f"expected results to compare with: {error}") from error


def write_results(path: Path, results: Results) -> None:
    """Store results in a safetensors file, whole or not at all. Raises SettingError where that cannot be written."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with replacing(path) as temporary:
        try:
            save_file({name: np.ascontiguousarray(array) for name, array in results.items()}, temporary)
        except SafetensorError as error:
            raise OSError(str(error)) from error


def _difference(name: str, found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> Difference:
    if found.shape != expected.shape:
        raise PromptError(f"{name}: expected the shape {expected.shape}, found {found.shape}")
    if not expected.size:  # the scores of no entries
        return Difference(name, 0.0, 0.0)
    if np.issubdtype(found.dtype, np.integer):
        in_any_order = name.endswith(SETS)
        ours, theirs = (np.sort(each, axis=-1) if in_any_order else each for each in (found, expected))
        differs = (ours != theirs).any(axis=-1) if in_any_order else ours != theirs
        return Difference(name, float(differs.sum()), float(differs.mean()))
    delta = found.astype(np.float64) - expected
    spread = expected.std(dtype=np.float64)
    root_mean_square = float(np.sqrt(np.mean(delta**2)))
    relative = root_mean_square / spread if spread else (float("inf") if root_mean_square else 0.0)
    return Difference(name, float(np.abs(delta).max()), float(relative))


def _identity(model: LanguageModel) -> tuple[object, ...]:
    """What a model's results depend on; a backend is its class, by whatever name it was asked for."""
    return type(model.ops), model.checkpoint.directory.resolve(), model.rounds, model.dtype
