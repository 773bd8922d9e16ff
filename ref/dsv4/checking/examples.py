"""Example calls of every operation of V4: how its arguments are made, at any batch, length and widths.

The project's tests and `dsv4.check` make these calls, of every backend and of a function that somebody else wrote.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dsv4.checking.arrays import numbers
from dsv4.ops.moe import Expert, Routing
from dsv4.ops.quantise import quantise_fp4, quantise_fp8

Generator = np.random.Generator
Widths = dict[str, Any]


class Call(NamedTuple):
    """How to call an operation for a batch of some rows, each of some length."""

    arguments: Callable[..., tuple[Any, ...]]
    """arguments(generator, batch, length, **widths): float32, as in the model; without widths some small ones."""
    per_row: tuple[int, ...]
    """The arguments whose first axis is the batch."""
    dtype_from: tuple[int, ...]
    """The arguments that decide the dtype of the result; parameters stay in float32."""
    widths: tuple[Widths, ...]
    """Sizes that a check tries besides batch and length, from small to large."""


def call(
    arguments: Callable[..., tuple[Any, ...]],
    per_row: tuple[int, ...] = (0,),
    dtype_from: tuple[int, ...] | None = None,
    widths: tuple[Widths, ...] = ({},),
) -> Call:
    """A Call whose dtype comes from the arguments that are per row, unless others are named."""
    return Call(arguments, per_row, per_row if dtype_from is None else dtype_from, widths)


def _embedding(g: Generator, b: int, s: int, vocabulary: int = 7, d: int = 5) -> tuple[Any, ...]:
    return g.integers(0, vocabulary, (b, s)), numbers(g, vocabulary, d)


def _product(store: Callable[..., Any], width: int, out: int, *rounds: bool) -> Callable[..., tuple[Any, ...]]:
    def arguments(g: Generator, b: int, s: int, width: int = width, out: int = out) -> tuple[Any, ...]:
        return numbers(g, b, s, width), store(numbers(g, out, width)), *rounds

    return arguments


def _products(g: Generator, b: int, s: int, width: int = 6, outs: tuple[int, ...] = (5, 3)) -> tuple[Any, ...]:
    return numbers(g, b, s, width), [numbers(g, out, width) for out in outs]


def _products_with(*stores: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    def arguments(g: Generator, b: int, s: int, width: int = 64) -> tuple[Any, ...]:
        return numbers(g, b, s, width), [store(numbers(g, 9, width)) for store in stores], True

    return arguments


def _grouped(g: Generator, b: int, s: int, groups: int = 2, width: int = 4, rank: int = 3) -> tuple[Any, ...]:
    return numbers(g, b, s, groups * width), numbers(g, groups * rank, width), groups


def _norm(g: Generator, b: int, s: int, d: int = 6) -> tuple[Any, ...]:
    return numbers(g, b, s, d), numbers(g, d), 1e-6


def _scale(g: Generator, b: int, s: int, heads: int = 3, c: int = 6) -> tuple[Any, ...]:
    return numbers(g, b, s, heads, c), 1e-6


def _rope(*heads: int) -> Callable[..., tuple[Any, ...]]:
    def arguments(g: Generator, b: int, s: int, c: int = 6, pairs: int = 2) -> tuple[Any, ...]:
        return numbers(g, b, s, *heads, c), g.integers(0, 50, (b, s)), numbers(g, pairs)

    return arguments


def _compress(g: Generator, b: int, s: int, slots: int = 4, c: int = 3) -> tuple[Any, ...]:
    return numbers(g, b, s, slots, c), numbers(g, b, s, slots, c)


def _scores(g: Generator, b: int, s: int, heads: int = 2, entries: int = 5, width: int = 8) -> tuple[Any, ...]:
    return numbers(g, b, s, heads, width), numbers(g, b, entries, width), numbers(g, b, s, heads)


def _top_k(g: Generator, b: int, s: int, entries: int = 9, k: int = 4) -> tuple[Any, ...]:
    return numbers(g, b, s, entries), g.integers(0, entries + 1, (b, s)), k


def _index_top_k(
    g: Generator, b: int, s: int, heads: int = 2, entries: int = 5, width: int = 8, k: int = 4
) -> tuple[Any, ...]:
    return *_scores(g, b, s, heads, entries, width), g.integers(0, entries + 1, (b, s)), k


def _attention(
    g: Generator,
    b: int,
    s: int,
    heads: int = 3,
    c: int = 8,
    window: int = 5,
    entries: int = 6,
    named: tuple[int, int] = (4, 3),
) -> tuple[Any, ...]:
    window_index = g.integers(-1, window, (b, s, named[0]))
    entry_index = g.integers(-1, entries, (b, s, named[1]))
    keys, more_keys = numbers(g, b, window, c), numbers(g, b, entries, c)
    return numbers(g, b, s, heads, c), keys, window_index, more_keys, entry_index, numbers(g, heads)


def _mhc(g: Generator, b: int, s: int, n: int = 4, d: int = 3, iterations: int = 20) -> tuple[Any, ...]:
    rows = (2 + n) * n
    return numbers(g, b, s, n, d), numbers(g, rows, n * d), numbers(g, rows), numbers(g, 3), iterations, 1e-6, 1e-6


def _mhc_head(g: Generator, b: int, s: int, n: int = 4, d: int = 3) -> tuple[Any, ...]:
    return numbers(g, b, s, n, d), numbers(g, n, n * d), numbers(g, n), numbers(g, 1), 1e-6, 1e-6


def _mhc_collapse(g: Generator, b: int, s: int, n: int = 4, d: int = 3) -> tuple[Any, ...]:
    return numbers(g, b, s, n, d), numbers(g, b, s, n)


def _mhc_mix(g: Generator, b: int, s: int, n: int = 4, d: int = 3) -> tuple[Any, ...]:
    return numbers(g, b, s, n, d), numbers(g, b, s, d), numbers(g, b, s, n), numbers(g, b, s, n, n)


def _route(g: Generator, b: int, s: int, count: int = 8, k: int = 3) -> tuple[Any, ...]:
    return numbers(g, b, count), numbers(g, count), k, "sqrtsoftplus", 1.5


def _route_by_id(g: Generator, b: int, s: int, count: int = 8, k: int = 3) -> tuple[Any, ...]:
    return numbers(g, b, count), g.integers(0, count, (b, k)), "sigmoid", 1.5


def _keep(matrix: Any) -> Any:
    return matrix


def _matrices(g: Generator, count: int, store: Callable[..., Any], d: int, width: int) -> list[Expert]:
    shapes = (width, d), (d, width), (width, d)
    return [Expert(*(store(numbers(g, *shape)) for shape in shapes)) for _ in range(count)]


def _experts(store: Callable[..., Any], rounds: bool) -> Callable[..., tuple[Any, ...]]:
    def arguments(g: Generator, b: int, s: int, d: int = 32, width: int = 32, count: int = 3) -> tuple[Any, ...]:
        x, routing = numbers(g, b, d), Routing(numbers(g, b, 2), g.integers(0, count, (b, 2)))
        if rounds:  # gates that are not far below 0: hidden numbers near 0 may be rounded to either of two codes
            x *= np.float32(0.1)
        return x, routing, _matrices(g, count, store, d, width), 10.0, rounds

    return arguments


def _expert(g: Generator, b: int, s: int, d: int = 32, width: int = 32) -> tuple[Any, ...]:
    return numbers(g, b, d), numbers(g, b), *_matrices(g, 1, _keep, d, width), 10.0, False


_STREAMS: tuple[Widths, ...] = ({"n": 1, "d": 1}, {"n": 2, "d": 3}, {"n": 4, "d": 64}, {"n": 5, "d": 33})
_SCORED: tuple[Widths, ...] = (
    {"heads": 1, "entries": 1, "width": 1},
    {"heads": 2, "entries": 7, "width": 8},
    {"heads": 17, "entries": 65, "width": 32},
)
_ROTATED: tuple[Widths, ...] = ({"c": 2, "pairs": 1}, {"c": 9, "pairs": 3}, {"c": 64, "pairs": 32})
_STORED: tuple[Widths, ...] = ({"width": 32, "out": 1}, {"width": 96, "out": 3}, {"width": 288, "out": 130})
_NAMED: tuple[Widths, ...] = (
    {"heads": 1, "c": 1, "window": 1, "entries": 1, "named": (1, 0)},
    {"heads": 1, "c": 4, "window": 3, "entries": 2, "named": (2, 1)},
    {"heads": 3, "c": 8, "window": 5, "entries": 6, "named": (4, 3)},
    {"heads": 5, "c": 33, "window": 20, "entries": 70, "named": (17, 65)},
)

CALLS = {
    "embedding": call(_embedding, dtype_from=(1,), widths=({"vocabulary": 1, "d": 1}, {"vocabulary": 300, "d": 33})),
    "linear": call(
        _product(_keep, 6, 5), widths=({"width": 1, "out": 1}, {"width": 7, "out": 3}, {"width": 333, "out": 65})
    ),
    "linear fp8": call(_product(quantise_fp8, 160, 130), widths=_STORED),
    "linear fp4": call(_product(quantise_fp4, 64, 9), widths=_STORED),
    "linear fp8 that rounds": call(_product(quantise_fp8, 160, 130, True), widths=_STORED),
    "linear fp4 that rounds": call(_product(quantise_fp4, 64, 9, True), widths=_STORED),
    "linears": call(_products, widths=({"width": 1, "outs": (1,)}, {"width": 333, "outs": (65, 1, 7)})),
    "linears fp8 that round": call(_products_with(quantise_fp8, quantise_fp8), widths=({"width": 32}, {"width": 288})),
    "linears of fp8, fp4 and float": call(
        _products_with(quantise_fp8, quantise_fp4, _keep), widths=({"width": 32}, {"width": 288})
    ),
    "grouped_linear": call(
        _grouped, widths=({"groups": 1, "width": 1, "rank": 1}, {}, {"groups": 4, "width": 33, "rank": 16})
    ),
    "rms_norm": call(_norm, widths=({"d": 1}, {"d": 6}, {"d": 100}, {"d": 1024})),
    "rms_scale": call(_scale, widths=({"heads": 1, "c": 1}, {}, {"heads": 5, "c": 100})),
    "rope": call(_rope(), (0, 1), widths=_ROTATED),
    "rope of heads": call(_rope(3), (0, 1), widths=_ROTATED),
    "hadamard": call(
        lambda g, b, s, d=8: (numbers(g, b, s, d),), widths=tuple({"d": 2**power} for power in (0, 1, 3, 7))
    ),
    "fake_quant_fp8": call(
        lambda g, b, s, d=100, block=64: (numbers(g, b, s, d), block),
        widths=({"d": 1}, {"d": 100}, {"d": 300, "block": 128}, {"d": 100, "block": 32}),
    ),
    "fake_quant_fp4": call(
        lambda g, b, s, d=100: (numbers(g, b, s, d),), widths=tuple({"d": d} for d in (1, 32, 33, 100))
    ),
    "compress": call(_compress, (0, 1), widths=({"slots": 1, "c": 1}, {"slots": 8, "c": 17}, {"slots": 128, "c": 33})),
    "overlap": call(
        lambda g, b, s, tokens=4, c=3: (numbers(g, b, s + 1, tokens, 2 * c),),
        widths=({"tokens": 1, "c": 1}, {}, {"tokens": 4, "c": 33}),
    ),
    "index_scores": call(_scores, (0, 1, 2), widths=_SCORED),
    "top_k": call(_top_k, (0, 1), widths=({"entries": 1, "k": 1}, {}, {"entries": 300, "k": 64})),
    "index_top_k": call(_index_top_k, (0, 1, 2, 3), widths=tuple({**widths, "k": 9} for widths in _SCORED)),
    "sparse_attention": call(_attention, (0, 1, 2, 3, 4), widths=_NAMED),
    "mhc_weights": call(_mhc, widths=_STREAMS),
    "mhc_head_weights": call(_mhc_head, widths=_STREAMS),
    "mhc_collapse": call(_mhc_collapse, (0, 1), widths=_STREAMS),
    "mhc_mix": call(_mhc_mix, (0, 1, 2, 3), widths=_STREAMS),
    "route": call(_route, widths=({"count": 1, "k": 1}, {}, {"count": 64, "k": 6})),
    "route_by_id": call(_route_by_id, (0, 1), widths=({"count": 1, "k": 1}, {}, {"count": 64, "k": 6})),
    "experts": call(
        _experts(_keep, False), (0, 1), widths=({"d": 1, "width": 1, "count": 1}, {"width": 65}, {"d": 70})
    ),
    "experts fp4": call(_experts(quantise_fp4, True), (0, 1), widths=({}, {"d": 96, "width": 160})),
    "expert": call(_expert, (0, 1), widths=({"d": 1, "width": 1}, {"d": 70, "width": 33})),
}
"""By operation; a second word names another form of the same operation."""
