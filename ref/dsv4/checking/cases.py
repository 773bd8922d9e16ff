"""The cases of a check, the same each time: an operation's arguments from small to large, and at its limits."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from dsv4.checking.arrays import in_dtype
from dsv4.checking.examples import Generator
from dsv4.checking.examples41 import EVERY_CALL
from dsv4.checking.limits import limits
from dsv4.ops.indexer import index_scores
from dsv4.ops.linear import linear
from dsv4.ops.moe import Routing, expert_scores, swiglu
from dsv4.ops.moe41 import MX_BLOCK, mx_linear
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
    call = EVERY_CALL[name]
    for number, (widths, (batch, length)) in enumerate(product(call.widths, ROWS)):
        yield Case("", settled(name, number, lambda g, b=batch, s=length, w=widths: call.arguments(g, b, s, **w)))


def at_the_limits(name: str) -> Iterator[Case]:
    """The cases that `limits` knows for an operation or a form of it."""
    for number, (what, _) in enumerate(limits(name, np.random.default_rng(0))):
        yield Case(what, settled(name, 1000 + number, lambda g, number=number: limits(name, g)[number][1]))


def example(name: str, batch: int = 3, length: int = 5, seed: int = 0) -> list[Any]:
    """The arguments of an operation's example call."""
    return list(EVERY_CALL[name].arguments(np.random.default_rng(seed), batch, length))


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


def _index_top_k(queries: Any, keys: Any, weights: Any, *others: Any) -> bool:
    """Sums of whole numbers are exact in any order; those of others are far enough from each other, or 0."""
    scores = index_scores(queries, keys, weights)
    is_whole = all((array == np.round(array))[~np.isnan(array)].all() for array in (queries, keys, weights))
    return is_whole or _apart(scores)


def _visits_settled(product: Callable[..., Any], block: int) -> Callable[..., bool]:
    """Of experts whose products are these and round their inputs in such blocks."""

    def settled(x: Any, routing: Any, expert_list: Any, limit: float, rounds: bool) -> bool:
        """Whether no hidden number is so close to the middle of two FP8 codes that it may become either."""
        visits = np.ndindex(routing.indices.shape) if rounds else ()
        return all(
            _visit_settled(x[token], routing.weights[token, slot], expert_list[routing.indices[token, slot]], limit)
            for token, slot in visits
        )

    def _visit_settled(x: Any, share: Any, matrices: Any, limit: float) -> bool:
        hidden = share * swiglu(product(x, matrices.w1, True), product(x, matrices.w3, True), limit)
        margin = 1e-6 * np.abs(hidden) + 1e-7 * np.abs(hidden).max(initial=0)
        lower, upper = (fp8_blocks(hidden + shift, block) for shift in (-margin, margin))
        return all((one == other).all() for one, other in zip(lower, upper, strict=True))

    return settled


_mx_experts = _visits_settled(mx_linear, MX_BLOCK)


def _mx_expert(x: Any, share: Any, matrices: Any, limit: float, rounds: bool) -> bool:
    """As for the routed ones: each token visits this one."""
    return _mx_experts(x, Routing(share[:, None], np.zeros((len(x), 1), np.int64)), [matrices], limit, rounds)


def _engram_gate(streams: Any, keys_and_value: Any, q_weight: Any, k_weight: Any, eps: float) -> bool:
    """Whether no dot product is so close to 0 that its sign, or the root of it, hangs on how it was added up."""
    keys = keys_and_value[..., : streams.shape[-2] * streams.shape[-1]].reshape(streams.shape)
    terms = streams * q_weight * k_weight * keys
    return bool((np.abs(terms.sum(axis=-1)) >= 1e-3 * np.abs(terms).sum(axis=-1)).all())


SETTLED: dict[str, Callable[..., bool]] = {
    "route": _route,
    "index_top_k": _index_top_k,
    "experts": _visits_settled(linear, FP8_WEIGHT_BLOCK),
    "index_candidates": _index_top_k,
    "index_top_k_among": _index_top_k,
    "route41": _route,
    "mx_expert": _mx_expert,
    "mx_experts": _mx_experts,
    "engram_gate": _engram_gate,
}
"""By operation: whether its choices for these arguments are clear, in float64."""
