"""ggml's C functions, from the shared libraries that some Python packages bring along."""

import ctypes
from ctypes import POINTER, c_bool, c_char_p, c_int, c_int64, c_size_t, c_void_p
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dsv4.errors import BackendError

PLACES = {
    "llama-cpp-python": ("llama_cpp", "lib"),
    "ggml-python": ("ggml", "lib"),
    "libggml-python": ("libggml", "lib64"),
}
"""The packages that have ggml's libraries, and the module and folder where they are: first those that are compiled for
the machine on which they are installed, last one that is made for many processors and knows no AVX-512. (The package
gguf has no product, only NumPy code that packs and unpacks.)"""

FEATURES = ("avx2", "avx512", "avx512_vnni", "avx512_bf16", "neon", "sve")

F32, MXFP4 = 0, 39
"""ggml's numbers of its types."""

Signature = tuple[Any, list[Any]]

BASE: dict[str, Signature] = {
    "ggml_type_name": (c_char_p, [c_int]),
    "ggml_tensor_overhead": (c_size_t, []),
    "ggml_graph_overhead_custom": (c_size_t, [c_size_t, c_bool]),
    "ggml_free": (None, [c_void_p]),
    "ggml_new_tensor_2d": (c_void_p, [c_void_p, c_int, c_int64, c_int64]),
    "ggml_mul_mat": (c_void_p, [c_void_p, c_void_p, c_void_p]),
    "ggml_new_graph_custom": (c_void_p, [c_void_p, c_size_t, c_bool]),
    "ggml_build_forward_expand": (None, [c_void_p, c_void_p]),
    "ggml_backend_alloc_ctx_tensors_from_buft": (c_void_p, [c_void_p, c_void_p]),
    "ggml_backend_buffer_free": (None, [c_void_p]),
    "ggml_backend_buft_name": (c_char_p, [c_void_p]),
    "ggml_backend_get_default_buffer_type": (c_void_p, [c_void_p]),
    "ggml_backend_get_device": (c_void_p, [c_void_p]),
    "ggml_backend_reg_get_proc_address": (c_void_p, [c_void_p, c_char_p]),
    "ggml_backend_tensor_set": (None, [c_void_p, c_void_p, c_size_t, c_size_t]),
    "ggml_backend_tensor_get": (None, [c_void_p, c_void_p, c_size_t, c_size_t]),
    "ggml_backend_graph_compute": (c_int, [c_void_p, c_void_p]),
    "ggml_backend_free": (None, [c_void_p]),
}

CPU: dict[str, Signature] = {
    "ggml_backend_cpu_init": (c_void_p, []),
    "ggml_backend_cpu_reg": (c_void_p, []),
    "ggml_backend_cpu_set_n_threads": (None, [c_void_p, c_int]),
}


LOG = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)
QUIET = LOG(lambda level, text, data: None)
"""Where ggml writes its messages to."""


class InitParams(ctypes.Structure):
    """struct ggml_init_params."""

    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


class Library:
    """The functions of BASE and CPU as attributes, and what the package that brought them is called."""

    def __init__(self, package: str, folder: Path) -> None:
        base, cpu = (ctypes.CDLL(str(_library(folder, name)), ctypes.RTLD_GLOBAL) for name in ("base", "cpu"))
        for library, signatures in ((base, BASE), (cpu, CPU)):
            for name, (result, arguments) in signatures.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
                setattr(self, name.removeprefix("ggml_"), function)
        base.ggml_init.restype, base.ggml_init.argtypes = c_void_p, [InitParams]
        self._init = base.ggml_init
        base.ggml_log_set(QUIET, None)
        self.package = f"{package} {version(package)}"
        self.features = [name for name in FEATURES if getattr(cpu, f"ggml_cpu_has_{name}")()]
        if self.type_name(MXFP4) != b"mxfp4":
            raise AttributeError("no type mxfp4")

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no function ggml_{name}")

    def context(self, tensors: int, graphs: int) -> int:
        """Room for the descriptions of so many tensors and of so many graphs of one node; their numbers come later."""
        size = tensors * self.tensor_overhead() + graphs * self.graph_overhead_custom(GRAPH_NODES, False)
        return int(self._init(InitParams(size, None, True)))

    def extra_buffer_types(self, backend: int) -> dict[str, int]:
        """The kinds of memory by name in which the CPU keeps weights in an order of its own."""
        address = self.backend_reg_get_proc_address(self.backend_cpu_reg(), b"ggml_backend_dev_get_extra_bufts")
        if not address:
            return {}
        found = ctypes.CFUNCTYPE(POINTER(c_void_p), c_void_p)(address)(self.backend_get_device(backend))
        kinds: dict[str, int] = {}
        while found and (kind := found[len(kinds)]):
            kinds[self.backend_buft_name(kind).decode()] = kind
        return kinds


GRAPH_NODES = 8
"""A graph of ours has one node and two leaves."""


def open_library() -> Library:
    """The first of the known packages whose libraries can be called; BackendError where there is none."""
    problems = []
    for package, (module, folder) in PLACES.items():
        spec = find_spec(module)
        if spec is None or not spec.submodule_search_locations:
            continue
        try:
            return Library(package, Path(spec.submodule_search_locations[0]) / folder)
        except (OSError, AttributeError, ImportError) as error:
            problems.append(f"{package}: {error}")
    found = "; ".join(problems) or "none of them installed"
    raise BackendError(f"ggml: not compared, expected one of {', '.join(PLACES)}, found {found}")


def _library(folder: Path, name: str) -> Path:
    """The file of libggml-base or libggml-cpu, whatever the system calls such files."""
    for file in sorted(folder.glob(f"*ggml-{name}.*")):
        if file.suffix in (".so", ".dylib", ".dll"):
            return file
    raise OSError(f"no library ggml-{name} in {folder}")
