"""ggml as a contestant: its product of MXFP4 matrices with activations that it rounds to 8 bits (Q8_0)."""

import ctypes
import itertools
from contextlib import ExitStack
from typing import Self

import numpy as np

from dsv4.ops import Fp4Weight
from dsv4.ops.quantise import FP4_BLOCK
from dsv4.ops.types import Array, Bytes
from dsv4_accel.bench.ggml_library import F32, GRAPH_NODES, MXFP4, Library, open_library

REPACKED = "CPU_REPACK"
"""ggml's name for memory in which the rows of a matrix are interleaved."""


class Ggml:
    """ggml's functions on the CPU."""

    def __init__(self, library: Library) -> None:
        self.library = library
        features = ", ".join(library.features) or "no vector features"
        self.version = f"{library.package} ({features})"

    def products(self, weight: Fp4Weight, x: Array, copies: int, threads: int, repacked: bool) -> "Products | None":
        """Products of x [M, in] with copies of one matrix, used in turn; None where its rows cannot be repacked."""
        products = Products(self.library, threads)
        kinds = self.library.extra_buffer_types(products.backend)
        if repacked and REPACKED not in kinds:
            products.close()
            return None
        kind = kinds[REPACKED] if repacked else products.plain
        products.set_up(mxfp4_blocks(weight), x, copies, kind)
        return products


class Products:
    """Graphs of one product each, with the memory that they use; `close` gives it back."""

    def __init__(self, library: Library, threads: int) -> None:
        self._library, self._resources = library, ExitStack()
        self.backend = library.backend_cpu_init()
        self._resources.callback(library.backend_free, self.backend)
        library.backend_cpu_set_n_threads(self.backend, threads)
        self.plain = library.backend_get_default_buffer_type(self.backend)

    def set_up(self, blocks: Bytes, x: Array, copies: int, kind: int) -> None:
        """blocks [out, in/32, 17]; x [M, in]; kind: the memory for the matrices."""
        library, rows, columns = self._library, len(blocks), blocks.shape[1] * FP4_BLOCK
        matrices, work = library.context(copies, 0), library.context(1 + copies, copies)
        weights = [library.new_tensor_2d(matrices, MXFP4, columns, rows) for _ in range(copies)]
        tokens = library.new_tensor_2d(work, F32, columns, len(x))
        results = [library.mul_mat(work, weight, tokens) for weight in weights]
        for context, memory in ((matrices, kind), (work, self.plain)):
            self._resources.callback(library.free, context)
            buffer = library.backend_alloc_ctx_tensors_from_buft(context, memory)
            self._resources.callback(library.backend_buffer_free, buffer)
        for tensor, values in [(weight, blocks) for weight in weights] + [(tokens, x)]:
            contiguous = np.ascontiguousarray(values)
            library.backend_tensor_set(tensor, contiguous.ctypes.data, 0, contiguous.nbytes)
        self._shape, self._result = (len(x), rows), results[0]
        self._graphs = itertools.cycle([self._graph(work, result) for result in results])

    def run(self) -> None:
        """Multiply by the next matrix."""
        self._library.backend_graph_compute(self.backend, next(self._graphs))

    def result(self) -> Array:
        """[M, out]: what the first matrix gave when its turn was last."""
        values = np.empty(self._shape, np.float32)
        self._library.backend_tensor_get(self._result, values.ctypes.data_as(ctypes.c_void_p), 0, values.nbytes)
        return values

    def close(self) -> None:
        """Give the memory back."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _graph(self, context: int, result: int) -> int:
        graph = int(self._library.new_graph_custom(context, GRAPH_NODES, False))
        self._library.build_forward_expand(graph, result)
        return graph


def mxfp4_blocks(weight: Fp4Weight) -> Bytes:
    """The same matrix in ggml's order: [out, in/32, 17], a scale and then 16 bytes with columns j and j + 16."""
    packed = weight.packed.reshape(len(weight.packed), -1, FP4_BLOCK // 2)
    codes = np.stack([packed & 0x0F, packed >> 4], axis=-1).reshape(*packed.shape[:2], FP4_BLOCK)
    low, high = codes[..., : FP4_BLOCK // 2], codes[..., FP4_BLOCK // 2 :]
    return np.concatenate([weight.scales[..., None], low | (high << 4)], axis=-1)


def open_peer() -> Ggml:
    """ggml, or BackendError where no installed package brings it along."""
    return Ggml(open_library())
