"""CuPy as a contestant: its own products and gathers, on the GPU that the backend uses."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from dsv4.errors import BackendError
from dsv4.ops.types import Array, Ints

CUPY, CUPY_HALF = "CuPy", "CuPy float16"

Call = Callable[[], object]


class CuPy:
    """CuPy's arrays and the libraries behind them."""

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy
        self.version = str(cupy.__version__)

    def half_product(self, x: Array, dense: Array) -> Call:
        """x [M, in] times a matrix [out, in] in float16: as fast as bfloat16, in the library's tensor cores."""
        tokens, matrix = (self.cupy.asarray(array.astype(np.float16)) for array in (x, dense.T))
        return lambda: tokens @ matrix

    def attention(
        self, queries: Array, window: Array, window_index: Ints, entries: Array, entry_index: Ints, sink: Array
    ) -> Call:
        """Shapes as for `dsv4.ops.sparse_attention`; all indices name something."""
        cupy, scale = self.cupy, np.float32(queries.shape[-1] ** -0.5)
        q, near, near_index, far, far_index, sinks = map(
            cupy.asarray, (queries, window, window_index, entries, entry_index, sink[:, None])
        )
        row = cupy.arange(len(q))[:, None, None]

        def attend() -> Any:
            kv = cupy.concatenate([near[row, near_index], far[row, far_index]], axis=2)  # [B, S, K, c]
            logits = q @ kv.swapaxes(-1, -2) * scale  # [B, S, H, K]
            largest = cupy.maximum(logits.max(axis=-1, keepdims=True), sinks)
            weight = cupy.exp(logits - largest)
            return weight @ kv / (weight.sum(axis=-1, keepdims=True) + cupy.exp(sinks - largest))

        return attend


def open_peer() -> CuPy:
    """CuPy, or BackendError where it cannot be imported or finds no GPU."""
    try:
        cupy = import_module("cupy")
    except (ImportError, OSError) as error:
        raise BackendError(f"CuPy: not compared, {error}") from error
    if not cupy.cuda.is_available():
        raise BackendError("CuPy: not compared, it finds no GPU")
    return CuPy(cupy)
