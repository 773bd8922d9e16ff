"""The CUDA C++ sources beside this file: their text with headers in place, and what each kernel takes.

A kernel is a function `extern "C" __global__ void name(…)` of a `.cu` file. Its declaration is read here, so that a
launch can check every argument against it: the compiler cannot see what Python hands over.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

DIRECTORY = Path(__file__).parent

DTYPES: dict[str, tuple[type[np.generic], ...]] = {
    "float": (np.float32,),
    "double": (np.float64,),
    "int": (np.int32,),
    "long long": (np.int64,),
    "bool": (np.bool_,),
    "unsigned": (np.uint32,),
    "unsigned char": (np.uint8,),
    "unsigned short": (np.uint16, ml_dtypes.bfloat16),  # the bits of bfloat16
    "unsigned long long": (np.uint64,),
    "void": (np.uint8, np.float32),  # rows of a cache: bytes or floats, as another argument says
}
"""The dtypes that a C++ type stands for; the first is that of a scalar."""

INCLUDE = re.compile(r'^#include "([\w.]+)"\n', re.MULTILINE)
DECLARATION = re.compile(r'extern "C" __global__ void(?: __launch_bounds__\([\w, ]+\))?\s+(\w+)\(([^)]*)\)')


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel."""

    name: str
    type: str
    """A key of DTYPES."""
    is_pointer: bool


@dataclass(frozen=True)
class Kernel:
    """A kernel by name, and what it takes."""

    file: str
    name: str
    parameters: tuple[Parameter, ...]

    def arguments(self, values: Sequence[Any]) -> list[Any]:
        """The values as a launch needs them: arrays as they are, None for a null pointer, numbers in their C++ type.

        Raises TypeError where a value does not fit its parameter: a kernel would read its bytes as something else.
        """
        if len(values) != len(self.parameters):
            raise TypeError(f"{self.name}: expected {len(self.parameters)} arguments, found {len(values)}")
        return [self._argument(*pair) for pair in zip(self.parameters, values, strict=True)]

    def _argument(self, parameter: Parameter, value: Any) -> Any:
        dtypes = DTYPES[parameter.type]
        if not parameter.is_pointer:
            return dtypes[0](value)
        if value is None:
            return None
        if value.dtype not in dtypes:
            raise TypeError(f"{self.name}: expected {parameter.name} of {dtypes[0].__name__}, found {value.dtype}")
        if not value.flags.c_contiguous:
            raise TypeError(f"{self.name}: expected {parameter.name} without gaps, found strides {value.strides}")
        return value


@cache
def text(file: str) -> str:
    """The text of a source file, each header that it includes in the place of the first #include.

    One text, so that whoever stores compiled code by the text's hash sees a change of a header.
    """
    return _with_headers(file, set())


@cache
def kernels(file: str) -> dict[str, Kernel]:
    """The kernels of a .cu file by name. Raises ValueError for a parameter of a type that is not in DTYPES."""
    found = DECLARATION.findall((DIRECTORY / file).read_text(encoding="utf-8"))
    return {name: Kernel(file, name, tuple(map(_parameter, parameters.split(",")))) for name, parameters in found}


def files() -> list[str]:
    """The names of all .cu files."""
    return sorted(path.name for path in DIRECTORY.glob("*.cu"))


def _with_headers(file: str, seen: set[str]) -> str:
    body = (DIRECTORY / file).read_text(encoding="utf-8").replace("#pragma once\n", "\n")

    def header(found: re.Match[str]) -> str:
        name = found[1]
        if name in seen:
            return "\n"
        seen.add(name)
        next_line = body[: found.end()].count("\n") + 1
        return f'{_with_headers(name, seen)}#line {next_line} "{file}"\n'

    return f'#line 1 "{file}"\n{INCLUDE.sub(header, body)}'


def _parameter(declaration: str) -> Parameter:
    words = declaration.replace("*", " * ").replace("__restrict__", " ").split()
    kind = " ".join(word for word in words[:-1] if word not in ("const", "*"))
    if kind not in DTYPES:
        raise ValueError(f"{declaration.strip()}: expected one of {', '.join(DTYPES)}, found {kind}")
    return Parameter(words[-1], kind, "*" in words)
