"""The rows about everything but single products, at the sizes of V4-Flash."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from dsv4.bench.case import Case, Contest
from dsv4.bench.stage import Stage, in_turn, nbytes, place
from dsv4.bench.timing import Contestant
from dsv4.ops import Expert, Ops, Routing
from dsv4.ops.rope import rope_frequencies

TOKENS = 512
STREAMS = 1, TOKENS, 4, 4096
HEADS = 1, TOKENS, 64, 512
INDEX_HEADS = 1, TOKENS, 64, 128

PER_NUMBER = "memory and arithmetic per number"
CALL = "memory, in one pass over the streams"
MEMORY = "memory: the packed weights"

EXPERTS_PER_TOKEN = 6
EXPERT_SHAPES = (2048, 4096), (4096, 2048), (2048, 4096)
"""w1, w2 and w3."""


def operation_cases() -> list[Case]:
    """Experts, norms, rotations, rounding, compression and the hyper-connections."""
    return [
        Case("experts.decode", "6 FP4 experts × 1 token, in rotation", MEMORY, partial(_experts, tokens=1)),
        Case(
            "experts.prefill",
            "6 of all FP4 experts × 128 tokens",
            "arithmetic, and decoding each expert once",
            partial(_experts, tokens=128),
        ),
        Case("route", "512 tokens, 6 of 256 experts", PER_NUMBER, _route),
        Case("rms_norm", "512 tokens × 4096", PER_NUMBER, _rms_norm),
        Case("rms_scale", "512 tokens × 64 heads × 512", PER_NUMBER, _rms_scale),
        Case("rope", "512 tokens × 64 heads × 512, 64 rotated", PER_NUMBER, _rope),
        Case("hadamard", "512 tokens × 64 heads × 128", PER_NUMBER, _hadamard),
        Case("fake_quant_fp8", "512 tokens × 4096, blocks of 128", PER_NUMBER, _fake_quant_fp8),
        Case("fake_quant_fp4", "512 tokens × 64 heads × 128, blocks of 32", PER_NUMBER, _fake_quant_fp4),
        Case("compress", "128 entries of 8 slots × 512", PER_NUMBER, _compress),
        Case("mhc_weights", "512 tokens × 4 streams × 4096", CALL, _mhc_weights),
        Case("mhc_collapse", "512 tokens × 4 streams × 4096", CALL, _mhc_collapse),
        Case("mhc_mix", "512 tokens × 4 streams × 4096", CALL, _mhc_mix),
    ]


def same_call(stage: Stage, operation: str, *arguments: Any, moved: int | None = None) -> Contest:
    """Backends that do operation(*arguments) again and again.

    moved: the bytes that a call must move; by default all of the arguments' and of the result's.
    """

    def call(ops: Ops) -> Callable[[], Any]:
        return partial(getattr(ops, operation), *(place(ops, argument) for argument in arguments))

    if moved is None:
        moved = nbytes(*arguments, stage.ops.to_numpy(call(stage.ops)()))
    return Contest({name: Contestant(call(ops)) for name, ops in stage.all_ops.items()}, moved)


def _experts(stage: Stage, tokens: int) -> Contest:
    parts = [stage.fp4_weights(*shape) for shape in EXPERT_SHAPES]
    experts = [Expert(*matrices) for matrices in zip(*parts, strict=True)]
    experts = experts[: max(2 * EXPERTS_PER_TOKEN, stage.copies(nbytes(experts[0])))]
    x = stage.floats(tokens, EXPERT_SHAPES[0][1])
    routings = [_routing(stage, tokens, len(experts)) for _ in range(16)]

    def call(ops: Ops) -> Contestant:
        given, placed = place(ops, x), place(ops, experts)
        calls = [(given, place(ops, routing), placed, 10.0, False) for routing in routings]
        return Contestant(in_turn(ops.experts, calls))

    chosen = np.mean([len(np.unique(routing.indices)) for routing in routings])
    moved = int(chosen * nbytes(experts[0])) + 2 * x.nbytes
    return Contest({name: call(ops) for name, ops in stage.all_ops.items()}, moved)


def _routing(stage: Stage, tokens: int, experts: int) -> Routing:
    chosen = [stage.random.permutation(experts)[:EXPERTS_PER_TOKEN] for _ in range(tokens)]
    return Routing(np.full((tokens, EXPERTS_PER_TOKEN), 0.25, np.float32), np.array(chosen, np.int64))


def _route(stage: Stage) -> Contest:
    logits, bias = stage.floats(TOKENS, 256), stage.floats(256)
    moved = nbytes(logits, bias) + TOKENS * EXPERTS_PER_TOKEN * (4 + 8)
    return same_call(stage, "route", logits, bias, EXPERTS_PER_TOKEN, "sqrtsoftplus", 1.5, moved=moved)


def _rms_norm(stage: Stage) -> Contest:
    x, weight = stage.floats(1, TOKENS, 4096), stage.floats(4096)
    contest = same_call(stage, "rms_norm", x, weight, 1e-6)
    torch = stage.peers.torch
    theirs = {"torch": Contestant(torch.rms_norm(x, weight, 1e-6))} if torch else {}
    return Contest(dict(contest.contestants) | theirs, contest.bytes_moved)


def _rms_scale(stage: Stage) -> Contest:
    return same_call(stage, "rms_scale", stage.floats(*HEADS), 1e-6)


def _rope(stage: Stage) -> Contest:
    positions = np.arange(TOKENS)[None] + 60_000
    return same_call(stage, "rope", stage.floats(*HEADS), positions, rope_frequencies(64, 160_000.0))


def _hadamard(stage: Stage) -> Contest:
    return same_call(stage, "hadamard", stage.floats(*INDEX_HEADS))


def _fake_quant_fp8(stage: Stage) -> Contest:
    return same_call(stage, "fake_quant_fp8", stage.floats(1, TOKENS, 4096), 128)


def _fake_quant_fp4(stage: Stage) -> Contest:
    return same_call(stage, "fake_quant_fp4", stage.floats(*INDEX_HEADS))


def _compress(stage: Stage) -> Contest:
    shape: Sequence[int] = (1, 128, 8, 512)
    return same_call(stage, "compress", stage.floats(*shape), stage.floats(*shape))


def _mhc_weights(stage: Stage) -> Contest:
    streams, fn = stage.floats(*STREAMS), stage.floats(24, 4 * 4096)
    base, scale = stage.floats(24), stage.floats(3)
    moved = nbytes(streams, fn) + TOKENS * 24 * 4
    return same_call(stage, "mhc_weights", streams, fn, base, scale, 20, 1e-6, 1e-6, moved=moved)


def _mhc_collapse(stage: Stage) -> Contest:
    return same_call(stage, "mhc_collapse", stage.floats(*STREAMS), stage.floats(*STREAMS[:3]))


def _mhc_mix(stage: Stage) -> Contest:
    post, comb = stage.floats(*STREAMS[:3]), stage.floats(*STREAMS[:3], 4)
    return same_call(stage, "mhc_mix", stage.floats(*STREAMS), stage.floats(1, TOKENS, 4096), post, comb)
