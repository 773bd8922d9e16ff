"""Whether this machine can run the backend, and if not, why: said in one line."""

from typing import Any

from dsv4.errors import BackendError

MIN_CAPABILITY = (8, 0)
"""The oldest compute capability that has what the kernels use: bfloat16 products in tensor cores."""


def require_gpu() -> Any:
    """The module cupy, once a kernel could run.

    Raises BackendError without CuPy, without a driver, without a GPU, with a driver too old for CuPy's CUDA, with a GPU
    older than compute capability 8.0, or without NVRTC, which compiles the kernels.
    """
    try:
        import cupy
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise BackendError(f"expected CuPy, found none that loads ({reason}): {_install_hint()}") from None
    runtime = cupy.cuda.runtime
    try:
        driver, built_for = int(runtime.driverGetVersion()), int(runtime.runtimeGetVersion())
    except runtime.CUDARuntimeError as error:
        raise BackendError(f"expected a CUDA runtime, found: {error}") from None
    if driver == 0:
        raise BackendError("expected an NVIDIA driver, found none")
    if driver // 1000 < built_for // 1000:
        found = f"a driver for CUDA {_version(driver)} and CuPy for CUDA {_version(built_for)}"
        raise BackendError(f"expected a driver at least as new as CuPy's CUDA, found {found}")
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        raise BackendError(f"expected an NVIDIA GPU, found: {error}") from None
    if count == 0:
        raise BackendError("expected an NVIDIA GPU, found none")
    capability = divmod(int(cupy.cuda.Device().compute_capability), 10)
    if capability < MIN_CAPABILITY:
        expected, found = (".".join(map(str, one)) for one in (MIN_CAPABILITY, capability))
        raise BackendError(f"expected a GPU of compute capability {expected} or newer, found {found}")
    _require_compiler(cupy)
    return cupy


def _require_compiler(cupy: Any) -> None:
    """CuPy loads NVRTC at the first call, and raises RuntimeError, or another error of its own, where there is none."""
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:
        reason = " ".join(str(error).split())
        found = f"none that loads ({reason})"
        raise BackendError(f"expected NVRTC, CUDA's compiler, found {found}: {_install_hint()}") from None


def _install_hint() -> str:
    return "pip install 'dsv4[cuda12]' or 'dsv4[cuda13]'"


def _version(number: int) -> str:
    """CUDA's way to number versions: 12080 is 12.8."""
    return f"{number // 1000}.{number % 1000 // 10}"
