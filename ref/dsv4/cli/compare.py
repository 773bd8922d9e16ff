"""`dsv4 logits` and `dsv4 verify`: what a model computes, for comparison with other implementations."""

import json
import math
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from dsv4.checkpoint.atomic import replacing
from dsv4.checkpoint.input_files import read_json
from dsv4.cli.app import (
    BACKEND_NAMES,
    BackendOption,
    FakeQuantOption,
    JsonOption,
    Memory,
    ModelArgument,
    app,
    bounded,
    only_v4,
    reading_of,
)
from dsv4.cli.ending import DONE, TOO_FAR
from dsv4.cli.progress import progress
from dsv4.config import Config
from dsv4.errors import DSV4Error, PromptError, SettingError, quoted
from dsv4.loading import load
from dsv4.verify import (
    Difference,
    Results,
    compare,
    differences,
    layer_by_layer,
    read_results,
    trace,
    write_results,
)
from dsv4.verify_dspark import holds_drafts, results_of_drafts, trace_dspark, without_settings

MOST_TOKEN = 2**63 - 1
"""What fits an array of integers; which tokens there are is the model's to say."""

OF_WHOLE_PASSES = ("logits", "main_hidden")
"""How the names of results end to which every layer has added its differences."""


@app.command()
def logits(
    ids: Annotated[Path, typer.Option("--ids", help="JSON file of token ids: one list, or lists of equal length.")],
    out: Annotated[Path, typer.Option("--out", help="NumPy file to write: [batch, length, vocab] float32.")],
    model: ModelArgument = None,
    backend: BackendOption = "auto",
    chunk: Annotated[int | None, typer.Option("--chunk", help="Tokens in each pass.", show_default="all")] = None,
    fake_quant: FakeQuantOption = "auto",
    memory: Memory = None,
) -> None:
    """Write the logits of every position to a file."""
    tokens = _read_ids(ids)
    if os.path.realpath(out) == os.path.realpath(ids):
        raise SettingError(f"--out: expected another file than --ids, found {out}")
    if chunk is not None and chunk < 1:
        raise SettingError(f"--chunk: expected at least 1, found {chunk}")
    loaded = load(model, backend, fake_quant, memory=bounded(memory))
    cache = loaded.new_cache(len(tokens), max_rollback=0)
    width = chunk or tokens.shape[1]
    parts = []
    with progress("tokens") as report:
        for start in range(0, tokens.shape[1], width):
            parts.append(loaded.ops.to_numpy(loaded(tokens[:, start : start + width], cache)))
            report(min(start + width, tokens.shape[1]), tokens.shape[1], reading_of(loaded))
    result = np.concatenate(parts, axis=1)
    bad = np.argwhere(~np.isfinite(result))
    if len(bad):
        sequence, position, token = bad[0]
        value = result[sequence, position, token]
        raise DSV4Error(f"logits: expected finite numbers, found {value} at position {position} of sequence {sequence}")
    with replacing(out) as temporary, temporary.open("wb") as file:
        np.save(file, result)
    print(f"wrote {out}: {list(tokens.shape)} tokens, {loaded.config.vocab_size} logits each")
    if words := reading_of(loaded):
        print(words, file=sys.stderr)


@app.command()
def verify(
    model: ModelArgument = None,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            "-b",
            help=f"The backend whose results to compare or save: {BACKEND_NAMES}",
            show_default="numpy with --against, otherwise auto",
        ),
    ] = None,
    against: Annotated[str | None, typer.Option("--against", help="Another backend to compare with.")] = None,
    expected: Annotated[
        Path | None, typer.Option("--expected", help="The safetensors file of results to compare with.")
    ] = None,
    save: Annotated[Path | None, typer.Option("--save", help="Write the results to this safetensors file.")] = None,
    ids: Annotated[Path | None, typer.Option("--ids", help="JSON file of token ids to compare on.")] = None,
    length: Annotated[int, typer.Option("--length", min=1, help="Without --ids: how many random tokens.")] = 274,
    fake_quant: FakeQuantOption = "auto",
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            help="The largest relative difference allowed.",
            show_default="1e-5, or 1e-2 where activations are rounded",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a model's results, layer by layer, with another backend's or with stored ones.

    Each layer is given the expected output of the layer before, so that a difference is its own; the logits are those
    of whole passes. Differences are relative to the standard deviation of what is expected. Exits with 1 where one is
    too large; whole passes may differ by ten times the tolerance where activations are rounded. Of stored results of a
    DSpark drafter, drafts are computed from the stored states of the main model; the rounds of speculative runs are
    judged where nothing is rounded, their texts always. In JSON a number that is not finite is null.
    """
    if (against is not None) + (expected is not None) + (save is not None) != 1:
        raise SettingError("verify: expected one of --against BACKEND, --expected FILE and --save FILE")
    if tolerance is not None and not 0 <= tolerance < math.inf:
        raise SettingError(f"--tolerance: expected a finite number of at least 0, found {tolerance}")
    loaded = only_v4(load(model, backend or ("numpy" if against else "auto"), fake_quant), "verify")
    other = only_v4(load(model, against, fake_quant), "verify") if against else None
    stored = read_results(expected, loaded.config) if expected else {}
    known_ids = stored.pop("input_ids", None)
    tokens = _read_ids(ids) if ids else known_ids
    if tokens is None:
        tokens = _random_ids(loaded.config, length)
    prefill = _prefill(tokens, stored)
    with progress("verifying") as report:
        if other is not None:
            found = compare(loaded, other, tokens, prefill, report)
        else:
            results = trace(loaded, tokens, prefill)
            if holds_drafts(stored):
                results |= trace_dspark(loaded, tokens, stored)
                stored = without_settings(stored)
            report(1, 2, "whole passes")
            if save:
                if loaded.dspark and prefill < tokens.shape[1]:
                    results |= results_of_drafts(loaded, tokens, prefill)
                write_results(save, {"input_ids": tokens} | results)
                print(f"wrote {save}: {len(results)} results")
                return
            found = differences(results | layer_by_layer(loaded, tokens, stored), stored)
            report(2, 2, "layer by layer")
    _judge(found, tolerance, loaded.rounds, as_json)


def _judge(found: list[Difference], tolerance: float | None, rounds: bool, as_json: bool) -> None:
    """Print the differences, and exit with 1 where one is larger than allowed."""
    limit = tolerance if tolerance is not None else (1e-2 if rounds else 1e-5)
    whole_passes = 10 * limit if rounds else limit
    allowed = {each.name: whole_passes if each.name.endswith(OF_WHOLE_PASSES) else limit for each in found}
    if rounds:  # one flip of the main model changes what a round drafts, and not what the text is
        allowed |= {name: math.inf for name in allowed if name.startswith("spec.") and not name.endswith("text")}
    if as_json:
        print(json.dumps([_fields(each, allowed) for each in found], indent=1, allow_nan=False))
    else:
        _print_table(found, allowed)
    raise typer.Exit(DONE if all(each.relative <= allowed[each.name] for each in found) else TOO_FAR)


def _fields(difference: Difference, allowed: dict[str, float]) -> dict[str, Any]:
    """A difference for JSON, which has no word for what is not finite."""
    fields = vars(difference) | {"allowed": allowed[difference.name]}
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in fields.items()
    }


def _worst_per_layer(found: list[Difference]) -> list[Difference]:
    """The result of each layer that is farthest off, in the model's order."""
    worst: dict[str, Difference] = {}
    for difference in found:
        known = worst.get(difference.layer)
        if known is None or not difference.relative <= known.relative:  # a NaN is the worst of all
            worst[difference.layer] = difference
    return list(worst.values())


def _print_table(found: list[Difference], allowed: dict[str, float]) -> None:
    worst = _worst_per_layer(found)
    title = "largest difference of each layer"
    width = max(len(title), *(len(difference.name) for difference in worst))
    print(f"{title:<{width}}{'max |Δ|':>11}{'relative':>11}{'allowed':>9}")
    for difference in worst:
        limit = allowed[difference.name]
        verdict = "" if difference.relative <= limit else "  too large"
        print(f"{difference.name:<{width}}{difference.worst:>11.3g}{difference.relative:>11.3g}{limit:>9.3g}{verdict}")
    print(f"{len(found)} results compared")


def _random_ids(config: Config, length: int) -> npt.NDArray[np.integer[Any]]:
    """Two sequences of random tokens, the same each time."""
    shape = 2, min(length, config.max_position_embeddings)
    return np.random.default_rng(0).integers(0, config.vocab_size, shape)


def _prefill(tokens: npt.NDArray[np.integer[Any]], stored: Results) -> int:
    """How many tokens the first pass takes: as many as the stored one did, or all but the last few."""
    known = stored.get("prefill.logits")
    return int(known.shape[1]) if known is not None else max(1, tokens.shape[1] - 24)


def _read_ids(path: Path) -> npt.NDArray[np.integer[Any]]:
    """Token ids [B, S] from a JSON file with one list or several equally long ones."""
    expected = "one list of token ids or equal lists"
    content = read_json(path, PromptError, f"JSON with {expected}")
    rows = content if isinstance(content, list) and content and isinstance(content[0], list) else [content]
    if not all(isinstance(row, list) for row in rows):
        raise PromptError(f"{path}: expected {expected}, found {quoted(content)}")
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1 or lengths[0] == 0:
        raise PromptError(f"{path}: expected {expected}, found lists of length {quoted(lengths)}")
    for place, row in enumerate(rows):
        wrong = [token for token in row if type(token) is not int or abs(token) > MOST_TOKEN]
        if wrong:
            raise PromptError(f"{path}: list {place}: expected integers as token ids, found {quoted(wrong[0])}")
    return np.array(rows)
