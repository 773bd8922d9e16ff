"""What is said where no GPU can be used: one line that names what is missing, and `auto` does not ask for it."""

import sys
import types
import warnings

import pytest

from dsv4 import backends
from dsv4.errors import BackendError
from dsv4_accel.cuda import requirements


class CUDARuntimeError(RuntimeError):
    """CuPy's error."""


def fake_cupy(driver=13000, built_for=12090, devices=1, capability="90", compiler=(12, 9)):
    """A module like CuPy with this driver, CUDA, GPUs (how many, or error), compute capability, NVRTC (or error)."""

    def compiler_version():
        if isinstance(compiler, Exception):
            raise compiler
        return compiler

    def device_count():
        if isinstance(devices, Exception):
            raise devices
        return devices

    runtime = types.SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        driverGetVersion=lambda: driver,
        runtimeGetVersion=lambda: built_for,
        getDeviceCount=device_count,
    )
    module = types.ModuleType("cupy")
    module.cuda = types.SimpleNamespace(
        runtime=runtime,
        nvrtc=types.SimpleNamespace(getVersion=compiler_version),
        Device=lambda: types.SimpleNamespace(compute_capability=capability),
    )
    return module


def refusal(monkeypatch, module) -> str:
    """What is said with this module as CuPy, in one line."""
    monkeypatch.setitem(sys.modules, "cupy", module)
    with pytest.raises(BackendError) as caught:
        requirements.require_gpu()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_machine_that_has_all_of_it(monkeypatch):
    module = fake_cupy()
    monkeypatch.setitem(sys.modules, "cupy", module)
    assert requirements.require_gpu() is module


def test_no_cupy(monkeypatch):
    found = refusal(monkeypatch, None)
    assert found.startswith("expected CuPy, found none that loads")
    assert found.endswith("pip install 'dsv4[cuda12]' or 'dsv4[cuda13]'")


def test_no_driver(monkeypatch):
    assert refusal(monkeypatch, fake_cupy(driver=0)) == "expected an NVIDIA driver, found none"


def test_a_driver_for_an_older_cuda(monkeypatch):
    found = refusal(monkeypatch, fake_cupy(driver=11080, built_for=12090))
    assert "found a driver for CUDA 11.8 and CuPy for CUDA 12.9" in found


def test_a_driver_of_the_same_major_version_will_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(driver=12020, built_for=12090))
    assert requirements.require_gpu()


@pytest.mark.parametrize("devices", [0, CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")])
def test_no_gpu(monkeypatch, devices):
    found = refusal(monkeypatch, fake_cupy(devices=devices))
    assert found.startswith("expected an NVIDIA GPU, found")
    assert devices == 0 or "no CUDA-capable device" in found


@pytest.mark.parametrize(("capability", "version"), [("75", "7.5"), ("61", "6.1")])
def test_a_gpu_that_is_too_old(monkeypatch, capability, version):
    found = refusal(monkeypatch, fake_cupy(capability=capability))
    assert found == f"expected a GPU of compute capability 8.0 or newer, found {version}"


@pytest.mark.parametrize("capability", ["80", "90", "100", "120"])
def test_a_gpu_that_is_new_enough(monkeypatch, capability):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(capability=capability))
    assert requirements.require_gpu()


def test_no_compiler(monkeypatch):
    """CuPy's wheels have none without the extra `ctk`; a driver has none either."""
    found = refusal(monkeypatch, fake_cupy(compiler=RuntimeError("CuPy failed to load libnvrtc.so.12:\n no file")))
    assert found.startswith("expected NVRTC, CUDA's compiler, found none that loads (CuPy failed to load libnvrtc.so")
    assert found.endswith("pip install 'dsv4[cuda12]' or 'dsv4[cuda13]'")


@pytest.mark.parametrize("by_variable", [False, True])
def test_by_name_the_reason_is_the_error(monkeypatch, by_variable):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(driver=0))
    monkeypatch.setenv(backends.VARIABLE, "cuda" if by_variable else "numpy")
    with pytest.raises(BackendError) as caught:
        backends.backend("auto" if by_variable else "cuda")
    asked_by = "DSV4_BACKEND" if by_variable else "backend"
    assert str(caught.value) == f"{asked_by} cuda: expected an NVIDIA driver, found none"


def test_auto_never_asks_for_a_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delenv(backends.VARIABLE, raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert backends.backend().name in ("numpy", "numba")
    assert "cuda" in backends.backend_names()
