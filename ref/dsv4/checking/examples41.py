"""Example calls of V4.1's own operations, and of what V4.1 asks of V4's, beside those of `dsv4.checking.examples`."""

from functools import partial
from typing import Any

import numpy as np

from dsv4.checking.arrays import numbers
from dsv4.checking.examples import CALLS, Call, Generator, Widths, call
from dsv4.ops.engram import engram_moduli, engram_multipliers
from dsv4.ops.moe import Expert
from dsv4.ops.moe41 import MX_BLOCK
from dsv4.ops.quantise import quantise_fp8

TOKEN_CLASSES = 99_092
"""As many as the released tokenizer has: times a multiplier, a class fills most of an int64."""

_quantised = partial(quantise_fp8, block=(MX_BLOCK, MX_BLOCK))


def _product(g: Generator, b: int, s: int, width: int = 100, out: int = 70) -> tuple[Any, ...]:
    return numbers(g, b, s, width), _quantised(numbers(g, out, width))


def _candidates(
    g: Generator, b: int, s: int, heads: int = 2, entries: int = 11, width: int = 8, size: int = 3, count: int = 2
) -> tuple[Any, ...]:
    scored = CALLS["index_scores"].arguments(g, b, s, heads, entries, width)
    return *scored, g.integers(0, entries + 1, (b, s)), size, count


def _among(
    g: Generator, b: int, s: int, heads: int = 2, entries: int = 11, width: int = 8, size: int = 3, k: int = 4
) -> tuple[Any, ...]:
    """A pool of half of the blocks, in any order, and now and then of none in the place of one."""
    *scored, visible, _, _ = _candidates(g, b, s, heads, entries, width, size)
    blocks = -(-entries // size)
    order = g.permuted(np.broadcast_to(np.arange(blocks), (b, s, blocks)), axis=-1)[..., : (blocks + 1) // 2]
    return *scored, visible, np.where(g.random(order.shape) < 0.2, -1, order), size, k


def _expert(g: Generator, b: int, s: int, d: int = 64, width: int = 48) -> tuple[Any, ...]:
    """The shared expert as the released V4.1 stores it; for 0.1, see the routed ones."""
    shapes = (width, d), (d, width), (width, d)
    matrices = Expert(*(_quantised(numbers(g, *shape)) for shape in shapes))
    return numbers(g, b, d) * np.float32(0.1), numbers(g, b), matrices, 10.0, True


def _rows(g: Generator, b: int, s: int, longest: int = 3, heads: int = 2, least: int = 20) -> tuple[Any, ...]:
    classes = g.integers(0, TOKEN_CLASSES, (b, longest - 1 + s))
    return classes, engram_multipliers(1, TOKEN_CLASSES, longest), engram_moduli(1, longest, heads, least)[0]


def _gate(g: Generator, b: int, s: int, n: int = 4, d: int = 6) -> tuple[Any, ...]:
    return numbers(g, b, s, n, d), numbers(g, b, s, (n + 1) * d), numbers(g, n, d), numbers(g, n, d), 1e-20


_SCORED = CALLS["index_scores"].widths
_ROUTED: tuple[Widths, ...] = ({"count": 1, "k": 1}, {"count": 8, "k": 1}, {}, {"count": 64, "k": 6})

CALLS_41: dict[str, Call] = {
    "linear fp8 in squares of 32": call(
        _product, widths=({"width": 32, "out": 1}, {"width": 33, "out": 65}, {"width": 288, "out": 130})
    ),
    "fake_quant_nvfp4": call(
        lambda g, b, s, d=100: (numbers(g, b, s, d),), widths=tuple({"d": d} for d in (1, 16, 17, 100))
    ),
    "index_candidates": call(
        _candidates, (0, 1, 2, 3), widths=tuple({**widths, "size": size} for widths in _SCORED for size in (1, 8))
    ),
    "index_top_k_among": call(
        _among, (0, 1, 2, 3, 4), widths=tuple({**widths, "size": size} for widths in _SCORED for size in (1, 8))
    ),
    "route41": CALLS["route"]._replace(widths=_ROUTED),
    "mx_expert": CALLS["expert"],
    "mx_expert fp8": call(_expert, (0, 1), widths=({}, {"d": 96, "width": 33})),
    "mx_experts": CALLS["experts"],
    "mx_experts fp4": call(
        partial(CALLS["experts fp4"].arguments, d=2 * MX_BLOCK), (0, 1), widths=({}, {"d": 96, "width": 160})
    ),
    "engram_rows": call(_rows, widths=({"longest": 2, "heads": 1, "least": 2}, {}, {"longest": 4, "heads": 8})),
    "engram_gate": call(_gate, (0, 1), widths=({"n": 1, "d": 1}, {}, {"n": 4, "d": 64})),
}
"""By operation; further words name another form of the same operation, or of one of V4's."""

EVERY_CALL = CALLS | CALLS_41
"""Those of V4 and of V4.1."""
