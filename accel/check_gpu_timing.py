"""Times of single operations on a GPU, for check_gpu.py."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dsv4.ops import Expert, Ops, Routing
from dsv4.ops.packed_rows import Fp4Format, PackedRows
from dsv4.ops.quantise import Fp4Weight, Fp8Weight

CALLS_MEASURED = 40
SPIN_CYCLES = 250_000
"""For each call that is measured: longer than the host needs for it."""

SPIN = 'extern "C" __global__ void spin(long long c) { long long t = clock64(); while (clock64() - t < c); }'


class Experts(list[Expert]):
    """A list that can be watched, so that the table of its addresses is made once."""


def timings(ops: Ops) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Names of operations at the released model's sizes, and for each what measures it."""
    inputs = Inputs()
    yield "copy of 512 MiB", lambda: _times(inputs.copies(), 2**30, 10)
    for tokens in (1, 8, 64, 1024, 4096):
        nbytes = 2048 * 4096 * 17 // 32
        yield f"FP4 [2048, 4096] × {tokens}", lambda n=tokens, b=nbytes: _times(inputs.products(ops, n), b)
    yield "FP8 [4096, 4096] × 1", lambda: _times(inputs.fp8_products(ops), 4096 * 4096)
    yield "6 experts × 1 token", lambda: _times(inputs.experts(ops), 6 * 3 * 2048 * 4096 * 17 // 32)
    for batch in (1, 16):
        yield f"attention × {batch}", lambda b=batch: _times(inputs.attention(ops, b))
    yield "index_top_k of 262,144", lambda: _times(inputs.index(ops), 262_144 * 512, 20)
    yield "index_top_k of 262,144 in FP4", lambda: _times(inputs.packed_index(ops), 262_144 * 68, 20)
    yield "rms_norm [512, 4096]", lambda: _times(inputs.norms(ops), 2 * 512 * 4096 * 4)


def _times(calls: list[Callable[[], Any]], nbytes: int = 0, count: int = CALLS_MEASURED) -> dict[str, Any]:
    """Microseconds of a call on the device and on the host, and the bytes it has to read and write by the former.

    The calls take turns, with other weights each, so that no cache of the device holds them. A kernel that spins goes
    first: the queue is full before the first call begins, and the host's time is not measured with the device's.
    """
    import cupy

    spin = cupy.RawKernel(SPIN, "spin")
    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    for number in range(3):
        calls[number % len(calls)]()
    cupy.cuda.Device().synchronize()
    spin((1,), (1,), (np.int64(count * SPIN_CYCLES),))
    start.record()
    began = time.perf_counter()
    for number in range(count):
        calls[number % len(calls)]()
    host = (time.perf_counter() - began) / count * 1e6
    end.record()
    end.synchronize()
    device = cupy.cuda.get_elapsed_time(start, end) / count * 1e3
    found = {"device_us": round(device, 2), "host_us": round(host, 2)}
    return found | ({"GB_per_s": round(nbytes / device / 1e3, 1)} if nbytes else {})


class Inputs:
    """Operations on random inputs of the released model's sizes; as many weights as are more than a cache."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(3)

    def copies(self) -> list[Callable[[], Any]]:
        import cupy

        source, target = cupy.zeros(2**27, np.float32), cupy.zeros(2**27, np.float32)
        return [lambda: cupy.copyto(target, source)]

    def products(self, ops: Ops, tokens: int) -> list[Callable[[], Any]]:
        x = self.numbers(tokens, 4096)
        return [lambda w=weight: ops.linear(x, w, True) for weight in [self.fp4(2048, 4096) for _ in range(24)]]

    def fp8_products(self, ops: Ops) -> list[Callable[[], Any]]:
        x, scales = self.numbers(1, 4096), self.bytes(118, 122, 32, 32)
        weights = [Fp8Weight(self.bytes(0, 120, 4096, 4096), scales) for _ in range(12)]
        return [lambda w=weight: ops.linear(x, w) for weight in weights]

    def experts(self, ops: Ops) -> list[Callable[[], Any]]:
        import cupy

        shapes = (2048, 4096), (4096, 2048), (2048, 4096)
        experts, x = Experts(Expert(*(self.fp4(*shape) for shape in shapes)) for _ in range(48)), self.numbers(1, 4096)
        chosen = [cupy.asarray(np.arange(first, first + 6)[None]) for first in range(0, 48, 6)]
        routes = [Routing(abs(self.numbers(1, 6)), ids) for ids in chosen]
        return [lambda r=route: ops.experts(x, r, experts, 10.0, True) for route in routes]

    def attention(self, ops: Ops, batch: int) -> list[Callable[[], Any]]:
        import cupy

        window = cupy.asarray(np.tile(np.arange(128), (batch, 1, 1)))
        chosen = cupy.asarray(self.generator.integers(0, 4096, (batch, 1, 512)))
        x, recent, entries = (self.numbers(batch, *shape) for shape in ((1, 64, 512), (128, 512), (4096, 512)))
        sinks = self.numbers(64)
        return [lambda: ops.sparse_attention(x, recent, window, entries, chosen, sinks)]

    def index(self, ops: Ops) -> list[Callable[[], Any]]:
        import cupy

        queries, keys, weights = self.numbers(1, 1, 64, 128), self.numbers(1, 262_144, 128), self.numbers(1, 1, 64)
        visible = cupy.asarray(np.full((1, 1), 262_144))
        return [lambda: ops.index_top_k(queries, keys, weights, visible, 512)]

    def packed_index(self, ops: Ops) -> list[Callable[[], Any]]:
        """Queries and keys as a model that rounds has them."""
        import cupy

        queries, weights = ops.fake_quant_fp4(self.numbers(1, 1, 64, 128)), self.numbers(1, 1, 64)
        keys = PackedRows(ops.pack_rows(self.numbers(1, 262_144, 128), Fp4Format(128)), Fp4Format(128))
        visible = cupy.asarray(np.full((1, 1), 262_144))
        return [lambda: ops.index_top_k(queries, keys, weights, visible, 512)]

    def norms(self, ops: Ops) -> list[Callable[[], Any]]:
        x, weight = self.numbers(1, 512, 4096), self.numbers(4096)
        return [lambda: ops.rms_norm(x, weight, 1e-6)]

    def fp4(self, rows: int, columns: int) -> Fp4Weight:
        return Fp4Weight(self.bytes(0, 256, rows, columns // 2), self.bytes(118, 122, rows, columns // 32))

    def bytes(self, low: int, high: int, *shape: int) -> Any:
        import cupy

        return cupy.asarray(self.generator.integers(low, high, shape, np.uint8))

    def numbers(self, *shape: int) -> Any:
        import cupy

        return cupy.asarray(self.generator.standard_normal(shape, np.float32))
