"""The results of a DSpark drafter: what it reads of the main model, its rings and drafts, and rounds of decoding.

Drafts are computed from the expected states of the main model, so that a difference is the drafter's own. V4.1's files
have drafts and rounds by the same names for each of their texts (`dsv4.verify41`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dsv4.errors import CheckpointError, PromptError
from dsv4.model.cache import Track
from dsv4.model.dspark import BlockDrafter, Draft, DraftBlock
from dsv4.model.language_model import LanguageModel
from dsv4.model.model import Model
from dsv4.model.span import Span
from dsv4.ops.types import Array, Ints
from dsv4.text.generate import generate
from dsv4.text.rounds import Round
from dsv4.verify import Results

SETTINGS = ("prefill.length", "prefill.main_hidden.start", "draft.t", "draft.stages.t")
"""What a file says about the results in it."""

ROUND: dict[str, Callable[[Round], Any]] = {
    "t": lambda one: one.position,
    "given": lambda one: one.given,
    "drafts": lambda one: one.drafts,
    "length": lambda one: one.length,
    "accepted": lambda one: one.accepted,
    "next": lambda one: one.following[0] if one.following else -1,
    "confidence": lambda one: one.confidence,
}
"""What is stored of each round of a greedy speculative run, under spec.full.rowB. or spec.cut.rowB."""


def holds_drafts(stored: Mapping[str, npt.NDArray[Any]]) -> bool:
    """Whether a file holds results of a DSpark drafter."""
    return "draft.ids" in stored


def without_settings(stored: Results) -> Results:
    """The results of a file without what it says about them."""
    known = {*SETTINGS, "spec.cut.threshold", "short.draft.t", "short.input_ids"}
    return {name: array for name, array in stored.items() if name not in known}


def trace_dspark(model: Model, ids: Ints, stored: Mapping[str, npt.NDArray[Any]]) -> Results:
    """The drafter's results by the names of a file that holds expected ones, for its tokens ids [B, T].

    stored: the file, with SETTINGS; with names below `short.` the results of a second prompt. Raises CheckpointError
    for a model without a DSpark drafter, PromptError where the file lacks what the drafts are computed from.
    """
    if model.dspark is None:
        raise CheckpointError(f"{model.checkpoint.directory}: expected a DSpark drafter (mtp.*), found none")
    results: Results = {}
    for prefix, tokens in (("", ids), ("short.", stored.get("short.input_ids"))):
        part = {name.removeprefix(prefix): array for name, array in stored.items() if name.startswith(prefix)}
        if tokens is not None and "draft.ids" in part:
            found = _states(model, tokens, part) | drafts_of(model, model.dspark, tokens, part)
            results |= {prefix + name: array for name, array in found.items() if name in part}
    for name in stored:
        if name.startswith("spec.") and name.endswith(".t"):
            results |= _rounds(model, ids, name.removesuffix("t"), stored)
    return results


def results_of_drafts(model: Model, ids: Ints, prefill: int) -> Results:
    """A drafter's results to store, SETTINGS among them: of drafts behind the first pass and behind each later token.

    ids [B, T]; prefill: how many of the tokens the first pass takes, 1 … T − 1.
    """
    assert model.dspark is not None
    steps = ids.shape[1] - prefill
    settings = {
        "prefill.length": np.array([prefill]),
        "prefill.main_hidden.start": np.array([0]),
        "draft.t": np.arange(prefill - 1, prefill + steps - 1),
        "draft.stages.t": np.array([prefill - 1]),
    }
    sizes = {"prefill.logits": np.empty((1, prefill, 0)), "decode.logits": np.empty((1, steps, 0))}
    found = _states(model, ids, settings | sizes)
    return settings | found | drafts_of(model, model.dspark, ids, settings | found)


def drafts_of(model: LanguageModel, dspark: BlockDrafter, ids: Ints, stored: Mapping[str, npt.NDArray[Any]]) -> Results:
    """Rings and drafts from stored states of the main model.

    ids [B, T]; stored: prefill.main_hidden and decode.main_hidden [B, …, M·d], and draft.t, the positions behind which
    is drafted, in rising order. Raises PromptError where one of them is missing.
    """
    for name in ("prefill.main_hidden", "decode.main_hidden", "draft.t"):
        if name not in stored:
            raise PromptError(f"expected results: expected {name}, which drafts are computed from, found none")
    main_hidden = np.concatenate([stored["prefill.main_hidden"], stored["decode.main_hidden"]], axis=1)
    start, points = _start(stored), stored["draft.t"].tolist()
    stages_at = stored["draft.stages.t"].tolist() if "draft.stages.t" in stored else []
    rings, of_prefill = (_rings_from(model, ids, start) for _ in range(2))
    _read(model, dspark, stored["prefill.main_hidden"], of_prefill)
    results: Results = {"prefill.rings": _slots(model, of_prefill)}
    main_x: list[Array] = []
    blocks: list[tuple[DraftBlock, Draft]] = []
    outs: list[list[Array | Ints]] = []
    for t in points:
        new = main_hidden[:, int(rings.lengths[0]) - start : t + 1 - start]
        main_x.append(_read(model, dspark, new, rings)[:, -1])
        given, seen = ids[:, t + 1], dict[str, Array | Ints]()
        block = dspark.block(given, rings.lengths, rings.layers, seen.__setitem__)
        blocks.append((block, dspark.draft(block, model.ops.asarray(given), lambda logits: logits.argmax(axis=-1))))
        if t in stages_at:
            outs.append([seen[f"{stage.name}out"] for stage in dspark.stages])
    if points:
        results["decode.rings"] = _slots(model, rings)
        results |= _stacked(model, ids, points, main_x, blocks)
    if outs:  # [stages, B, points, γ, n, d]
        results["draft.stages.out"] = np.stack([[model.ops.to_numpy(one) for one in out] for out in outs], axis=2)
    return results


def greedy_rounds(
    model: LanguageModel, prompt: Ints, length: int, threshold: float = 0.0
) -> tuple[list[int], list[Round]]:
    """A greedy speculative run behind a prompt [S]: its first `length` tokens, and the rounds that gave them.

    threshold: the draft_threshold of `generate`.
    """
    room = model.config.dspark.block_size + 1 if model.config.dspark else 1  # for drafts in the last round, too
    run = generate(
        model, prompt, length + room, temperature=0, stop_ids=[], speculative=True, draft_threshold=threshold
    )
    rounds: list[Round] = []
    run.rounds.watch = rounds.append
    text = [token.id for token in run]
    return text[:length], rounds


def in_columns(rounds: Sequence[Round], expected: Mapping[str, npt.NDArray[Any]]) -> Results:
    """What ROUND tells of each round, of the shapes that are expected; −1 for rounds that there were not."""
    columns: Results = {}
    for name, like in expected.items():
        columns[name] = np.full(like.shape, -1, like.dtype)
        for place, one in enumerate(rounds[: len(like)]):
            value = np.asarray(ROUND[name](one))
            if value.shape == like.shape[1:]:  # the last rounds of a text may have fewer drafts, or none
                columns[name][place] = value
    return columns


def _states(model: Model, ids: Ints, stored: Mapping[str, npt.NDArray[Any]]) -> Results:
    """Whole passes of the main model: logits, and what the drafter reads of it."""
    prefill, steps = (stored[f"{part}.logits"].shape[1] for part in ("prefill", "decode"))
    start, to_numpy = _start(stored), model.ops.to_numpy
    seen: list[npt.NDArray[Any]] = []

    def keep(name: str, result: Array | Ints) -> None:
        if name == "main_hidden":
            seen.append(to_numpy(result))

    cache = model.new_cache(len(ids), max_rollback=0)
    chunks = [ids[:, :prefill], *(ids[:, t : t + 1] for t in range(prefill, prefill + steps))]
    logits = [to_numpy(model(chunk, cache, observe=keep)) for chunk in chunks]
    return {
        "prefill.logits": logits[0],
        "decode.logits": np.concatenate(logits[1:], axis=1),
        "prefill.main_hidden": seen[0][:, start:],
        "decode.main_hidden": np.concatenate(seen[1:], axis=1),
    }


def _stacked(
    model: LanguageModel, ids: Ints, points: list[int], main_x: list[Array], blocks: list[tuple[DraftBlock, Draft]]
) -> Results:
    """The drafts of all points by their names, [B, points, …]; their ids begin with the given token."""
    to_numpy = model.ops.to_numpy

    def stack(several: Sequence[Array | Ints]) -> npt.NDArray[Any]:
        return np.stack([to_numpy(one) for one in several], axis=1)

    given = ids[:, [t + 1 for t in points], None]
    return {
        "draft.main_x": stack(main_x),
        "draft.base_logits": stack([block.base for block, _ in blocks]),
        "draft.logits": stack([draft.logits for _, draft in blocks]),
        "draft.ids": np.concatenate([given, stack([draft.ids for _, draft in blocks])], axis=-1),
        "draft.confidence": stack([draft.confidence for _, draft in blocks]),
        "draft.collapsed": stack([block.hidden for block, _ in blocks]),
    }


def _rings_from(model: LanguageModel, ids: Ints, start: int) -> Track:
    """Empty rings for texts [B, T] of which the first positions are left out."""
    rings = model.new_cache(len(ids), max_rollback=0).mtp
    rings.lengths = np.full(len(ids), start)
    return rings


def _read(model: LanguageModel, dspark: BlockDrafter, main_hidden: Array, rings: Track) -> Any:
    """Put states [B, S, M·d] of the main model into the rings; gives what the stages read of them, [B, S, d]."""
    seen: list[Array | Ints] = []
    batch, length, _ = main_hidden.shape
    span = Span(rings.lengths, np.full(batch, length), length, model.ops.asarray)
    given = model.ops.asarray(main_hidden.astype(model.dtype))
    dspark.read(given, span, rings.layers, lambda name, result: seen.append(result))
    rings.finish(span.counts)
    return seen[0]


def _slots(model: LanguageModel, rings: Track) -> npt.NDArray[Any]:
    """[stages, B, w, c] the rings as they are stored: position p at slot p mod w, zeros where there is none yet."""
    window, lengths = model.config.sliding_window, rings.lengths
    here = Span(lengths, np.zeros_like(lengths), 1, model.ops.asarray)
    newest = np.stack([model.ops.to_numpy(ring.window.newest(here)) for ring in rings.layers])
    positions = int(lengths[0]) - window + np.arange(window)  # all rows are equally long
    slots = np.zeros_like(newest)
    slots[:, :, positions[positions >= 0] % window] = newest[:, :, positions >= 0]
    return slots


def _rounds(model: Model, ids: Ints, prefix: str, stored: Mapping[str, npt.NDArray[Any]]) -> Results:
    """A greedy speculative run; prefix: spec.full.rowB. or spec.cut.rowB."""
    _, kind, row, _ = prefix.split(".")
    threshold = float(stored["spec.cut.threshold"][0]) if kind == "cut" else 0.0
    prompt = ids[int(row.removeprefix("row")), : int(stored["prefill.length"][0])]
    text, rounds = greedy_rounds(model, prompt, len(stored[f"{prefix}text"]), threshold)
    columns = in_columns(rounds, {name: stored[prefix + name] for name in ROUND})
    return {f"{prefix}text": np.array(text)} | {prefix + name: column for name, column in columns.items()}


def _start(stored: Mapping[str, npt.NDArray[Any]]) -> int:
    """The first position of which the file has states of the main model."""
    return int(stored["prefill.main_hidden.start"][0]) if "prefill.main_hidden.start" in stored else 0
