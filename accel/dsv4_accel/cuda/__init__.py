"""The CUDA backend: every operation on one NVIDIA GPU, through CuPy and kernels of our own."""

from dsv4_accel.cuda.backend import CudaOps

__all__ = ["CudaOps"]
