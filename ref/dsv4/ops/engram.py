"""Engram: what a token and the few before it name in a large table, mixed into the streams (V4.1's report §2.4.2).

Tokens count by their class: those whose texts are alike once they are normalised are one.
"""

import math

import numpy as np

from dsv4.ops.elementwise import sigmoid
from dsv4.ops.quantise import Fp8Weight, dequantise
from dsv4.ops.types import Array, Ints

SEED = 10007
"""Times the layer's number, the seed of its multipliers."""

SMALLEST_DOT = 1e-6
"""A similarity counts as at least this far from 0 before its root is taken."""


def engram_multipliers(layer: int, classes: int, longest: int) -> Ints:
    """The odd numbers with which a layer's hashes multiply the classes of a token and of those before it.

    layer: its number, from 0; classes: how many token classes there are; longest: N, the longest n-gram. Returns [N]
    int64; a class times its multiplier never overflows. Source: code (engram.py).
    """
    most = max(1, np.iinfo(np.int64).max // classes // 2)
    drawn: Ints = np.random.default_rng(SEED * layer).integers(0, most, size=longest, dtype=np.int64)
    return drawn * 2 + 1


def engram_moduli(layers: int, longest: int, heads: int, least: int) -> Ints:
    """A prime for every head of every order of every layer: consecutive ones from `least` on, none twice.

    layers: how many layers have an Engram; longest: N; heads: for each order 2 … N. Returns [layers, N−1, heads]
    int64. The sum of a layer's primes is the number of rows of its table. Source: code (engram.py).
    """
    wanted = layers * (longest - 1) * heads
    primes, number = list[int](), least
    while len(primes) < wanted:
        if _is_prime(number):
            primes.append(number)
        number += 1
    return np.array(primes, np.int64).reshape(layers, longest - 1, heads)


def engram_rows(classes: Ints, multipliers: Ints, moduli: Ints) -> Ints:
    """The rows of the table that each token reads, one for every order and head.

    classes [B, N−1+S] int64: of the N−1 tokens before the first one, then of the tokens; multipliers [N] int64; moduli
    [N−1, heads] int64. Returns [B, S, (N−1)·heads] int64, by order and then head: each column has rows of its own. The
    hash of order o is the exclusive or of the products of the last o classes. Raises ValueError for too few classes.
    Source: V4.1's report §2.4.2; code (engram.py).
    """
    orders, heads = moduli.shape
    if len(multipliers) != orders + 1 or classes.shape[1] < orders:
        raise ValueError(f"engram_rows: classes {classes.shape} and moduli {moduli.shape} do not fit {multipliers}")
    length = classes.shape[1] - orders
    offsets = (np.cumsum(moduli) - moduli.reshape(-1)).reshape(moduli.shape)
    hashed = classes[:, orders:] * multipliers[0]  # [B, S]
    columns = []
    for back in range(1, orders + 1):
        hashed = hashed ^ (classes[:, orders - back : orders - back + length] * multipliers[back])
        columns.append(hashed[..., None] % moduli[back - 1] + offsets[back - 1])  # [B, S, heads]
    return np.stack(columns, axis=2).reshape(len(classes), length, orders * heads)


def table_rows(table: Array | Fp8Weight, rows: Ints) -> Array:
    """Some rows of a table, of which no others are touched.

    table [N, width], dense or FP8 with scales for parts of single rows; rows: any shape, integer. Returns
    [..., width] float32. Raises IndexError for a row that there is not. Source: code: the embedding of the Engram.
    """
    flat = rows.reshape(-1)
    match table:
        case Fp8Weight(codes, scales, block):
            found = dequantise(Fp8Weight(codes[flat], scales[flat], block))
        case _:
            found = dequantise(table[flat])
    return found.reshape(*rows.shape, table.shape[1])


def engram_gate(streams: Array, keys_and_value: Array, q_weight: Array, k_weight: Array, eps: float) -> Array:
    """The streams with the value added to each, by as much as its key resembles the stream.

    streams [B, S, n, d]; keys_and_value [B, S, (n+1)·d]: a key for each stream, then the value; q_weight, k_weight
    [n, d]: of the norms of streams and keys. Returns [B, S, n, d]. The gate is σ of the signed root of the dot
    product of stream and key, each normalised by itself, over sqrt(d). Raises ValueError where the shapes do not fit.
    Source: V4.1's report §2.4.2; code: Engram.
    """
    gates = engram_gates(streams, keys_and_value, q_weight, k_weight, eps)
    n, d = streams.shape[2:]
    value = keys_and_value[..., n * d :]
    gated: Array = streams + gates[..., None] * value[:, :, None]
    return gated


def engram_gates(streams: Array, keys_and_value: Array, q_weight: Array, k_weight: Array, eps: float) -> Array:
    """With what weight `engram_gate`, which has the same arguments and errors, adds the value to each stream.

    Returns [B, S, n], each between 0 and 1.
    """
    n, d = streams.shape[2:]
    if keys_and_value.shape != (*streams.shape[:2], (n + 1) * d) or not q_weight.shape == k_weight.shape == (n, d):
        weights = f"q_weight {q_weight.shape}, k_weight {k_weight.shape}"
        raise ValueError(f"engram_gate: {keys_and_value.shape}, {weights} do not fit streams {streams.shape}")
    dtype = streams.dtype.type
    keys = keys_and_value[..., : n * d].reshape(streams.shape)
    weight = q_weight.astype(dtype) * k_weight.astype(dtype)
    product = (streams * weight * keys).sum(axis=-1)  # [B, S, n]
    dot = product / (_root_mean_square(streams, eps) * _root_mean_square(keys, eps)) * dtype(d**-0.5)
    root = np.copysign(np.sqrt(np.maximum(np.abs(dot), dtype(SMALLEST_DOT))), dot)
    return sigmoid(root)


def _root_mean_square(x: Array, eps: float) -> Array:
    """[B, S, n, d] -> [B, S, n]"""
    root: Array = np.sqrt(np.mean(np.square(x), axis=-1) + x.dtype.type(eps))
    return root


def _is_prime(number: int) -> bool:
    divisors = np.arange(2, math.isqrt(number) + 1)
    return number > 1 and bool((number % divisors != 0).all())
