"""`dsv4 verify` for a model of V4."""

from pathlib import Path

from dsv4.cli.judging import Compared
from dsv4.cli.progress import progress
from dsv4.cli.token_ids import first_pass, random_ids
from dsv4.model.model import Model
from dsv4.ops.types import Ints
from dsv4.verify import Results, compare, differences, layer_by_layer, read_results, trace, write_results
from dsv4.verify_dspark import holds_drafts, results_of_drafts, trace_dspark, without_settings


def verify4(
    model: Model, other: Model | None, ids: Ints | None, length: int, expected: Path | None, save: Path | None
) -> Compared | None:
    """Compare with the other model or with stored results; None where results were saved.

    ids: [B, S], before those of the stored results; without either, `length` random ones.
    """
    stored = read_results(expected, model.config) if expected else {}
    known = stored.pop("input_ids", None)
    tokens = known if ids is None else ids
    if tokens is None:
        tokens = random_ids(model.config, length)
    prefill = stored["prefill.logits"].shape[1] if "prefill.logits" in stored else first_pass(tokens)
    with progress("verifying") as report:
        if other is not None:
            return Compared(compare(model, other, tokens, prefill, report), model.rounds)
        results = trace(model, tokens, prefill)
        if holds_drafts(stored):
            results |= trace_dspark(model, tokens, stored)
            stored = without_settings(stored)
        report(1, 2, "whole passes")
        if save:
            _save(model, tokens, prefill, results, save)
            return None
        found = differences(results | layer_by_layer(model, tokens, stored), stored)
        report(2, 2, "layer by layer")
    return Compared(found, model.rounds)


def _save(model: Model, tokens: Ints, prefill: int, results: Results, path: Path) -> None:
    """Write the results with the ids, and with what a drafter drafts behind the first pass."""
    drafts = results_of_drafts(model, tokens, prefill) if model.dspark and prefill < tokens.shape[1] else {}
    write_results(path, {"input_ids": tokens} | results | drafts)
    print(f"wrote {path}: {len(results) + len(drafts)} results")
