"""Calls of every operation at shapes at which kernels take all of their ways.

Many rows and few, whole vectors and tails, work enough for all threads, weights of several chunks with a rest behind.
The example calls of `dsv4.checking.examples` are part of it. Numbers of keys differ from the number of queries, so
that the axes of an argument tell what it belongs to.
"""

import ml_dtypes
import numpy as np

from dsv4.checking.arrays import numbers
from dsv4.checking.examples import CALLS as EXAMPLES
from dsv4.checking.examples import Call, call
from dsv4.ops import OPERATIONS, OPERATIONS_41, Expert, Ops, Routing
from dsv4.ops.packed_rows import Fp4Format, Fp8Format, Nvfp4Format, PackedRows
from dsv4.ops.quantise import fake_quant_fp4, quantise_fp4, quantise_fp8

STORE = {
    "float32": lambda matrix: matrix,
    "bf16": lambda matrix: matrix.astype(ml_dtypes.bfloat16),
    "fp8": quantise_fp8,
    "mx": lambda matrix: quantise_fp8(matrix, (32, 32)),
    "fp4": quantise_fp4,
}
WIDTHS = {"float32": 333, "bf16": 333, "fp8": 333, "mx": 333, "fp4": 352}
"""Two chunks of 128 columns and a rest."""


def _weight(g, storage, rows, columns):
    return STORE[storage](numbers(g, rows, columns) / np.float32(columns**0.5))


def _product(storage, rounds):
    width = WIDTHS[storage]
    return call(lambda g, b, s: (numbers(g, b, s, width), _weight(g, storage, 150, width), rounds))


def _products(rounds, *storages):
    """Weights of different heights; those of one storage are stored alike."""
    width = min(WIDTHS[storage] for storage in storages) if "fp4" not in storages else WIDTHS["fp4"]
    heights = range(70, 70 + 65 * len(storages), 65)

    def arguments(g, b, s):
        pairs = zip(storages, heights, strict=True)
        return numbers(g, b, s, width), [_weight(g, storage, rows, width) for storage, rows in pairs], rounds

    return call(arguments)


def _grouped(storage):
    width = WIDTHS[storage]
    return call(lambda g, b, s: (numbers(g, b, s, 2 * width), _weight(g, storage, 2 * 70, width), 2))


def _experts(storage, width, rounds):
    """Expert 3 of five gets nearly all tokens, expert 4 none; the others a few each."""

    def arguments(g, b, s):
        indices = np.where(g.random((b, 2)) < 0.7, 3, g.integers(0, 3, (b, 2)))
        shapes = (width, 256), (256, width), (width, 256)
        matrices = [Expert(*(_weight(g, storage, *shape) for shape in shapes)) for _ in range(5)]
        return 3 * numbers(g, b, 256), Routing(numbers(g, b, 2), indices), matrices, 4.0, rounds

    return call(arguments, (0, 1))


def _expert(storage, width, rounds):
    def arguments(g, b, s):
        shapes = (width, 256), (256, width), (width, 256)
        return 3 * numbers(g, b, 256), numbers(g, b), Expert(*(_weight(g, storage, *x) for x in shapes)), 4.0, rounds

    return call(arguments, (0, 1))


def _attention(heads, width, window, entries, chosen):
    def arguments(g, b, s):
        places = g.integers(-1, window, (b, s, window)), g.integers(-1, max(entries, 1), (b, s, chosen))
        keys = numbers(g, b, window, width), numbers(g, b, entries, width)
        return numbers(g, b, s, heads, width), keys[0], places[0], keys[1], places[1], numbers(g, heads)

    return call(arguments, (0, 1, 2, 3, 4))


def _scores(heads, width, entries):
    return call(
        lambda g, b, s: (numbers(g, b, s, heads, width), numbers(g, b, entries, width), numbers(g, b, s, heads)),
        (0, 1, 2),
    )


def _top_k(entries, k):
    """Scores of which many are equal."""
    return call(
        lambda g, b, s: (
            np.round(numbers(g, b, s, entries), 1).astype(np.float32),
            g.integers(0, entries + 1, (b, s)),
            k,
        ),
        (0, 1),
    )


def _index_top_k(heads, width, entries, k):
    def arguments(g, b, s):
        keys = numbers(g, b, s, heads, width), numbers(g, b, entries, width)
        return *keys, numbers(g, b, s, heads), g.integers(0, entries + 1, (b, s)), k

    return call(arguments, (0, 1, 2, 3))


def _packed(unpacked: Call, forms) -> Call:
    """The same call with rows that are packed, in the format of their place."""

    def arguments(g, b, s):
        given = enumerate(unpacked.arguments(g, b, s))
        return tuple(PackedRows(forms[at].pack(one), forms[at]) if at in forms else one for at, one in given)

    return unpacked._replace(arguments=arguments)


def _rounded(given: Call) -> Call:
    """The same call with queries that are rounded to FP4, as those of the indexer are."""

    def arguments(g, b, s):
        queries, *others = given.arguments(g, b, s)
        return fake_quant_fp4(queries), *others

    return given._replace(arguments=arguments)


def _pools(heads, width, entries, size, count):
    """Keys of which many give equal scores, so that blocks and entries are equal, too."""

    def arguments(g, b, s):
        keys = np.round(numbers(g, b, s, heads, width)), np.round(numbers(g, b, entries, width))
        return *keys, np.round(2 * numbers(g, b, s, heads)), g.integers(0, entries + 1, (b, s)), size, count

    return call(arguments, (0, 1, 2, 3))


def _in_pools(heads, width, entries, size, blocks, k):
    """Pools in any order, with some blocks twice and some places empty."""

    def arguments(g, b, s):
        *keys, visible, _, _ = _pools(heads, width, entries, size, 1).arguments(g, b, s)
        return *keys, visible, g.integers(-1, -(-entries // size), (b, s, blocks)), size, k

    return call(arguments, (0, 1, 2, 3, 4))


def _gate(streams, width):
    def arguments(g, b, s):
        weights = numbers(g, streams, width), numbers(g, streams, width)
        return numbers(g, b, s, streams, width), numbers(g, b, s, (streams + 1) * width), *weights, 1e-20

    return call(arguments, (0, 1))


def _spread(g, *shape):
    """Numbers of very different sizes, as blocks with scales of their own need, and zeros of both signs."""
    x = numbers(g, *shape) * np.exp2(np.round(6 * g.standard_normal(shape)))
    return np.where(np.abs(x) < 1e-4, np.copysign(0, x), x).astype(np.float32)


def _routing(by_id, function, experts, chosen):
    """Logits and biases of which many are equal, and so few different ones that no sums are nearly equal."""

    def arguments(g, b, s):
        logits = np.round(3 * numbers(g, b, experts), 1).astype(np.float32)
        by = (g.integers(0, experts, (b, chosen)),) if by_id else (np.round(numbers(g, experts)) / 4, chosen)
        return logits, *by, function, 1.5

    return call(arguments, (0, 1) if by_id else (0,))


def _mhc(g, b, s):
    return numbers(g, b, s, 4, 130), numbers(g, 24, 520) / 20, numbers(g, 24), numbers(g, 3), 20, 1e-6, 1e-6


def _mhc_head(g, b, s):
    return numbers(g, b, s, 4, 130), numbers(g, 4, 520) / 20, numbers(g, 4), numbers(g, 1), 1e-6, 1e-6


def _mhc_mix(g, b, s):
    return numbers(g, b, s, 4, 130), numbers(g, b, s, 130), numbers(g, b, s, 4), numbers(g, b, s, 4, 4)


def _rope(heads, width):
    return call(
        lambda g, b, s: (numbers(g, b, s, heads, width), g.integers(0, 2**20, (b, s)), np.exp(-numbers(g, 32))), (0, 1)
    )


LARGE: dict[str, Call] = {
    **{f"linear {storage} large": _product(storage, False) for storage in STORE},
    **{f"linear that rounds {storage} large": _product(storage, True) for storage in ("fp8", "mx", "fp4")},
    **{f"linears {storage} large": _products(False, *[storage] * 3) for storage in STORE},
    "linears of every storage": _products(False, *STORE),
    **{f"grouped_linear {storage} large": _grouped(storage) for storage in STORE},
    "linear fp4 of whole chunks": call(lambda g, b, s: (numbers(g, b, s, 512), _weight(g, "fp4", 200, 512))),
    **{f"experts {storage} large": _experts(storage, 128, storage == "fp4") for storage in STORE},
    "experts fp4 of no whole chunks": _experts("fp4", 160, True),
    "experts fp4 without rounding": _experts("fp4", 256, False),
    **{
        f"expert {storage} large": _expert(storage, 96 if storage == "fp4" else 103, storage == "fp8")
        for storage in STORE
    },
    **{f"mx_experts {storage} large": _experts(storage, 128, storage == "fp4") for storage in STORE},
    "mx_experts fp4 of no whole chunks": _experts("fp4", 160, True),
    "mx_experts fp4 without rounding": _experts("fp4", 256, False),
    **{
        f"mx_expert {storage} large": _expert(storage, 96 if storage == "fp4" else 103, storage == "mx")
        for storage in STORE
    },
    "rms_norm large": call(lambda g, b, s: (numbers(g, b, s, 777), numbers(g, 777), 1e-6)),
    "rms_scale large": call(lambda g, b, s: (numbers(g, b, s, 9, 96), 1e-6)),
    "rope large": _rope(9, 100),
    "hadamard large": call(lambda g, b, s: (numbers(g, b, s, 5, 128),)),
    "fake_quant_fp8 large": call(lambda g, b, s: (_spread(g, b, s, 459), 64)),
    "fake_quant_fp4 large": call(lambda g, b, s: (_spread(g, b, s, 459),)),
    "fake_quant_nvfp4 large": call(lambda g, b, s: (_spread(g, b, s, 459),)),
    "compress large": call(lambda g, b, s: (numbers(g, b, s, 128, 40), 3 * numbers(g, b, s, 128, 40)), (0, 1)),
    "compress of eight": call(lambda g, b, s: (numbers(g, b, s, 8, 72), 3 * numbers(g, b, s, 8, 72)), (0, 1)),
    "index_scores large": _scores(5, 64, 301),
    "index_scores of odd widths": _scores(3, 40, 70),
    "top_k large": _top_k(1000, 64),
    "top_k of few": _top_k(70, 64),
    "top_k of fewer than blocks": _top_k(1000, 5),
    "index_top_k large": _index_top_k(5, 64, 301, 40),
    "index_scores packed": _packed(_scores(3, 40, 70), {1: Fp4Format(40)}),
    "index_top_k packed": _packed(_index_top_k(5, 80, 301, 40), {1: Fp4Format(80)}),
    "index_top_k packed, rounded": _packed(_rounded(_index_top_k(70, 128, 301, 40)), {1: Fp4Format(128)}),
    "sparse_attention packed": _packed(
        _attention(6, 80, 40, 100, 33), {1: Fp8Format(80, 64, 8), 3: Fp8Format(80, 64, 8)}
    ),
    "sparse_attention packed as in V4.1": _packed(
        _attention(17, 72, 40, 300, 20), {1: Fp8Format(72, 32), 3: Nvfp4Format(72)}
    ),
    "index_candidates large": _pools(5, 64, 301, 8, 12),
    "index_candidates of odd blocks": _pools(3, 40, 200, 7, 40),
    "index_top_k_among large": _in_pools(5, 64, 601, 8, 50, 40),
    "index_top_k_among of few": _in_pools(3, 40, 70, 3, 4, 20),
    "sparse_attention large": _attention(6, 80, 40, 100, 33),
    "sparse_attention wide": _attention(17, 128, 128, 70, 20),
    "sparse_attention without entries": _attention(5, 72, 33, 0, 0),
    "route large": _routing(False, "sqrtsoftplus", 300, 6),
    "route41 large": _routing(False, "sqrtsoftplus", 300, 6),
    "route41 of one": _routing(False, "sigmoid", 37, 1),
    "route_by_id large": _routing(True, "softmax", 300, 6),
    **{f"route by {function}": _routing(False, function, 37, 37) for function in ("sigmoid", "softmax")},
    **{f"route_by_id by {function}": _routing(True, function, 37, 9) for function in ("sigmoid", "sqrtsoftplus")},
    "mhc_weights large": call(_mhc),
    "mhc_head_weights large": call(_mhc_head),
    "mhc_collapse large": call(lambda g, b, s: (numbers(g, b, s, 4, 130), numbers(g, b, s, 4)), (0, 1)),
    "mhc_mix large": call(_mhc_mix, (0, 1, 2, 3)),
    "engram_gate large": _gate(4, 330),
}
CALLS = EXAMPLES | LARGE


def overridden() -> list[str]:
    """The operations that the Numba backend computes itself."""
    from dsv4_accel.numba import NumbaOps

    return [name for name in (*OPERATIONS, *OPERATIONS_41) if getattr(NumbaOps, name) is not getattr(Ops, name)]


def operation(name: str) -> str:
    return name.split()[0]


def arguments(name: str, batch: int, length: int, seed: int = 0) -> list:
    return list(CALLS[name].arguments(np.random.default_rng(seed), batch, length))


def run(ops, name: str, given: list) -> tuple:
    """The results as a tuple of arrays, even if there is only one."""
    result = getattr(ops, operation(name))(*given)
    return result if isinstance(result, tuple) else (result,)


def rows(name: str, given: list, chosen) -> list:
    """The arguments for some rows of the batch."""
    return [_cut(one, chosen) if place in CALLS[name].per_row else one for place, one in enumerate(given)]


def _cut(value, chosen):
    return (
        value[chosen] if isinstance(value, np.ndarray | PackedRows) else type(value)(*(part[chosen] for part in value))
    )


def bits(array: np.ndarray) -> np.ndarray:
    """An array that is equal where the bits are, zeros of both signs and NaN included."""
    return np.ascontiguousarray(array).view(f"u{array.itemsize}")
