"""`dsv4 logits` and `dsv4 verify`: what a model computes, for comparison with other implementations."""

import math
import os
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from dsv4.checkpoint import read_any_config
from dsv4.checkpoint.atomic import replacing
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
from dsv4.cli.compare4 import verify4
from dsv4.cli.compare41 import Models, verify41
from dsv4.cli.judging import judge
from dsv4.cli.progress import progress
from dsv4.cli.token_ids import first_pass, random_ids, read_ids
from dsv4.config41 import Config41
from dsv4.errors import DSV4Error, SettingError
from dsv4.loading import bundled_model, load
from dsv4.verify41_file import texts_of


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
    tokens = read_ids(ids)
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
    given = read_ids(ids) if ids else None
    directory = model or bundled_model()
    config = read_any_config(directory)
    chosen = backend or ("numpy" if against else "auto")
    if isinstance(config, Config41):
        tokens = random_ids(config, length) if given is None and not expected else given
        texts = [] if tokens is None else texts_of(tokens, first_pass(tokens))
        compared = verify41(Models(directory, config, chosen, against, fake_quant), texts, expected, save)
    else:
        loaded = only_v4(load(directory, chosen, fake_quant), "verify")
        other = only_v4(load(directory, against, fake_quant), "verify") if against else None
        compared = verify4(loaded, other, given, length, expected, save)
    if compared:
        judge(compared, tolerance, as_json)
