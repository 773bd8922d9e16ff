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


class Compiled(NamedTuple):
    """What the compiler gives."""

    status: int
    """0 for success."""
    log: str
    """All that it says."""
    ptx: str
    """The program in the language between CUDA C++ and machine code, which names each instruction."""


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


def compile_for(architecture: str, text: str, options: tuple[str, ...]) -> Compiled:
    """Compile a program to machine code."""
    nvrtc = library()
    assert nvrtc is not None
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None)
    given = [f"--gpu-architecture={architecture}", "--ptxas-options=-v", *options]
    status = nvrtc.nvrtcCompileProgram(
        program, len(given), (ctypes.c_char_p * len(given))(*(option.encode() for option in given))
    )
    log = _text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
    ptx = "" if status else _text(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return Compiled(status, log, ptx)


def _text(size_of, text_of, program: ctypes.c_void_p) -> str:
    """What two functions of the compiler give: how long a text is, and the text."""
    size = ctypes.c_size_t()
    size_of(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    text_of(program, text)
    return text.value.decode()


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
