"""The rows with goals against NumPy's own best: the indexer, the choice of entries, attention, Sinkhorn."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from dsv4.bench.case import Case, Contest, Goal
from dsv4.bench.operations import same_call
from dsv4.bench.stage import NUMPY, Stage, nbytes
from dsv4.bench.timing import Contestant
from dsv4.model.span import Span
from dsv4.ops.mhc import sinkhorn
from dsv4.ops.types import Array

KEYS = 262_144
"""The entries of a CSA layer at a context of 1,048,576 tokens."""

WINDOW, TOPK = 128, 512

ENTRIES = 16_384
"""The entries of a CSA layer at a context of 65,536 tokens."""

ARGPARTITION, TOKENS_LAST, TORCH = "argpartition", "NumPy [4, 4, T]", "torch"

SINKHORN_TOKENS, ITERATIONS, EPS = 4096, 20, 1e-6


def selection_cases() -> list[Case]:
    """Index scores, top-k, attention of one token and of a prompt, Sinkhorn."""
    keys = "arithmetic: 64 products of 128 per key"
    attention = "arithmetic: two products of 512 per head and key"
    return [
        Case("index_scores", "64 heads × 128, 262,144 keys, 1 token", keys, _index_scores, (Goal(6, NUMPY),)),
        Case("top_k", "512 of 262,144", "memory: the scores once", _top_k, (Goal(4, ARGPARTITION),)),
        Case(
            "attention.decode",
            "64 heads × 512, 640 keys, 1 token",
            attention,
            partial(_attention, tokens=1),
            (Goal(2, NUMPY),),
        ),
        Case(
            "attention.prefill",
            "64 heads × 512, 640 keys each, 512 tokens",
            attention,
            partial(_attention, tokens=512),
            (Goal(2.5, NUMPY),),
        ),
        Case(
            "sinkhorn", "4096 tokens, 4 × 4, 20 iterations", "arithmetic: divisions", _sinkhorn, (Goal(5, TOKENS_LAST),)
        ),
    ]


def _with_torch(stage: Stage, contest: Contest, call: Callable[[Any], Callable[[], object]]) -> Contest:
    """The contest with torch, where it is there; call: makes its contestant's call from the peer."""
    torch = stage.peers.torch
    if torch is None:
        return contest
    return Contest(dict(contest.contestants) | {TORCH: Contestant(call(torch))}, contest.bytes_moved)


def _index_scores(stage: Stage) -> Contest:
    queries, keys, weights = stage.floats(1, 1, 64, 128), stage.floats(1, KEYS, 128), stage.floats(1, 1, 64)
    contest = same_call(stage, "index_scores", queries, keys, weights)
    return _with_torch(stage, contest, lambda torch: torch.index_scores(queries, keys, weights))


def _top_k(stage: Stage) -> Contest:
    scores, visible = stage.floats(1, 1, KEYS), np.full((1, 1), KEYS)
    contest = same_call(stage, "top_k", scores, visible, TOPK)
    partition = Contestant(partial(np.argpartition, scores, KEYS - TOPK, axis=-1))
    contest = Contest(dict(contest.contestants) | {ARGPARTITION: partition}, contest.bytes_moved)
    return _with_torch(stage, contest, lambda torch: torch.top_k(scores, TOPK))


def _attention(stage: Stage, tokens: int) -> Contest:
    queries, sink = stage.floats(1, tokens, 64, 512), stage.floats(64)
    window, entries = stage.floats(1, WINDOW - 1 + tokens, 512), stage.floats(1, ENTRIES, 512)
    window_index = Span(np.array([ENTRIES * 4]), np.array([tokens]), tokens).window_columns(WINDOW)
    entry_index = np.stack([stage.random.permutation(ENTRIES)[:TOPK] for _ in range(tokens)])[None]
    read = len(np.unique(entry_index)) * entries[0, 0].nbytes
    arguments = queries, window, window_index, entries, entry_index, sink
    moved = 2 * queries.nbytes + nbytes(window, window_index, entry_index) + read
    contest = same_call(stage, "sparse_attention", *arguments, moved=moved)
    return _with_torch(stage, contest, lambda torch: torch.attention(*arguments))


def _sinkhorn(stage: Stage) -> Contest:
    """The interface has Sinkhorn inside mhc_weights; with one channel per stream there is hardly anything beside it."""
    streams, fn, base, scale = (stage.floats(*shape) for shape in ((1, SINKHORN_TOKENS, 4, 1), (24, 4), (24,), (3,)))
    moved = nbytes(streams) + 24 * 4 * SINKHORN_TOKENS
    contest = same_call(stage, "mhc_weights", streams, fn, base, scale, ITERATIONS, EPS, EPS, moved=moved)
    tokens_last = stage.floats(4, 4, SINKHORN_TOKENS)
    logits: Array = np.moveaxis(tokens_last, (0, 1), (-2, -1))  # a view: the reference moves the axes back
    best = Contestant(partial(sinkhorn, logits, ITERATIONS, EPS))
    contest = Contest(dict(contest.contestants) | {TOKENS_LAST: best}, moved)
    return _with_torch(stage, contest, lambda torch: torch.sinkhorn(tokens_last, ITERATIONS, EPS))
