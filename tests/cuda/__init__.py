"""Tests of the CUDA backend. NVIDIA's packages are named cuda, too: CuPy finds them behind these."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
