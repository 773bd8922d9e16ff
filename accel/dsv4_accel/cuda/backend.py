"""The class that gathers the kernels behind the interface of all backends."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from dsv4.ops import Ops
from dsv4_accel.cuda import attention, compressor, hadamard, indexer, mhc, norm, quantise, rope
from dsv4_accel.cuda.device import CupyDevice, Device

P = ParamSpec("P")
R = TypeVar("R")


def _on_device(function: Callable[Concatenate[Device, P], R]) -> Any:
    """A function of a device as a method of the backend that computes there."""

    def method(self: "CudaOps", *arguments: P.args, **named: P.kwargs) -> R:
        return function(self.device, *arguments, **named)

    return wraps(function)(method)


class CudaOps(Ops):
    """The operations on an NVIDIA GPU. Arrays are CuPy's."""

    name = "cuda"

    def __init__(self, device: Device | None = None) -> None:
        """device: where to compute; without one the current CUDA device. Raises BackendError if there is none."""
        self.device = CupyDevice() if device is None else device

    asarray = _on_device(lambda device, array: device.asarray(array))
    to_numpy = _on_device(lambda device, array: device.to_numpy(array))
    zeros = _on_device(lambda device, shape, dtype=np.float32: device.zeros(shape, dtype))

    rms_norm = _on_device(norm.rms_norm)
    rms_scale = _on_device(norm.rms_scale)
    rope = _on_device(rope.rope)
    hadamard = _on_device(hadamard.hadamard)
    fake_quant_fp8 = _on_device(quantise.fake_quant_fp8)
    fake_quant_fp4 = _on_device(quantise.fake_quant_fp4)

    compress = _on_device(compressor.compress)
    sparse_attention = _on_device(attention.sparse_attention)
    index_scores = _on_device(indexer.index_scores)
    top_k = _on_device(indexer.top_k)
    index_top_k = _on_device(indexer.index_top_k)

    mhc_weights = _on_device(mhc.mhc_weights)
    mhc_head_weights = _on_device(mhc.mhc_head_weights)
    mhc_collapse = _on_device(mhc.mhc_collapse)
    mhc_mix = _on_device(mhc.mhc_mix)
