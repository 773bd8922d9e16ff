"""NVIDIA's run-time compiler from its wheel, which compiles for a GPU without one."""

import ctypes
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from typing import NamedTuple

PACKAGES = ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12")


class Resources(NamedTuple):
    """What a kernel needs, as the assembler reports it."""

    registers: int
    stack_bytes: int
    spilled_bytes: int


@cache
def library() -> ctypes.CDLL | None:
    """The compiler, or None where its wheel is not installed."""
    for package in PACKAGES:
        try:
            found = [file for file in files(package) or [] if re.match(r"libnvrtc\.so", file.name)]
        except PackageNotFoundError:
            continue
        return ctypes.CDLL(str(found[0].locate()))
    return None


def compile_for(architecture: str, text: str, options: tuple[str, ...]) -> tuple[int, str]:
    """Compile a program to machine code. Returns the compiler's status, 0 for success, and all that it says."""
    nvrtc = library()
    assert nvrtc is not None
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None)
    given = [f"--gpu-architecture={architecture}", "--ptxas-options=-v", *options]
    status = nvrtc.nvrtcCompileProgram(
        program, len(given), (ctypes.c_char_p * len(given))(*(option.encode() for option in given))
    )
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return status, log.value.decode()


def ptx_for(architecture: str, text: str, options: tuple[str, ...]) -> str:
    """A program in the language between CUDA C++ and machine code, as `compute_90`: it names each instruction."""
    nvrtc = library()
    assert nvrtc is not None
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None)
    given = [f"--gpu-architecture={architecture}".encode(), *(option.encode() for option in options)]
    status = nvrtc.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*given))
    assert status == 0, f"NVRTC ended with {status}"
    nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetPTX(program, ptx)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return ptx.value.decode()


def resources(log: str) -> dict[str, Resources]:
    """What each kernel needs, read from what the compiler says."""
    found = {}
    for part in log.split("Compiling entry function '")[1:]:
        spills = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part)
        registers = re.search(r"Used (\d+) registers", part)
        assert spills is not None and registers is not None, part
        stack, stores, loads = map(int, spills.groups())
        found[part.partition("'")[0]] = Resources(int(registers[1]), stack, stores + loads)
    return found
