"""The rows about matrix products: the packed weights of V4-Flash, used in turn so that no cache holds them."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from dsv4.ops import Fp4Weight, Ops
from dsv4.ops.quantise import Weight, dequantise
from dsv4.ops.types import Array
from dsv4_accel.bench.case import ARITHMETIC, MEMORY, ROOF, Case, Contest, Goal
from dsv4_accel.bench.operations import TORCH
from dsv4_accel.bench.peer_cupy import CUPY_HALF
from dsv4_accel.bench.product_rate import beside_dense
from dsv4_accel.bench.stage import Stage, in_turn, nbytes, place
from dsv4_accel.bench.timing import Contestant

GGML, GGML_REPACKED, TORCH_BF16 = "ggml", "ggml repacked", "torch bf16"

NOT_REPACKED = "ggml repacked: not compared, this ggml does not repack MXFP4 on this processor"

EXPERT = 2048, 4096
"""The shape of w1 and w3 of an expert."""

SQUARE = 4096, 4096

PROJECTIONS = 1024, 1024, 256, 256, 64
"""The rows of a CSA layer's dense maps: wkv and wgate, those of the indexer, weights_proj."""

HALF_OUTPUT = 8192, 4096
"""The shape of wo_a, in eight groups."""


def product_cases() -> list[Case]:
    """The products of one token and of several with FP4, FP8 and bf16 matrices; rounded: x rounded to FP8 before."""
    roof, faster = Goal(0.85, ROOF), partial(Goal, against=GGML_REPACKED)
    fp4, fp8 = "FP4 [2048, 4096] × {}".format, "FP8 [4096, 4096] × {}".format
    one, some, many = (partial(_fp4, rounds=False, tokens=tokens) for tokens in (1, 16, 64))
    one_rounded, some_rounded, many_rounded = (partial(_fp4, rounds=True, tokens=tokens) for tokens in (1, 16, 64))
    return [
        Case("fp4.matvec", fp4("1 token"), MEMORY, one, (roof, faster(1.1))),
        Case("fp4.matvec.one-thread", fp4("1, one thread"), MEMORY, one, (faster(1.5),), threads=1),
        Case("fp4.matmat.16", fp4("16 tokens"), ARITHMETIC, some, (faster(1.1),)),
        Case("fp4.matmat.64", fp4("64 tokens"), ARITHMETIC, many, (faster(1.3),)),
        Case("fp4.matvec.rounded", fp4("1, rounded"), MEMORY, one_rounded),
        Case("fp4.matmat.16.rounded", fp4("16, rounded"), ARITHMETIC, some_rounded, (faster(1.2),)),
        Case("fp4.matmat.64.rounded", fp4("64, rounded"), ARITHMETIC, many_rounded, (faster(2),)),
        Case("fp8.matvec", fp8("1 token"), MEMORY, partial(_fp8, tokens=1), (Goal(0.95, ROOF),)),
        Case("fp8.matmat.64", fp8("64 tokens"), ARITHMETIC, partial(_fp8, tokens=64), (Goal(4, TORCH_BF16),)),
        Case("fp8.matvec.rounded", fp8("1, rounded"), MEMORY, _fp8_rounded),
        Case("grouped_linear", "FP8 [8192, 4096] in 8 groups × 1", MEMORY, _grouped),
        Case("bf16.matvec", "bf16 [1024, 4096] × 1 token", MEMORY, _bf16),
        Case("bf16.matvec.beside", "bf16, five of a CSA layer × 1 token", MEMORY, _beside),
    ]


def _fp4(stage: Stage, tokens: int, rounds: bool) -> Contest:
    weights, x = stage.fp4_weights(*EXPERT), stage.floats(tokens, EXPERT[1])
    contest = _contest(stage, "linear", x, weights, rounds)
    ggml = _ggml(stage, x, weights)
    contestants = dict(contest.contestants) | _torch(stage, x, weights) | ggml
    notes = [NOT_REPACKED] if ggml and GGML_REPACKED not in ggml else []
    return Contest(contestants, contest.bytes_moved, notes)


def large_product(stage: Stage, tokens: int) -> Contest:
    """Rounded inputs and FP4, beside dense products in half precision of the library for the same device."""
    weights, x = stage.fp4_weights(*EXPERT), stage.floats(tokens, EXPERT[1])
    contest = _contest(stage, "linear", x, weights, True)
    cupy = stage.peers.cupy
    theirs = {CUPY_HALF: Contestant(cupy.half_product(x, dequantise(weights[0])))} if cupy else {}
    return Contest(dict(contest.contestants) | theirs, contest.bytes_moved)


def _fp8(stage: Stage, tokens: int) -> Contest:
    weights, x = stage.fp8_weights(*SQUARE), stage.floats(tokens, SQUARE[1])
    contest = _contest(stage, "linear", x, weights)
    contest = Contest(dict(contest.contestants) | _torch(stage, x, weights), contest.bytes_moved)
    if tokens == 1:
        return contest
    theirs = _torch_bf16(stage, x, dequantise(weights[0]), len(weights))
    contest = Contest(dict(contest.contestants) | theirs, contest.bytes_moved)
    return beside_dense(stage, contest, tokens * math.prod(SQUARE))


def _fp8_rounded(stage: Stage) -> Contest:
    return _contest(stage, "linear", stage.floats(1, SQUARE[1]), stage.fp8_weights(*SQUARE), True)


def _grouped(stage: Stage) -> Contest:
    rows, columns = HALF_OUTPUT
    return _contest(stage, "grouped_linear", stage.floats(1, 8 * columns), stage.fp8_weights(rows, columns), 8)


def _bf16(stage: Stage) -> Contest:
    rows, columns = 1024, 4096
    weights, x = stage.floats(stage.copies(2 * rows * columns), rows, columns), stage.floats(1, columns)
    contest = _contest(stage, "linear", x, list(weights.astype(ml_dtypes.bfloat16)))
    theirs = _torch_bf16(stage, x, weights[0], len(weights))
    return Contest(dict(contest.contestants) | theirs, contest.bytes_moved)


def _beside(stage: Stage) -> Contest:
    width, rows = SQUARE[1], sum(PROJECTIONS)
    x, weights = stage.floats(1, width), stage.floats(stage.copies(2 * rows * width), rows, width)
    starts = np.cumsum(PROJECTIONS)[:-1]
    groups = [np.split(matrix.astype(ml_dtypes.bfloat16), starts) for matrix in weights]

    def call(ops: Ops) -> Contestant:
        placed = [(place(ops, x), [ops.place(weight) for weight in group]) for group in groups]
        return Contestant(in_turn(ops.linears, placed))

    contestants = {name: call(ops) for name, ops in stage.all_ops.items()}
    return Contest(contestants, nbytes(x, groups[0]) + rows * x.itemsize)


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


def _torch_bf16(stage: Stage, x: Array, dense: Array, copies: int) -> dict[str, Contestant]:
    """torch with the matrix and x in bfloat16; copies of one, since their values do not matter."""
    torch = stage.peers.torch
    if torch is None:
        return {}
    return {TORCH_BF16: Contestant(in_turn(torch.product, torch.linear_in_bfloat16(x, dense, copies)))}


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
