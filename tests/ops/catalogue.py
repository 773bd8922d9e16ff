"""One example call of every operation, for the properties that all operations share."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dsv4.ops import Expert, Routing
from dsv4.ops.quantise import quantise_fp4, quantise_fp8


class Call(NamedTuple):
    """How to call an operation for a batch of some rows, each of some length."""

    arguments: Callable[[np.random.Generator, int, int], tuple]
    per_row: tuple[int, ...]
    """The arguments whose first axis is the batch."""
    dtype_from: tuple[int, ...]
    """The arguments that decide the dtype of the result; parameters stay in float32."""


def call(arguments, per_row=(0,), dtype_from=None) -> Call:
    return Call(arguments, per_row, per_row if dtype_from is None else dtype_from)


def numbers(generator, *shape):
    """float32 as everything is in the model."""
    return generator.standard_normal(shape).astype(np.float32)


def _experts(generator, count, store=lambda matrix: matrix):
    shapes = (32, 32), (32, 32), (32, 32)
    return [Expert(*(store(numbers(generator, *shape)) for shape in shapes)) for _ in range(count)]


def _routing(generator, tokens):
    return Routing(numbers(generator, tokens, 2), generator.integers(0, 3, (tokens, 2)))


def _attention(g, batch, length):
    window_index, entry_index = g.integers(-1, 5, (batch, length, 4)), g.integers(-1, 6, (batch, length, 3))
    window, entries = numbers(g, batch, 5, 8), numbers(g, batch, 6, 8)
    return numbers(g, batch, length, 3, 8), window, window_index, entries, entry_index, numbers(g, 3)


def _index_top_k(g, b, s):
    return numbers(g, b, s, 2, 8), numbers(g, b, 5, 8), numbers(g, b, s, 2), g.integers(0, 6, (b, s)), 4


def _mhc(g, batch, length):
    return numbers(g, batch, length, 4, 3), numbers(g, 24, 12), numbers(g, 24), numbers(g, 3), 20, 1e-6, 1e-6


def _mhc_head(g, batch, length):
    return numbers(g, batch, length, 4, 3), numbers(g, 4, 12), numbers(g, 4), numbers(g, 1), 1e-6, 1e-6


def _mhc_mix(g, b, s):
    return numbers(g, b, s, 4, 3), numbers(g, b, s, 3), numbers(g, b, s, 4), numbers(g, b, s, 4, 4)


CALLS = {
    "embedding": call(lambda g, b, s: (g.integers(0, 7, (b, s)), numbers(g, 7, 5)), dtype_from=(1,)),
    "linear": call(lambda g, b, s: (numbers(g, b, s, 6), numbers(g, 5, 6))),
    "linear fp8": call(lambda g, b, s: (numbers(g, b, s, 160), quantise_fp8(numbers(g, 130, 160)))),
    "linear fp4": call(lambda g, b, s: (numbers(g, b, s, 64), quantise_fp4(numbers(g, 9, 64)))),
    "linear fp8 that rounds": call(lambda g, b, s: (numbers(g, b, s, 160), quantise_fp8(numbers(g, 130, 160)), True)),
    "linear fp4 that rounds": call(lambda g, b, s: (numbers(g, b, s, 64), quantise_fp4(numbers(g, 9, 64)), True)),
    "grouped_linear": call(lambda g, b, s: (numbers(g, b, s, 8), numbers(g, 6, 4), 2)),
    "rms_norm": call(lambda g, b, s: (numbers(g, b, s, 6), numbers(g, 6), 1e-6)),
    "rms_scale": call(lambda g, b, s: (numbers(g, b, s, 3, 6), 1e-6)),
    "rope": call(lambda g, b, s: (numbers(g, b, s, 6), g.integers(0, 50, (b, s)), numbers(g, 2)), (0, 1)),
    "rope of heads": call(lambda g, b, s: (numbers(g, b, s, 3, 6), g.integers(0, 50, (b, s)), numbers(g, 2)), (0, 1)),
    "hadamard": call(lambda g, b, s: (numbers(g, b, s, 8),)),
    "fake_quant_fp8": call(lambda g, b, s: (numbers(g, b, s, 100), 64)),
    "fake_quant_fp4": call(lambda g, b, s: (numbers(g, b, s, 100),)),
    "compress": call(lambda g, b, s: (numbers(g, b, s, 4, 3), numbers(g, b, s, 4, 3)), (0, 1)),
    "overlap": call(lambda g, b, s: (numbers(g, b, s + 1, 4, 6),)),
    "index_scores": call(lambda g, b, s: (numbers(g, b, s, 2, 8), numbers(g, b, 5, 8), numbers(g, b, s, 2)), (0, 1, 2)),
    "top_k": call(lambda g, b, s: (numbers(g, b, s, 9), g.integers(0, 10, (b, s)), 4), (0, 1)),
    "index_top_k": call(_index_top_k, (0, 1, 2, 3)),
    "sparse_attention": call(_attention, (0, 1, 2, 3, 4)),
    "mhc_weights": call(_mhc),
    "mhc_head_weights": call(_mhc_head),
    "mhc_collapse": call(lambda g, b, s: (numbers(g, b, s, 4, 3), numbers(g, b, s, 4)), (0, 1)),
    "mhc_mix": call(_mhc_mix, (0, 1, 2, 3)),
    "route": call(lambda g, b, s: (numbers(g, b, 8), numbers(g, 8), 3, "sqrtsoftplus", 1.5)),
    "route_by_id": call(lambda g, b, s: (numbers(g, b, 8), g.integers(0, 8, (b, 3)), "sigmoid", 1.5), (0, 1)),
    "experts": call(lambda g, b, s: (numbers(g, b, 32), _routing(g, b), _experts(g, 3), 10.0, False), (0, 1)),
    "experts fp4": call(
        lambda g, b, s: (numbers(g, b, 32), _routing(g, b), _experts(g, 3, quantise_fp4), 10.0, True), (0, 1)
    ),
    "expert": call(lambda g, b, s: (numbers(g, b, 32), numbers(g, b), *_experts(g, 1), 10.0, False), (0, 1)),
}
"""By operation; a second word names another form of the same operation."""
