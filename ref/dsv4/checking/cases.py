"""The cases of a check, the same each time: an operation's arguments from small to large, and at its limits."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from dsv4.checking.arrays import in_dtype
from dsv4.checking.examples import CALLS, Generator
from dsv4.checking.limits import limits
from dsv4.ops.indexer import index_scores
from dsv4.ops.linear import linear
from dsv4.ops.moe import expert_scores, swiglu
from dsv4.ops.quantise import FP8_WEIGHT_BLOCK, fp8_blocks

ROWS = ((1, 1), (2, 3), (3, 9))
"""Batch and length of the cases of each width."""

MOST_TRIES = 1000


@dataclass(frozen=True)
class Case:
    """Arguments in float32, and what is special about them."""

    what: str
    """Empty for a case that is only of some size."""
    arguments: tuple[Any, ...]


def by_size(name: str) -> Iterator[Case]:
    """Cases of every width, batch and length of an operation or a form of it, from the smallest to the largest."""
    call = CALLS[name]
    for number, (widths, (batch, length)) in enumerate(product(call.widths, ROWS)):
        yield Case("", settled(name, number, lambda g, b=batch, s=length, w=widths: call.arguments(g, b, s, **w)))


def at_the_limits(name: str) -> Iterator[Case]:
    """The cases that `limits` knows for an operation or a form of it."""
    for number, (what, _) in enumerate(limits(name, np.random.default_rng(0))):
        yield Case(what, settled(name, 1000 + number, lambda g, number=number: limits(name, g)[number][1]))


def example(name: str, batch: int = 3, length: int = 5, seed: int = 0) -> list[Any]:
    """The arguments of an operation's example call."""
    return list(CALLS[name].arguments(np.random.default_rng(seed), batch, length))


def settled(name: str, number: int, make: Callable[..., tuple[Any, ...]]) -> tuple[Any, ...]:
    """The first arguments of a case whose choices do not depend on how a last bit was rounded."""
    is_settled = SETTLED.get(name.split()[0])
    for attempt in range(MOST_TRIES):
        generator: Generator = np.random.default_rng([zlib.crc32(name.encode()), number, attempt])
        arguments = make(generator)
        if is_settled is None or is_settled(*in_dtype(arguments, np.float64)):
            return arguments
    raise AssertionError(f"{name}: expected arguments without a close choice among {MOST_TRIES}")


def _apart(scores: Any) -> bool:
    """Whether any two of a row's numbers are equal or clearly different. [..., N]"""
    gaps = np.diff(np.sort(scores, axis=-1), axis=-1)
    gaps = gaps[np.isfinite(gaps)]
    return bool(((gaps == 0) | (gaps > 1e-5 * np.abs(scores[np.isfinite(scores)]).max(initial=0))).all())


def _route(logits: Any, bias: Any, k: int, score_function: str, scale: float) -> bool:
    return _apart(expert_scores(logits, score_function) + bias)


def _index_top_k(queries: Any, keys: Any, weights: Any, visible: Any, k: int) -> bool:
    """Sums of whole numbers are exact in any order; those of others are far enough from each other, or 0."""
    scores = index_scores(queries, keys, weights)
    is_whole = all((array == np.round(array))[~np.isnan(array)].all() for array in (queries, keys, weights))
    return is_whole or _apart(scores)


def _experts(x: Any, routing: Any, expert_list: Any, limit: float, rounds: bool) -> bool:
    """Whether no hidden number is so close to the middle of two FP8 codes that it may become either."""
    if not rounds:
        return True
    for token, slot in np.ndindex(routing.indices.shape):
        matrices = expert_list[routing.indices[token, slot]]
        gate, up = linear(x[token], matrices.w1, True), linear(x[token], matrices.w3, True)
        hidden = routing.weights[token, slot] * swiglu(gate, up, limit)
        margin = 1e-6 * np.abs(hidden) + 1e-7 * np.abs(hidden).max(initial=0)
        lower, upper = (fp8_blocks(hidden + shift, FP8_WEIGHT_BLOCK) for shift in (-margin, margin))
        if any((one != other).any() for one, other in zip(lower, upper, strict=True)):
            return False
    return True


SETTLED: dict[str, Callable[..., bool]] = {"route": _route, "index_top_k": _index_top_k, "experts": _experts}
"""By operation: whether its choices for these arguments are clear, in float64."""
