"""The products of streams with their weights: mirrors dsv4.learn.vjp.mhc, for four streams as in all V4 models."""

from collections.abc import Callable

import numpy as np
from numba import types

from dsv4.learn.vjp import mhc as reference
from dsv4.learn.vjp.mhc import CollapseGradients, MixGradients
from dsv4.ops.types import Array
from dsv4_accel.numba.arrays import are_float32, compact
from dsv4_accel.numba.compile import inlined, kernel, reads, writes
from dsv4_accel.numba.memory import load, store
from dsv4_accel.numba.vectors import LANES, fma, lane_sum, splat

STREAMS = 4


def mhc_collapse(streams: Array, pre: Array) -> tuple[Array, Callable[[Array], CollapseGradients]]:
    """As dsv4.learn.vjp.mhc.mhc_collapse."""
    result, pull_in_numpy = reference.mhc_collapse(streams, pre)
    if not _fit(streams, pre):
        return result, pull_in_numpy

    def pull(d_x: Array) -> CollapseGradients:
        gradients = CollapseGradients(np.empty(streams.shape, np.float32), np.empty(pre.shape, np.float32))
        _pull_collapse(0, *_flat(streams, pre, d_x), streams.shape[3], *_flat(*gradients))
        return gradients

    return result, pull


def mhc_mix(streams: Array, output: Array, post: Array, comb: Array) -> tuple[Array, Callable[[Array], MixGradients]]:
    """As dsv4.learn.vjp.mhc.mhc_mix."""
    if not _fit(streams, output, post, comb):
        return reference.mhc_mix(streams, output, post, comb)
    arguments = streams, output, post, comb
    mixed = np.empty(streams.shape, np.float32)
    _mix(0, *_flat(*arguments), streams.shape[3], mixed.reshape(-1))

    def pull(d_streams: Array) -> MixGradients:
        gradients = MixGradients(*(np.empty(argument.shape, np.float32) for argument in arguments))
        _pull_mix(0, *_flat(*arguments, d_streams), streams.shape[3], *_flat(*gradients))
        return gradients

    return mixed, pull


def _fit(streams: Array, *others: Array) -> bool:
    """Whether the kernels take these arrays: four streams, of whole vectors."""
    return are_float32(streams, *others) and streams.shape[2] == STREAMS and streams.shape[3] % LANES == 0


def _flat(*arrays: Array) -> tuple[Array, ...]:
    return tuple(compact(array).reshape(-1) for array in arrays)


READ, WRITTEN = reads(types.float32, 1), writes(types.float32, 1)


@kernel(READ, READ, READ, types.intp, WRITTEN, WRITTEN)
def _pull_collapse(streams, pre, d_x, width, d_streams, d_pre):
    """streams, d_streams [T·4·d]; pre, d_pre [T·4]; d_x [T·d]; all flat"""
    for row in range(pre.size):
        total = splat(np.float32(0))
        for start in range(0, width, LANES):
            gradient = load(d_x, row // STREAMS * width + start)
            store(d_streams, row * width + start, splat(pre[row]) * gradient)
            total = fma(load(streams, row * width + start), gradient, total)
        d_pre[row] = lane_sum(total)


@kernel(READ, READ, READ, READ, types.intp, WRITTEN)
def _mix(streams, output, post, comb, width, mixed):
    """streams, mixed [T·4·d]; output [T·d]; post [T·4]; comb [T·16]; all flat"""
    for token in range(output.size // width):
        for stream in range(STREAMS):
            a, b, c, d = _four(comb, token * STREAMS * STREAMS + stream, STREAMS)
            share = splat(post[token * STREAMS + stream])
            for start in range(0, width, LANES):
                streams_here = _load_four(streams, token * STREAMS * width + start, width)
                total = _products(a, b, c, d, streams_here, share * load(output, token * width + start))
                store(mixed, (token * STREAMS + stream) * width + start, total)


@kernel(READ, READ, READ, READ, READ, types.intp, WRITTEN, WRITTEN, WRITTEN, WRITTEN)
def _pull_mix(streams, output, post, comb, gradient, width, d_streams, d_output, d_post, d_comb):
    """As _mix; gradient [T·4·d] of what it gave."""
    for token in range(output.size // width):
        first = token * STREAMS
        a, b, c, d = _four(post, first, 1)
        sums = _four_zeros()
        for start in range(0, width, LANES):
            gradients = _load_four(gradient, first * width + start, width)
            store(d_output, token * width + start, _products(a, b, c, d, gradients, splat(np.float32(0))))
            sums = _add_products(load(output, token * width + start), gradients, sums)
        _write_sums(sums, d_post, first)
        for stream in range(first, first + STREAMS):
            a, b, c, d = _four(comb, stream * STREAMS, 1)
            sums = _four_zeros()
            for start in range(0, width, LANES):
                gradients = _load_four(gradient, first * width + start, width)
                store(d_streams, stream * width + start, _products(a, b, c, d, gradients, splat(np.float32(0))))
                sums = _add_products(load(streams, stream * width + start), gradients, sums)
            _write_sums(sums, d_comb, stream * STREAMS)


@inlined
def _four(numbers, first, step):
    """Four numbers, each of them in all lanes."""
    return (
        splat(numbers[first]),
        splat(numbers[first + step]),
        splat(numbers[first + 2 * step]),
        splat(numbers[first + 3 * step]),
    )


@inlined
def _load_four(streams, place, width):
    """16 channels of each stream of a token."""
    return (
        load(streams, place),
        load(streams, place + width),
        load(streams, place + 2 * width),
        load(streams, place + 3 * width),
    )


@inlined
def _products(a, b, c, d, vectors, total):
    """total + a · the first vector + …"""
    return fma(d, vectors[3], fma(c, vectors[2], fma(b, vectors[1], fma(a, vectors[0], total))))


@inlined
def _four_zeros():
    zero = splat(np.float32(0))
    return zero, zero, zero, zero


@inlined
def _add_products(x, vectors, sums):
    return (
        fma(x, vectors[0], sums[0]),
        fma(x, vectors[1], sums[1]),
        fma(x, vectors[2], sums[2]),
        fma(x, vectors[3], sums[3]),
    )


@inlined
def _write_sums(sums, target, first):
    target[first], target[first + 1] = lane_sum(sums[0]), lane_sum(sums[1])
    target[first + 2], target[first + 3] = lane_sum(sums[2]), lane_sum(sums[3])
