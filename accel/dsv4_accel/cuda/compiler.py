"""Compiles the CUDA C++ sources for a GPU with NVRTC, and keeps the machine code on disk.

CuPy's own way to compile adds `-ftz=true` behind every other option: subnormal numbers would become zeros. So NVRTC is
called here, with the options below and no others.
"""

import hashlib
import os
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from dsv4.errors import BackendError
from dsv4_accel.cuda import source

OPTIONS = ("-std=c++17", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")
"""Subnormal numbers are kept, and a quotient or a root is the nearest float, as in NumPy."""

CACHE_VARIABLE = "DSV4_CUDA_CACHE"
"""The environment variable that names another directory for the machine code."""


def machine_code(nvrtc: Any, file: str, architecture: str) -> Path:
    """Where the machine code (a cubin) of a .cu file lies, compiled now unless it was before.

    nvrtc: CuPy's module `cupy.cuda.nvrtc`; architecture: as `sm_90`. What is damaged on disk is compiled anew, and
    where the directory cannot be written the file is temporary. Raises RuntimeError with what the compiler says.
    """
    text = source.text(file)
    version = ".".join(map(str, nvrtc.getVersion()))
    key = _digest("\n".join((text, architecture, version, *OPTIONS)).encode())
    name = f"{Path(file).stem}-{architecture}-{key}"
    directory = cache_directory()
    found = _stored(directory, name)
    if found is not None:
        return found
    code = compiled(nvrtc, file, text, architecture)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return _store(directory, name, code)
    except OSError:
        return _store(Path(_temporary().name), name, code)


def compiled(nvrtc: Any, file: str, text: str, architecture: str) -> bytes:
    """The machine code of a source text. Raises RuntimeError with what the compiler says."""
    program = nvrtc.createProgram(text, file, (), ())
    try:
        nvrtc.compileProgram(program, (f"--gpu-architecture={architecture}", *OPTIONS))
        return bytes(nvrtc.getCUBIN(program))
    except nvrtc.NVRTCError as error:
        raise RuntimeError(f"{file}: {error}: {nvrtc.getProgramLog(program)}") from None
    finally:
        nvrtc.destroyProgram(program)


def architecture_for(nvrtc: Any, capability: str) -> str:
    """What to compile for: the newest that NVRTC knows and a GPU of this compute capability ("90" is 9.0) runs.

    Machine code runs on GPUs of the same major version and an equal or newer minor one. Raises BackendError where NVRTC
    is too old for the GPU.
    """
    known = sorted(map(int, nvrtc.getSupportedArchs()))
    own = int(capability)
    fitting = [one for one in known if one // 10 == own // 10 and one <= own]
    if not fitting:
        found = f"{known[-1] / 10:.1f} as the newest" if known else "none"
        raise BackendError(f"expected NVRTC that compiles for compute capability {own / 10:.1f}, found {found}")
    return f"sm_{fitting[-1]}"


def cache_directory() -> Path:
    """Where machine code is kept: DSV4_CUDA_CACHE, or dsv4/cuda in the user's cache."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given)
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path("~/.cache").expanduser()) / "dsv4" / "cuda"


def _stored(directory: Path, name: str) -> Path | None:
    """A file of this name that holds what was written: the end of its name is a digest of its content."""
    with suppress(OSError):
        for path in directory.glob(f"{name}-*.cubin"):
            if path.stem == f"{name}-{_digest(path.read_bytes())}":
                return path
    return None


def _store(directory: Path, name: str, code: bytes) -> Path:
    """Write a file that appears when it is whole. Raises OSError where it cannot be written."""
    target = directory / f"{name}-{_digest(code)}.cubin"
    descriptor, scratch = tempfile.mkstemp(dir=directory, prefix=".", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(code)
        Path(scratch).replace(target)
    except OSError:
        Path(scratch).unlink(missing_ok=True)
        raise
    return target


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    """A directory that is gone at the end of the process."""
    return tempfile.TemporaryDirectory(prefix="dsv4-cuda-")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
