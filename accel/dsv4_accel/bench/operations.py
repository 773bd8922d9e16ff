"""The rows about everything but single products, at the sizes of V4-Flash."""

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from dsv4.ops import Expert, Ops, Routing
from dsv4.ops.quantise import Weight
from dsv4.ops.rope import rope_frequencies
from dsv4.ops.types import Array, Ints
from dsv4_accel.bench.case import ARITHMETIC, MEMORY, ROOF, Case, Contest, Goal
from dsv4_accel.bench.product_rate import DENSE, beside_dense
from dsv4_accel.bench.stage import NUMPY, Stage, in_turn, nbytes, place
from dsv4_accel.bench.timing import Contestant

TORCH = "torch"

TOKENS = 512
STREAMS = 1, TOKENS, 4, 4096
HEADS = 1, TOKENS, 64, 512
INDEX_HEADS = 1, TOKENS, 64, 128

EXPERT_COUNT, EXPERTS_PER_TOKEN = 256, 6
EXPERT_SHAPES = (2048, 4096), (4096, 2048), (2048, 4096)
"""w1, w2 and w3."""

EXPERT_NUMBERS = 3 * 2048 * 4096

VOCABULARY = 32_768
"""A quarter of the released models', which no cache holds either."""

Others = Mapping[str, Callable[..., Callable[[], object]]]
"""For the name of each further contestant, what makes its call from the arguments of the operation."""


def operation_cases() -> list[Case]:
    """Experts, norms, rotations, rounding, compression and the hyper-connections."""
    streams, half = "512 tokens × 4 streams × 4096", (Goal(0.5, DENSE),)
    return [
        Case("experts.decode", "6 FP4 experts × 1 token", MEMORY, partial(_experts, tokens=1), (Goal(0.92, ROOF),)),
        Case("experts.prefill", "6 of all FP4 experts × 128 tokens", ARITHMETIC, partial(_experts, tokens=128), half),
        Case("expert", "shared FP8 expert × 1 token", MEMORY, _shared_expert),
        Case("route", "512 tokens, 6 of 256 experts", ARITHMETIC, _route, (Goal(5, NUMPY),)),
        Case("route_by_id", "512 tokens, 6 of 256 experts", ARITHMETIC, _route_by_id, (Goal(5, NUMPY),)),
        Case("embedding", "512 tokens of 32,768 × 4096, bf16", MEMORY, _embedding, (Goal(5, NUMPY),)),
        Case("rms_norm", "512 tokens × 4096", MEMORY, _rms_norm),
        Case("rms_scale", "512 tokens × 64 heads × 512", MEMORY, _rms_scale),
        Case("rope", "512 tokens × 64 heads × 512", MEMORY, _rope),
        Case("hadamard", "512 tokens × 64 heads × 128", MEMORY, _hadamard),
        Case("fake_quant_fp8", "512 tokens × 4096, blocks of 128", MEMORY, _fake_quant_fp8),
        Case("fake_quant_fp4", "512 tokens × 64 heads × 128", MEMORY, _fake_quant_fp4),
        Case("overlap", "128 entries of 8 slots × 512", MEMORY, _overlap, (Goal(5, NUMPY),)),
        Case("compress", "128 entries of 8 slots × 512", MEMORY, _compress),
        Case("mhc_weights", streams, MEMORY, _mhc_weights, (Goal(0.8, ROOF),)),
        Case("mhc_head_weights", streams, MEMORY, _mhc_head_weights),
        Case("mhc_collapse", streams, MEMORY, _mhc_collapse),
        Case("mhc_mix", streams, MEMORY, _mhc_mix),
    ]


def same_call(
    stage: Stage,
    operation: str,
    arguments: Callable[[], tuple[Any, ...]],
    moved: int | None = None,
    others: Others | None = None,
) -> Contest:
    """Backends that do `operation` with several arguments in turn, so that no cache holds them.

    arguments: makes those of one call; moved: the bytes that a call must move, by default all of the arguments' and of
    the result's.
    """
    first = arguments()
    if moved is None:
        moved = nbytes(*first, getattr(Ops, operation)(*first))
    turns = [first, *(arguments() for _ in range(1, stage.copies(moved)))]

    def call(ops: Ops) -> Contestant:
        placed = [tuple(place(ops, argument) for argument in some) for some in turns]
        return Contestant(in_turn(getattr(ops, operation), placed))

    contestants = {name: call(ops) for name, ops in stage.all_ops.items()}
    for name, make in (others or {}).items():
        contestants[name] = Contestant(in_turn(lambda call: call(), [(make(*some),) for some in turns]))
    return Contest(contestants, moved)


def in_torch(stage: Stage, operation: str) -> Others:
    """torch as a further contestant, where it is there."""
    return {TORCH: getattr(stage.peers.torch, operation)} if stage.peers.torch else {}


def _experts(stage: Stage, tokens: int) -> Contest:
    count = max(2 * EXPERTS_PER_TOKEN, stage.copies(EXPERT_NUMBERS // 2))
    experts = _some_experts(stage.fp4_weights, count)
    x = stage.floats(tokens, EXPERT_SHAPES[0][1])
    routings = [_routing(stage, tokens, len(experts)) for _ in range(16)]

    def call(ops: Ops) -> Contestant:
        given, placed = place(ops, x), place(ops, experts)
        calls = [(given, place(ops, routing), placed, 10.0, False) for routing in routings]
        return Contestant(in_turn(ops.experts, calls))

    chosen = np.mean([len(np.unique(routing.indices)) for routing in routings])
    moved = int(chosen * nbytes(experts[0])) + 2 * x.nbytes
    contest = Contest({name: call(ops) for name, ops in stage.all_ops.items()}, moved)
    return contest if tokens == 1 else beside_dense(stage, contest, tokens * EXPERTS_PER_TOKEN * EXPERT_NUMBERS)


def _some_experts(make: Callable[[int, int, int], list[Weight]], count: int) -> list[Expert]:
    """make: makes so many matrices of a shape."""
    matrices = (make(*shape, count) for shape in EXPERT_SHAPES)
    return [Expert(*three) for three in zip(*matrices, strict=True)]


def _routing(stage: Stage, tokens: int, experts: int) -> Routing:
    return Routing(np.full((tokens, EXPERTS_PER_TOKEN), 0.25, np.float32), _choice(stage, tokens, experts))


def _choice(stage: Stage, tokens: int, experts: int) -> Ints:
    """Different experts for each token, [tokens, 6]."""
    return np.array([stage.random.permutation(experts)[:EXPERTS_PER_TOKEN] for _ in range(tokens)], np.int64)


def _shared_expert(stage: Stage) -> Contest:
    experts = itertools.cycle(_some_experts(stage.fp8_weights, stage.copies(EXPERT_NUMBERS)))
    x, one = stage.floats(1, EXPERT_SHAPES[0][1]), np.ones(1, np.float32)
    return same_call(stage, "expert", lambda: (x, one, next(experts), 10.0, False))


def _route(stage: Stage) -> Contest:
    def arguments() -> tuple[Any, ...]:
        logits, bias = stage.floats(TOKENS, EXPERT_COUNT), stage.floats(EXPERT_COUNT)
        return logits, bias, EXPERTS_PER_TOKEN, "sqrtsoftplus", 1.5

    return same_call(stage, "route", arguments)


def _route_by_id(stage: Stage) -> Contest:
    def arguments() -> tuple[Any, ...]:
        return stage.floats(TOKENS, EXPERT_COUNT), _choice(stage, TOKENS, EXPERT_COUNT), "sqrtsoftplus", 1.5

    return same_call(stage, "route_by_id", arguments)


def _embedding(stage: Stage) -> Contest:
    table = stage.floats(VOCABULARY, 4096).astype(ml_dtypes.bfloat16)
    moved = TOKENS * (8 + 2 * table[0].nbytes)  # an id, a row read, a row written
    return same_call(stage, "embedding", lambda: (stage.random.integers(0, VOCABULARY, (1, TOKENS)), table), moved)


def _rms_norm(stage: Stage) -> Contest:
    others = in_torch(stage, "rms_norm")
    return same_call(stage, "rms_norm", lambda: (_channels(stage), stage.floats(4096), 1e-6), others=others)


def _rms_scale(stage: Stage) -> Contest:
    return same_call(stage, "rms_scale", lambda: (stage.floats(*HEADS), 1e-6))


def _rope(stage: Stage) -> Contest:
    positions, frequencies = np.arange(TOKENS)[None] + 60_000, rope_frequencies(64, 160_000.0)
    return same_call(stage, "rope", lambda: (stage.floats(*HEADS), positions, frequencies))


def _hadamard(stage: Stage) -> Contest:
    return same_call(stage, "hadamard", lambda: (stage.floats(*INDEX_HEADS),))


def _fake_quant_fp8(stage: Stage) -> Contest:
    return same_call(stage, "fake_quant_fp8", lambda: (_channels(stage), 128))


def _fake_quant_fp4(stage: Stage) -> Contest:
    return same_call(stage, "fake_quant_fp4", lambda: (stage.floats(*INDEX_HEADS),))


def _overlap(stage: Stage) -> Contest:
    return same_call(stage, "overlap", lambda: (stage.floats(1, 129, 4, 2 * 512),))


def _compress(stage: Stage) -> Contest:
    return same_call(stage, "compress", lambda: (stage.floats(1, 128, 8, 512), stage.floats(1, 128, 8, 512)))


def _mhc_weights(stage: Stage) -> Contest:
    fn, base, scale = stage.floats(24, 4 * 4096), stage.floats(24), stage.floats(3)
    contest = same_call(stage, "mhc_weights", lambda: (stage.floats(*STREAMS), fn, base, scale, 20, 1e-6, 1e-6))
    return beside_dense(stage, contest, TOKENS * fn.size)


def _mhc_head_weights(stage: Stage) -> Contest:
    fn, base, scale = stage.floats(4, 4 * 4096), stage.floats(4), stage.floats(1)
    return same_call(stage, "mhc_head_weights", lambda: (stage.floats(*STREAMS), fn, base, scale, 1e-6, 1e-6))


def _mhc_collapse(stage: Stage) -> Contest:
    return same_call(stage, "mhc_collapse", lambda: (stage.floats(*STREAMS), stage.floats(*STREAMS[:3])))


def _mhc_mix(stage: Stage) -> Contest:
    def arguments() -> tuple[Any, ...]:
        post, comb = stage.floats(*STREAMS[:3]), stage.floats(*STREAMS[:3], 4)
        return stage.floats(*STREAMS), _channels(stage), post, comb

    return same_call(stage, "mhc_mix", arguments)


def _channels(stage: Stage) -> Array:
    return stage.floats(1, TOKENS, 4096)
