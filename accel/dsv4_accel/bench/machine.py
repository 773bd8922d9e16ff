"""The machine in words, and the versions of what runs on it."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "numpy",
    "numba",
    "tbb",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "torch",
    "transformers",
    "llama-cpp-python",
    "ggml-python",
    "libggml-python",
    "matplotlib",
)

FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "neon", "sve")
"""The processor features that matter to some contestant."""

ENVIRONMENT = (
    *("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    *("NUMBA_THREADING_LAYER", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "DSV4_NUMBA_PORTABLE"),
)
"""Variables that change how fast the contestants are: Numba and ggml share one OpenMP, and so its settings."""


def describe_machine() -> dict[str, Any]:
    """Processor, cores, features, cache, memory, system, versions and settings, ready for JSON."""
    cpu = _cpu_info()
    flags = set(cpu.get("flags", cpu.get("Features", "")).split())
    return {
        "processor": cpu.get("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "features": [feature for feature in FEATURES if feature in flags],
        "last_cache_bytes": cache_bytes(),
        "memory_bytes": _memory("MemTotal"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
    }


def machine_in_words(machine: dict[str, Any]) -> str:
    """One line about the machine."""
    features = ", ".join(machine["features"]) or "no vector features known"
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    environment = "".join(f", {name}={value}" for name, value in machine["environment"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {features}, "
        f"{machine['last_cache_bytes'] / 2**20:.0f} MiB last cache, {machine['memory_bytes'] / 2**30:.0f} GiB memory; "
        f"{machine['system']}, Python {machine['python']}, {versions}{environment}"
    )


def cache_bytes() -> int:
    """The size of the largest cache that the system tells of; 32 MiB where it tells of none."""
    sizes = [_size(path) for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max(sizes, default=32 * 2**20)


def available_bytes() -> int:
    """Memory that can be had without swapping; 4 GiB where the system does not tell."""
    return _memory("MemAvailable") or 4 * 2**30


def _size(path: Path) -> int:
    text = path.read_text().strip()  # such as 480M or 48K
    factor = {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:], 1)
    return int(text.rstrip("KMG")) * factor


def _memory(key: str) -> int:
    """A line of /proc/meminfo in bytes, 0 where there is none."""
    for line in _lines(Path("/proc/meminfo")):
        name, _, amount = line.partition(":")
        if name == key:
            return int(amount.split()[0]) * 1024
    return 0


def _cpu_info() -> dict[str, str]:
    """What /proc/cpuinfo says of the first core."""
    pairs = (line.partition(":") for line in reversed(_lines(Path("/proc/cpuinfo"))))
    return {name.strip(): value.strip() for name, _, value in pairs}


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
