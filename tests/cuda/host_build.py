"""Builds the backend's kernels with the C++ compiler of this machine, one library per .cu file.

A library is built once for the same text, headers, options and compiler, whichever process and run of the tests asks
first; the others wait for it.
"""

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from dsv4_accel.cuda import source

HEADERS = Path(__file__).parent / "host"
OPTIONS = (
    "-std=c++17",
    "-O2",
    "-ffp-contract=off",
    "-fPIC",
    "-shared",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
)


def compiler() -> str | None:
    """The path of a C++ compiler, or None."""
    return shutil.which(os.environ.get("CXX", "g++"))


def library(file: str) -> ctypes.CDLL:
    """The kernels of a .cu file, each as `call_NAME`, from the temporary files where they are kept.

    Raises RuntimeError with what the compiler says.
    """
    found = _library(file)
    if isinstance(found, str):
        raise RuntimeError(found)
    return found


@cache
def _library(file: str) -> ctypes.CDLL | str:
    """The library, or what the compiler says: the next example of a property does not ask it again."""
    built = built_library(program(file), Path(file).stem)
    if isinstance(built, str):
        return built
    found = ctypes.CDLL(str(built))
    found.run_on_host.restype = ctypes.c_char_p
    return found


def built_library(text: str, name: str) -> Path | str:
    """Where the library of a program lies, built now or before; or what the compiler says."""
    directory = Path(tempfile.gettempdir()) / f"dsv4-kernels-on-host-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    built = directory / f"{name}-{_digest(text)}.so"
    with built.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists() and (message := _build(text, built)):
            return message
    return built


def program(file: str) -> str:
    """The C++ program of a .cu file: the header that stands for CUDA, the source, and a way to call each kernel."""
    calls = [
        f'extern "C" void call_{name}(void** arguments) {{ host::call({name}, arguments); }}'
        for name in source.kernels(file)
    ]
    return "\n".join(['#include "cuda_on_host.h"', source.text(file), *calls, ""])


def _digest(text: str) -> str:
    """Of all that a library depends on."""
    headers = (path.read_text(encoding="utf-8") for path in sorted(HEADERS.glob("*.h")))
    return hashlib.sha256("\n".join((text, *headers, *OPTIONS, _version())).encode()).hexdigest()[:20]


@cache
def _version() -> str:
    """What the compiler says of itself: its name, version and target."""
    return subprocess.run([compiler() or "g++", "-v"], stderr=subprocess.PIPE, text=True, check=False).stderr


def _build(text: str, target: Path) -> str | None:
    """Build a library that appears when it is whole. Returns what the compiler says where it fails."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        program_file, result = Path(scratch, "kernels.cpp"), Path(scratch, "kernels.so")
        program_file.write_text(text, encoding="utf-8")
        command = [compiler() or "g++", *OPTIONS, f"-I{HEADERS}", str(program_file), "-o", str(result)]
        process = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if process.returncode:
            return f"{target.stem}: the C++ compiler found: {process.stderr}"
        result.rename(target)
    return None
