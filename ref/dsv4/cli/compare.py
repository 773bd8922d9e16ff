"""`dsv4 logits` and `dsv4 verify`: what a model computes, for comparison with other implementations."""

import math
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from dsv4.checkpoint import read_any_config
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
from dsv4.cli.compare41 import Models, verify41
from dsv4.cli.judging import judge
from dsv4.cli.progress import progress
from dsv4.config import Config
from dsv4.config41 import Config41
from dsv4.errors import DSV4Error, PromptError, SettingError, quoted
from dsv4.loading import bundled_model, load
from dsv4.verify import (
    compare,
    differences,
    layer_by_layer,
    read_results,
    trace,
    write_results,
)
from dsv4.verify41_file import texts_of
from dsv4.verify_dspark import holds_drafts, results_of_drafts, trace_dspark, without_settings

MOST_TOKEN = 2**63 - 1
"""What fits an array of integers; which tokens there are is the model's to say."""


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
    judged where nothing is rounded, their texts always. Results of V4.1 may be those of several texts, and those of the
    released decode loop, whose index keys are stale at times, are compared with such a loop. In JSON a number that is
    not finite is null.
    """
    if (against is not None) + (expected is not None) + (save is not None) != 1:
        raise SettingError("verify: expected one of --against BACKEND, --expected FILE and --save FILE")
    if tolerance is not None and not 0 <= tolerance < math.inf:
        raise SettingError(f"--tolerance: expected a finite number of at least 0, found {tolerance}")
    given = _read_ids(ids) if ids else None
    directory = model or bundled_model()
    config = read_any_config(directory)
    chosen = backend or ("numpy" if against else "auto")
    if isinstance(config, Config41):
        tokens = _random_ids(config, length) if given is None and not expected else given
        texts = [] if tokens is None else texts_of(tokens, _first_pass(tokens))
        models = Models(directory, config, chosen, against, fake_quant)
        if compared := verify41(models, texts, expected, save):
            judge(compared.found, tolerance, compared.rounds, as_json)
        return
    loaded = only_v4(load(directory, chosen, fake_quant), "verify")
    other = only_v4(load(directory, against, fake_quant), "verify") if against else None
    stored = read_results(expected, loaded.config) if expected else {}
    known_ids = stored.pop("input_ids", None)
    tokens = known_ids if given is None else given
    if tokens is None:
        tokens = _random_ids(loaded.config, length)
    prefill = stored["prefill.logits"].shape[1] if "prefill.logits" in stored else _first_pass(tokens)
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
    judge(found, tolerance, loaded.rounds, as_json)


def _random_ids(config: Config | Config41, length: int) -> npt.NDArray[np.integer[Any]]:
    """Two sequences of random tokens, the same each time."""
    shape = 2, min(length, config.max_position_embeddings)
    return np.random.default_rng(0).integers(0, config.vocab_size, shape)


def _first_pass(tokens: npt.NDArray[np.integer[Any]]) -> int:
    """How many tokens the first pass takes where no file says it: all but the last few."""
    return max(1, int(tokens.shape[1]) - 24)


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
