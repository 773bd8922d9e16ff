"""The rows with goals against NumPy's own best: the indexer, the choice of entries, attention, Sinkhorn."""

from functools import partial
from typing import Any

import numpy as np

from dsv4.model.span import Span
from dsv4.ops import Ops
from dsv4.ops.mhc import sinkhorn
from dsv4.ops.packed_rows import Fp4Format, PackedRows, unpacked
from dsv4.ops.types import Array
from dsv4_accel.bench.case import ARITHMETIC, MEMORY, Case, Contest, Goal
from dsv4_accel.bench.layer import DISTINCT
from dsv4_accel.bench.operations import TORCH, in_torch, same_call
from dsv4_accel.bench.peer_cupy import CUPY
from dsv4_accel.bench.product_rate import beside_dense
from dsv4_accel.bench.stage import NUMPY, Stage, in_turn, lives_elsewhere, nbytes
from dsv4_accel.bench.timing import Contestant

KEYS = 262_144
"""The entries of a CSA layer at a context of 1,048,576 tokens."""

INDEX_HEADS, INDEX_WIDTH = 64, 128

SCORED = INDEX_HEADS * INDEX_WIDTH * KEYS
"""Multiply-adds of one token's products with all keys."""

WINDOW, TOPK = 128, 512

HEADS, WIDTH = 64, 512

ENTRIES = 65_536
"""The entries of a CSA layer at a context of 262,144 tokens: more than a cache holds, as are those that are read."""

NUMPY_FLOATS = "NumPy, float keys"
"""The reference with keys that were unpacked beforehand; NumPy unpacks them in each call."""

ARGPARTITION, TOKENS_LAST = "argpartition", "NumPy [4, 4, T]"

SINKHORN_TOKENS, ITERATIONS, EPS = 4096, 20, 1e-6


def selection_cases() -> list[Case]:
    """Index scores, top-k, attention of one token and of a prompt, Sinkhorn."""
    sizes = "64 heads × 512, 640 keys, {}".format
    decode, prefill = (partial(attention, tokens=tokens) for tokens in (1, 512))
    return [
        Case("index_scores", "64 heads × 128, 262,144 keys", ARITHMETIC, _index_scores, (Goal(6, NUMPY),)),
        Case("top_k", "512 of 262,144", MEMORY, _top_k, (Goal(4, ARGPARTITION),)),
        Case("index_top_k", "both, 512 of 262,144 keys", ARITHMETIC, _index_top_k, (Goal(10, NUMPY),)),
        Case("index_top_k.packed", "both, of 262,144 FP4 keys", ARITHMETIC, _packed_keys, (Goal(10, NUMPY_FLOATS),)),
        Case("attention.decode", sizes("1 token"), ARITHMETIC, decode, (Goal(4, NUMPY),)),
        Case("attention.prefill", sizes("512 tokens"), ARITHMETIC, prefill, (Goal(8, NUMPY),)),
        Case("sinkhorn", "4096 tokens, 4 × 4, 20 iterations", ARITHMETIC, _sinkhorn, (Goal(6, TOKENS_LAST),)),
    ]


def _index_scores(stage: Stage) -> Contest:
    contest = same_call(stage, "index_scores", partial(_indexed, stage), others=in_torch(stage, "index_scores"))
    return beside_dense(stage, contest, SCORED)


def _index_top_k(stage: Stage) -> Contest:
    def arguments() -> tuple[Any, ...]:
        return *_indexed(stage), np.full((1, 1), KEYS), TOPK

    contest = same_call(stage, "index_top_k", arguments, others=in_torch(stage, "index_top_k"))
    return beside_dense(stage, contest, SCORED)


def _packed_keys(stage: Stage) -> Contest:
    """Keys as a packed cache holds them, whose blocks have nearly equal scales, and queries that are rounded alike."""
    form = Fp4Format(INDEX_WIDTH)

    def arguments() -> tuple[Any, ...]:
        stored = form.pack(stage.floats(1, DISTINCT, INDEX_WIDTH))[:, np.arange(KEYS) % DISTINCT]
        visible = np.full((1, 1), KEYS)
        queries = Ops().fake_quant_fp4(stage.floats(1, 1, INDEX_HEADS, INDEX_WIDTH))
        weights = stage.floats(1, 1, INDEX_HEADS)
        return queries, PackedRows(stored, form), weights, visible, TOPK

    contest = same_call(stage, "index_top_k", arguments)
    calls = [(queries, unpacked(keys, np.float32), *others) for queries, keys, *others in (arguments(), arguments())]
    floats = Contestant(in_turn(Ops.index_top_k, calls))
    contest = Contest({**contest.contestants, NUMPY_FLOATS: floats}, contest.bytes_moved)
    return beside_dense(stage, contest, SCORED)


def _indexed(stage: Stage) -> tuple[Array, Array, Array]:
    """Queries of one token, keys, weights."""
    heads = 1, 1, INDEX_HEADS
    return stage.floats(*heads, INDEX_WIDTH), stage.floats(1, KEYS, INDEX_WIDTH), stage.floats(*heads)


def _top_k(stage: Stage) -> Contest:
    def partition(scores: Array, *_: object) -> Any:
        return partial(np.argpartition, scores, KEYS - TOPK, axis=-1)

    def arguments() -> tuple[Any, ...]:
        return stage.floats(1, 1, KEYS), np.full((1, 1), KEYS), TOPK

    return same_call(stage, "top_k", arguments, others={ARGPARTITION: partition, **in_torch(stage, "top_k")})


def attention(stage: Stage, tokens: int, batch: int = 1) -> Contest:
    """Attention of so many tokens of each of `batch` sequences that share their compressed entries' values."""
    entries, sink = np.repeat(stage.floats(1, ENTRIES, WIDTH), batch, axis=0), stage.floats(HEADS)
    span = Span(np.full(batch, ENTRIES * 4), np.full(batch, tokens), tokens)
    window_index = span.window_columns(WINDOW)

    def arguments() -> tuple[Any, ...]:
        queries, window = stage.floats(batch, tokens, HEADS, WIDTH), stage.floats(batch, WINDOW - 1 + tokens, WIDTH)
        chosen = stage.random.integers(0, ENTRIES // TOPK, (batch, tokens, TOPK))
        entry_index = np.arange(TOPK) * (ENTRIES // TOPK) + chosen  # one of each stretch: no entry twice
        return queries, window, window_index, entries, entry_index, sink

    queries, window, _, _, entry_index, _ = arguments()
    read = sum(len(np.unique(one)) for one in entry_index) * entries[0, 0].nbytes
    moved = 2 * queries.nbytes + nbytes(window, window_index, entry_index, sink) + read
    others = in_torch(stage, "attention") if batch == 1 else {}
    if lives_elsewhere(stage.ops) and stage.peers.cupy:
        others = {**others, CUPY: stage.peers.cupy.attention}
    contest = same_call(stage, "sparse_attention", arguments, moved, others)
    return beside_dense(stage, contest, 2 * batch * tokens * HEADS * WIDTH * (WINDOW + TOPK))


def _sinkhorn(stage: Stage) -> Contest:
    """The interface has Sinkhorn inside mhc_weights; with four channels per stream there is little beside it."""

    def arguments() -> tuple[Any, ...]:
        streams, fn = stage.floats(1, SINKHORN_TOKENS, 4, 4), stage.floats(24, 16)
        return streams, fn, stage.floats(24), stage.floats(3), ITERATIONS, EPS, EPS

    def numpy(*_: object) -> Any:
        logits = np.moveaxis(stage.floats(4, 4, SINKHORN_TOKENS), (0, 1), (-2, -1))  # a view, which is moved back
        return partial(sinkhorn, logits, ITERATIONS, EPS)

    def torch(*_: object) -> Any:
        return stage.peers.torch and stage.peers.torch.sinkhorn(stage.floats(4, 4, SINKHORN_TOKENS), ITERATIONS, EPS)

    others = {TOKENS_LAST: numpy} | ({TORCH: torch} if stage.peers.torch else {})
    return same_call(stage, "mhc_weights", arguments, others=others)
