"""Every kernel compiles for every supported GPU, without a warning, slow memory or instructions that flush to zero."""

import re

import pytest

from cuda import nvrtc
from cuda.host_device import flushes
from dsv4_accel.cuda import source
from dsv4_accel.cuda.compiler import OPTIONS

needs_compiler = pytest.mark.skipif(nvrtc.library() is None, reason="NVRTC is not installed: pip install 'dsv4[nvrtc]'")


IN_EXPF = "ex2.approx.ftz.f32"
"""CUDA's own expf takes the exponential of a small number so, whatever the options, and scales it afterwards."""


def flushing(ptx: str) -> set[str]:
    """The instructions of a program that take subnormal numbers for zeros, but for the one in CUDA's expf."""
    return set(re.findall(r"[\w.]+\.ftz[\w.]*", ptx)) - {IN_EXPF}


@needs_compiler
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("file", source.files())
def test_compiles_without_warnings_spills_and_flushing(file, architecture):
    """And no instruction takes subnormal numbers for zeros."""
    status, log, ptx = nvrtc.compile_for(architecture, source.text(file), OPTIONS)
    assert status == 0, log
    assert ".entry" in ptx
    assert not flushing(ptx)
    assert not re.search("warning", log, re.IGNORECASE), log
    found = nvrtc.resources(log)
    assert found.keys() == source.kernels(file).keys()
    for name, used in found.items():
        assert used.spilled_bytes == 0 and used.stack_bytes == 0, f"{name}: {used}"


@needs_compiler
def test_an_option_that_flushes_is_seen():
    """CuPy's RawModule adds it behind all others, where the last one counts."""
    options = (*OPTIONS, "-ftz=true")
    found = nvrtc.compile_for("sm_90", source.text("quantise.cu"), options)
    assert "mul.ftz.f32" in flushing(found.ptx)
    assert (flushes(OPTIONS), flushes(options), flushes(("--use_fast_math",))) == (False, True, True)


@needs_compiler
def test_a_warning_and_a_spill_are_seen():
    text = """
    extern "C" __global__ void spill(float* y, const float* x) {
        int unused;
        float a[300];
        for (int i = 0; i < 300; i++) a[i] = x[i * threadIdx.x];
        for (int i = 0; i < 300; i++) y[i] = a[(i * 7 + threadIdx.x) % 300];
    }"""
    status, log, _ = nvrtc.compile_for("sm_90", text, OPTIONS)
    assert status == 0 and "warning" in log
    assert nvrtc.resources(log)["spill"].stack_bytes >= 1200
