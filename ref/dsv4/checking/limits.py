"""Arguments at the limits of each operation, by name: ties, −1, excluded slots, huge and tiny numbers.

Each is an example call that was changed in one respect, at which ports are known to go wrong.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from dsv4.checking.examples import Generator
from dsv4.checking.examples41 import EVERY_CALL
from dsv4.ops.moe import Expert, Routing
from dsv4.ops.moe41 import MX_BLOCK
from dsv4.ops.quantise import Fp4Weight, Fp8Weight

Arguments = tuple[Any, ...]
Change = Callable[..., Arguments]
"""Of the arguments of an example call: those of a case at the limits."""


def limits(name: str, generator: Generator) -> list[tuple[str, Arguments]]:
    """The cases at the limits for an operation or a form of it: what each is, and its arguments in float32."""
    found = []
    for what, change in LIMITS.get(name.split()[0], {}).items():
        found.append((what, change(*EVERY_CALL[name].arguments(generator, 2, 3))))
    return found


def _nothing_visible(queries: Any, keys: Any, weights: Any, visible: Any, *others: Any) -> Arguments:
    return queries, keys, weights, 0 * visible, *others


def _tied(queries: Any, keys: Any, weights: Any, *others: Any) -> Arguments:
    return _ties(queries), _ties(keys), _ties(weights), *others


def _newest_is_worst(queries: Any, keys: Any, weights: Any, visible: Any, *others: Any) -> Arguments:
    """The last entries score nothing, and their block is in the pool all the same."""
    keys, size = np.abs(keys), others[0]
    keys[:, -size:] = 0
    return np.abs(queries), keys, np.abs(weights), np.full_like(visible, keys.shape[1]), *others


def _pool_of(*blocks: int) -> Change:
    """The same small pool for each query; −1 for none."""

    def change(queries: Any, keys: Any, weights: Any, visible: Any, pool: Any, *others: Any) -> Arguments:
        small = np.broadcast_to(np.array(blocks, pool.dtype), (*pool.shape[:2], len(blocks))).copy()
        return queries, keys, weights, np.full_like(visible, keys.shape[1]), small, *others

    return change


def _each_block_at_its_size(x: Any, by_token: Any, experts: Any, *others: Any) -> Arguments:
    """Large inputs for small columns: with a scale for more than 32 channels, what stands beside them would vanish."""
    power = 14

    def smaller(matrix: Any) -> Any:
        match matrix:
            case Fp8Weight() | Fp4Weight():
                scales = matrix.scales.copy()
                scales[:, 0] -= power
                return replace(matrix, scales=scales)
        return np.concatenate([matrix[:, :MX_BLOCK] * np.float32(2.0**-power), matrix[:, MX_BLOCK:]], axis=1)

    x = np.concatenate([x[:, :MX_BLOCK] * np.float32(2.0**power), x[:, MX_BLOCK:]], axis=1)
    matrices = [Expert(smaller(one.w1), one.w2, smaller(one.w3)) for one in _several(experts)]
    return x, by_token, matrices if isinstance(experts, list) else matrices[0], *others


def _several(experts: Any) -> list[Expert]:
    return experts if isinstance(experts, list) else [experts]


def _scale_rounded_down(x: Any) -> Arguments:
    """6.2 over 6 is rounded to 1 in E4M3: the largest number of each group is clamped."""
    x = np.clip(x, -6, 6)
    x[..., ::16] = 6.2
    return (x,)


def _alike(streams: Any, keys_and_value: Any, *others: Any) -> Arguments:
    """Keys that are the streams, with the sign of every other one turned."""
    n, d = streams.shape[-2:]
    signs = np.where(np.arange(n) % 2, np.float32(-1), np.float32(1))[:, None]
    keys = (signs * streams).reshape(*streams.shape[:2], n * d)
    q_weight, _, eps = others
    return streams, np.concatenate([keys, keys_and_value[..., n * d :]], axis=-1), q_weight, q_weight, eps


def _no_keys(streams: Any, keys_and_value: Any, *others: Any) -> Arguments:
    """A dot product of 0 counts as 10⁻⁶; eps keeps the norm of nothing a number."""
    keys_and_value = keys_and_value.copy()
    keys_and_value[..., : streams.shape[-2] * streams.shape[-1]] = 0
    return streams, keys_and_value, *others


def _every_index_missing(queries: Any, window: Any, chosen: Any, entries: Any, more: Any, sink: Any) -> Arguments:
    return queries, window, np.full_like(chosen, -1), entries, np.full_like(more, -1), sink


def _missing_beside_a_huge_row(queries: Any, window: Any, chosen: Any, entries: Any, more: Any, sink: Any) -> Arguments:
    """An index of −1 that is read as Python reads it takes the last row."""
    window, entries = window.copy(), entries.copy()
    window[:, -1], entries[:, -1] = 1000, 1000
    chosen, more = np.minimum(chosen, window.shape[1] - 2), np.minimum(more, entries.shape[1] - 2)
    chosen[..., 0], more[..., -1] = -1, -1
    return queries, window, chosen, entries, more, sink


def _no_entries(queries: Any, window: Any, chosen: Any, entries: Any, more: Any, sink: Any) -> Arguments:
    return queries, window, chosen, entries[:, :0], more[..., :0], sink


def _one_row_named_often(queries: Any, window: Any, chosen: Any, entries: Any, more: Any, sink: Any) -> Arguments:
    return queries, window, np.full_like(chosen, 1), entries, np.full_like(more, -1), sink


def _sink_of(value: float) -> Change:
    def change(*arguments: Any) -> Arguments:
        return *arguments[:-1], np.full_like(arguments[-1], value)

    return change


def _first_times(factor: float) -> Change:
    """The first argument, scaled."""

    def change(first: Any, *others: Any) -> Arguments:
        return (first * np.float32(factor)).astype(np.float32), *others

    return change


def _ties(array: Any) -> Any:
    """The same numbers on a coarse grid: sums of their products are exact, and many are equal."""
    return np.clip(np.round(array), -1, 1).astype(np.float32)


def _hidden_is_nan(queries: Any, keys: Any, weights: Any, visible: Any, *others: Any) -> Arguments:
    keys = _ties(keys)
    keys[:, -1] = np.nan
    return _ties(queries), keys, _ties(weights), np.minimum(visible, keys.shape[1] - 1), *others


def _excluded(kv: Any, score: Any) -> Arguments:
    score = score.copy()
    score[:, :, :-1][score[:, :, :-1] > 0] = -np.inf
    return np.where(np.isinf(score), np.float32(1e30), kv), score


def _scaled_rows(x: Any, *others: Any) -> Arguments:
    """Each row at a scale of its own, with zeros of both signs."""
    exponents = np.linspace(-30, 30, x[..., 0].size).reshape(x.shape[:-1])
    x = (x * 10.0 ** exponents[..., None]).astype(np.float32)
    x[..., ::7], x[..., 1::7] = 0.0, -0.0
    return x, *others


def _on_ties(x: Any, *others: Any) -> Arguments:
    """Quarters up to 6: many lie in the middle between two codes."""
    x = np.clip(np.round(2 * x) * np.float32(1.25), -6, 6).astype(np.float32)
    x[..., 0] = 6  # so that FP4's scale is 1
    return x, *others


def _base_of(value: float) -> Change:
    def change(streams: Any, fn: Any, base: Any, *others: Any) -> Arguments:
        return streams, 0 * fn, np.where(base > 0, np.float32(value), np.float32(-value)), *others

    return change


def _bias_decides(logits: Any, bias: Any, *others: Any) -> Arguments:
    return logits, (30 * np.arange(len(bias))).astype(np.float32), *others


def _score_function(name: str) -> Change:
    def change(*arguments: Any) -> Arguments:
        return *arguments[:-2], name, 2.5

    return change


def _one_expert_twice(x: Any, routing: Routing, *others: Any) -> Arguments:
    return x, Routing(routing.weights, np.ones_like(routing.indices)), *others


def _clamped(*arguments: Any) -> Arguments:
    *others, _, rounds = arguments
    return *others, 0.5, rounds


LIMITS: dict[str, dict[str, Change]] = {
    "linear": {"large inputs": _first_times(1e30), "small inputs": _first_times(1e-30)},
    "linears": {"large inputs": _first_times(1e30), "small inputs": _first_times(1e-30)},
    "rms_norm": {"large rows": _first_times(1e15), "small rows": _first_times(1e-15), "zeros": _first_times(0)},
    "rms_scale": {"large rows": _first_times(1e15), "small rows": _first_times(1e-15), "zeros": _first_times(0)},
    "rope": {
        "negative positions, the inverse": lambda x, positions, frequencies: (x, -positions, frequencies),
        "position 0": lambda x, positions, frequencies: (x, 0 * positions, frequencies),
        "far positions": lambda x, positions, frequencies: (x, positions * 997, frequencies),
    },
    "fake_quant_fp8": {"rows of every scale": _scaled_rows, "ties between codes": _on_ties},
    "fake_quant_fp4": {"rows of every scale": _scaled_rows, "ties between codes": _on_ties},
    "compress": {
        "excluded slots": _excluded,
        "scores of any size": lambda kv, score: (kv, np.where(score > 0, np.float32(1e30), np.float32(-1e30))),
    },
    "index_scores": {"large queries": _first_times(1e15)},
    "top_k": {
        "ties": lambda scores, visible, k: (_ties(scores), visible, k),
        "nothing visible": lambda scores, visible, k: (scores, 0 * visible, k),
        "k above the entries": lambda scores, visible, k: (scores, visible, scores.shape[-1] + 3),
        "scores of −∞": lambda scores, visible, k: (
            np.where(scores > 0, np.float32(-np.inf), np.float32(1)),
            visible,
            k,
        ),
    },
    "index_top_k": {
        "ties": _tied,
        "nothing visible": _nothing_visible,
        "a hidden key of NaN": _hidden_is_nan,
    },
    "sparse_attention": {
        "every index is −1": _every_index_missing,
        "−1 beside a huge last row": _missing_beside_a_huge_row,
        "no entries": _no_entries,
        "one row named often": _one_row_named_often,
        "large logits": _first_times(1e6),
        "a sink that takes all": _sink_of(200),
        "a sink that takes nothing": _sink_of(-200),
    },
    "mhc_weights": {
        "huge logits": _base_of(1e4),
        "one round of Sinkhorn": lambda *arguments: (*arguments[:4], 1, *arguments[5:]),
        "large eps": lambda *arguments: (*arguments[:5], 0.01, 0.1),
        "streams of zeros": _first_times(0),
    },
    "mhc_head_weights": {"huge logits": _base_of(60), "large eps": lambda *arguments: (*arguments[:4], 0.01, 0.1)},
    "route": {
        "a bias that decides": _bias_decides,
        "equal scores": lambda logits, bias, *others: (0 * logits, 0 * bias, *others),
        "sigmoid": _score_function("sigmoid"),
        "softmax": _score_function("softmax"),
        "large logits": _first_times(60),
    },
    "route_by_id": {
        "sqrtsoftplus": _score_function("sqrtsoftplus"),
        "softmax": _score_function("softmax"),
        "one expert twice": lambda logits, indices, *others: (logits, 0 * indices, *others),
    },
    "experts": {"one expert twice": _one_expert_twice, "clamped": _clamped},
    "expert": {"clamped": _clamped},
    "fake_quant_nvfp4": {
        "rows of every scale": _scaled_rows,
        "ties between codes": _on_ties,
        "a scale that is rounded down": _scale_rounded_down,
    },
    "index_candidates": {
        "ties": _tied,
        "nothing visible": _nothing_visible,
        "a hidden key of NaN": _hidden_is_nan,
        "the newest block is the worst": _newest_is_worst,
    },
    "index_top_k_among": {
        "ties": _tied,
        "nothing visible": _nothing_visible,
        "a hidden key of NaN": _hidden_is_nan,
        "an empty pool": _pool_of(-1, -1),
        "fewer in the pool than are wanted": _pool_of(1, -1),
    },
    "route41": {
        "a bias that decides": _bias_decides,
        "equal scores": lambda logits, bias, *others: (0 * logits, 0 * bias, *others),
        "one expert": lambda logits, bias, k, *others: (logits, bias, 1, *others),
        "sigmoid": _score_function("sigmoid"),
        "large logits": _first_times(60),
    },
    "mx_experts": {
        "one expert twice": _one_expert_twice,
        "clamped": _clamped,
        "large beside small inputs": _each_block_at_its_size,
    },
    "mx_expert": {"clamped": _clamped, "large beside small inputs": _each_block_at_its_size},
    "engram_gate": {
        "keys like the streams": _alike,
        "keys of zeros": _no_keys,
        "large streams": _first_times(1e15),
        "small streams": _first_times(1e-8),
    },
    "engram_rows": {"one class": lambda classes, *others: (np.full_like(classes, classes.max()), *others)},
}
