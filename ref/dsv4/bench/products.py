"""The rows about matrix products: the packed weights of V4-Flash, used in turn so that no cache holds them."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import ml_dtypes

from dsv4.bench.case import ROOF, Case, Contest, Goal
from dsv4.bench.stage import Stage, in_turn, nbytes, place
from dsv4.bench.timing import Contestant
from dsv4.ops import Fp4Weight
from dsv4.ops.quantise import Weight, dequantise
from dsv4.ops.types import Array

MEMORY = "memory: the packed weights"
BOTH = "arithmetic, and decoding the weights once"

GGML, GGML_REPACKED, TORCH = "ggml", "ggml repacked", "torch float32"

EXPERT = 2048, 4096
"""The shape of w1 and w3 of an expert."""

SQUARE = 4096, 4096

HALF_OUTPUT = 8192, 4096
"""The shape of wo_a, in eight groups."""


def product_cases() -> list[Case]:
    """The products of one token and of several with FP4, FP8 and bf16 matrices."""
    roof, plainly_faster, faster = Goal(0.85, ROOF), Goal(1.1, GGML_REPACKED), Goal(1.3, GGML_REPACKED)
    fp4 = "FP4 [2048, 4096] × {}, experts in rotation"
    one, several = fp4.format("1 token"), fp4.format("{} tokens").format
    return [
        Case("fp4.matvec", one, MEMORY, partial(_fp4, tokens=1), (roof, plainly_faster)),
        Case("fp4.matvec.one-thread", f"{one}, one thread", MEMORY, partial(_fp4, tokens=1), (faster,), threads=1),
        Case("fp4.matmat.16", several(16), BOTH, partial(_fp4, tokens=16), (plainly_faster,)),
        Case("fp4.matmat.64", several(64), BOTH, partial(_fp4, tokens=64), (faster,)),
        Case("fp4.rounded", f"{one}, rounded to FP8", MEMORY, _fp4_rounded),
        Case("fp8.matvec", "FP8 [4096, 4096] × 1 token", MEMORY, partial(_fp8, tokens=1), (Goal(0.9, ROOF),)),
        Case("fp8.matmat.64", "FP8 [4096, 4096] × 64 tokens", BOTH, partial(_fp8, tokens=64)),
        Case("fp8.rounded", "FP8 [4096, 4096] × 1 token, rounded to FP8", MEMORY, _fp8_rounded),
        Case("grouped_linear", "FP8 [8192, 4096] in 8 groups × 1 token", MEMORY, _grouped),
        Case("bf16.matvec", "bf16 [1024, 4096] × 1 token", "memory: the weights", _bf16),
    ]


def _fp4(stage: Stage, tokens: int) -> Contest:
    weights = stage.fp4_weights(*EXPERT)
    x = stage.floats(tokens, EXPERT[1])
    contest = _contest(stage, "linear", x, weights)
    contestants = dict(contest.contestants) | _torch(stage, x, weights) | _ggml(stage, x, weights)
    return Contest(contestants, contest.bytes_moved)


def _fp4_rounded(stage: Stage) -> Contest:
    return _contest(stage, "quantised_linear", stage.floats(1, EXPERT[1]), stage.fp4_weights(*EXPERT))


def _fp8(stage: Stage, tokens: int) -> Contest:
    weights, x = stage.fp8_weights(*SQUARE), stage.floats(tokens, SQUARE[1])
    contest = _contest(stage, "linear", x, weights)
    return Contest(dict(contest.contestants) | _torch(stage, x, weights), contest.bytes_moved)


def _fp8_rounded(stage: Stage) -> Contest:
    return _contest(stage, "quantised_linear", stage.floats(1, SQUARE[1]), stage.fp8_weights(*SQUARE))


def _grouped(stage: Stage) -> Contest:
    rows, columns = HALF_OUTPUT
    return _contest(stage, "grouped_linear", stage.floats(1, 8 * columns), stage.fp8_weights(rows, columns), 8)


def _bf16(stage: Stage) -> Contest:
    rows, columns = 1024, 4096
    count = stage.copies(2 * rows * columns)
    weights = stage.floats(count, rows, columns).astype(ml_dtypes.bfloat16)
    return _contest(stage, "linear", stage.floats(1, columns), list(weights))


def _contest(stage: Stage, operation: str, x: Array, weights: Sequence[Weight], *others: Any) -> Contest:
    """Backends that do operation(x, weight, *others) with the weights in turn."""

    def call(ops: Any) -> Contestant:
        placed = [(place(ops, x), place(ops, weight), *others) for weight in weights]
        return Contestant(in_turn(getattr(ops, operation), placed))

    contestants = {name: call(ops) for name, ops in stage.all_ops.items()}
    result_bytes = len(x) * weights[0].shape[0] * x.itemsize
    return Contest(contestants, nbytes(x, weights[0]) + result_bytes)


def _torch(stage: Stage, x: Array, weights: Sequence[Weight]) -> dict[str, Contestant]:
    """torch with the float32 values of the weight; copies of one, since their values do not matter."""
    torch = stage.peers.torch
    if torch is None:
        return {}
    dense = dequantise(weights[0])
    arguments = torch.linear(x, dense, min(len(weights), stage.copies(dense.nbytes)))
    return {TORCH: Contestant(in_turn(torch.product, arguments))}


def _ggml(stage: Stage, x: Array, weights: Sequence[Weight]) -> dict[str, Contestant]:
    """ggml as it stores MXFP4 and repacked; copies of one weight, since its values do not matter."""
    ggml, weight = stage.peers.ggml, weights[0]
    if ggml is None or not isinstance(weight, Fp4Weight):
        return {}
    found: dict[str, Contestant] = {}
    for name, repacked in ((GGML_REPACKED, True), (GGML, False)):
        products = ggml.products(weight, x, len(weights), stage.threads, repacked)
        if products is not None:
            stage.resources.enter_context(products)
            found[name] = Contestant(products.run)
    return found
