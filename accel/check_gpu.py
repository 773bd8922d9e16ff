"""Steps of check_gpu.sh: first contact of the CUDA backend with a GPU, a line of JSON for each thing that is measured.

Usage: check_gpu.py BACKEND STEP..., where BACKEND is `cuda`, or `host` for what stands for a GPU in the tests. Lines go
to standard output and, at once, to probe.jsonl in $OUT. The exit status is 1 where anything failed.
"""

import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / part) for part in ("ref", "accel", "tests")]

import numpy as np  # noqa: E402

from backends import CUDA_ON_HOST, Caller, create_backend  # noqa: E402
from check_gpu_timing import timings  # noqa: E402
from cuda.host_build import library  # noqa: E402
from dsv4.checking.examples import CALLS  # noqa: E402
from dsv4.checkpoint import Checkpoint  # noqa: E402
from dsv4.loading import bundled_model  # noqa: E402
from dsv4.model.model import Model  # noqa: E402
from dsv4.ops import Expert, Ops  # noqa: E402
from dsv4.ops.packed_rows import Fp4Format, Fp8Format, PackedRows, unpacked  # noqa: E402
from dsv4.ops.quantise import dequantise, quantise_fp4, quantise_fp8  # noqa: E402
from dsv4.text.generate import generate  # noqa: E402
from dsv4_accel.cuda import source  # noqa: E402

PACKAGES = "cupy-cuda12x cupy-cuda13x numpy ml_dtypes pytest pytest-xdist hypothesis".split()  # noqa: SIM905
EPSILON = 2.0**-23

Findings = dict[str, Any]


class Probe:
    """Measures one thing after the other on a backend, and writes what it finds as it comes."""

    def __init__(self, backend: str) -> None:
        self.is_gpu = backend == "cuda"
        self.ops = create_backend({"host": CUDA_ON_HOST}.get(backend, backend))
        self.call = Caller(self.ops)
        self.failed = False
        self.file = Path(os.environ.get("OUT", "."), "probe.jsonl")

    def measure(self, name: str, function: Callable[[], Findings]) -> None:
        """Write what a function finds, or its error. `ok` false among its findings is a failure as well."""
        start = time.perf_counter()
        try:
            found = function()
        except Exception as error:
            last, message = traceback.extract_tb(error.__traceback__)[-1], f"{type(error).__name__}: {error}"[:600]
            found = {"ok": False, "error": message, "at": f"{last.filename}:{last.lineno}"}
        self.failed |= not found.get("ok", True)
        line = json.dumps({"name": name, "seconds": round(time.perf_counter() - start, 3), **found}, default=str)
        print(line, flush=True)
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(line + "\n")


def machine(probe: Probe) -> None:
    """Versions of what matters."""

    def found() -> Findings:
        facts: Findings = {"python": platform.python_version(), "machine": platform.platform()}
        for package in PACKAGES:
            try:
                facts[package] = version(package)
            except PackageNotFoundError:
                facts[package] = None
        if probe.is_gpu:
            import cupy

            runtime = cupy.cuda.runtime
            facts["driver"], facts["runtime"] = runtime.driverGetVersion(), runtime.runtimeGetVersion()
            facts["nvrtc"] = cupy.cuda.nvrtc.getVersion()
            facts["gpu"] = runtime.getDeviceProperties(0)["name"].decode()
        return facts

    probe.measure("machine", found)


def compile_(probe: Probe) -> None:
    """Every source file, with registers, bytes of local and of shared memory of its kernels where a GPU tells."""
    for file in source.files():

        def found(file: str = file) -> Findings:
            if not probe.is_gpu:
                library(file)
                return {"kernels": list(source.kernels(file))}
            loaded = probe.ops.device._load(file)
            kernels = {name: loaded[name].function for name in source.kernels(file)}
            sizes = {name: (one.num_regs, one.local_size_bytes, one.shared_size_bytes) for name, one in kernels.items()}
            return {"kernels": sizes, "ok": not any(local for _, local, _ in sizes.values())}

        probe.measure(f"compile {file}", found)


def examples(probe: Probe) -> None:
    """Every operation once, beside NumPy."""
    for name, example in CALLS.items():

        def found(name: str = name, example: Any = example) -> Findings:
            arguments, operation = example.arguments(np.random.default_rng(1), 3, 5), name.split()[0]
            with np.errstate(all="ignore"):
                results = getattr(probe.call, operation)(*arguments), getattr(Ops, operation)(*arguments)
            pairs = zip(*results, strict=True) if isinstance(results[1], tuple) else [results]
            worst = max(_distance(*pair) for pair in pairs)
            return {"worst": worst, "ok": bool(worst < 1e-5)}

        probe.measure(f"example {name}", found)


def packed(probe: Probe) -> None:
    """What takes the rows of a packed cache: the bytes of new ones, and the bits that float rows would give."""
    generator = np.random.default_rng(4)

    def found(form: Any, call: Callable[[Any], Any]) -> Findings:
        numbers = generator.standard_normal((1, 300, form.channels), np.float32)
        stored = form.pack(numbers)
        rows = PackedRows(stored, form)
        bytes_alike = bool((probe.call.pack_rows(numbers, form) == stored).all())
        bits_alike = bool((call(rows) == call(unpacked(rows, np.float32))).all())
        return {"bytes_alike": bytes_alike, "bits_alike": bits_alike, "ok": bytes_alike and bits_alike}

    queries, weights = (generator.standard_normal((1, 2, 64, *more), np.float32) for more in ((128,), ()))
    wide, index = generator.standard_normal((1, 2, 64, 512), np.float32), generator.integers(-1, 300, (1, 2, 100))
    sink = np.zeros(64, np.float32)
    probe.measure(
        "packed keys", lambda: found(Fp4Format(128), lambda rows: probe.call.index_scores(queries, rows, weights))
    )
    attend = probe.call.sparse_attention
    probe.measure(
        "packed entries",
        lambda: found(Fp8Format(512, 64, 64), lambda rows: attend(wide, rows, index, rows, index, sink)),
    )


def _distance(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference in relation to the largest number."""
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    return float(np.abs(found - expected).max(initial=0) / max(np.abs(expected).max(initial=0), 1e-30))


def numerics(probe: Probe) -> None:
    """Where a GPU's arithmetic differs: subnormal numbers, sums in tensor cores, few against many tokens."""
    generator = np.random.default_rng(2)

    def subnormal() -> Findings:
        x = np.array([[1e-40, 3e-39, 1.1e-38]], np.float32)
        found, expected = probe.call.fake_quant_fp4(x, 1), Ops.fake_quant_fp4(x, 1)
        return {"found": found.tolist(), "numpy": expected.tolist(), "ok": bool((found == expected).all())}

    def sums(store: Callable[[Any], Any], columns: int) -> Findings:
        x = np.abs(generator.standard_normal((2, columns), np.float32))
        weight = store(np.abs(generator.standard_normal((16, columns), np.float32)))
        truth = x.astype(np.float64) @ dequantise(weight, np.float64).T
        worst, numpys = (float(np.abs(one.linear(x, weight) / truth - 1).max() / EPSILON) for one in (probe.call, Ops))
        return {"epsilons": round(worst, 2), "numpy_epsilons": round(numpys, 2), "ok": worst < 3 * numpys + 1}

    def scores() -> Findings:
        given = [np.abs(generator.standard_normal(s, np.float32)) for s in ((1, 1, 64, 128), (1, 999, 128), (1, 1, 64))]
        truth = Ops.index_scores(*(one.astype(np.float64) for one in given))
        worst, numpys = (float(np.abs(o.index_scores(*given) / truth - 1).max() / EPSILON) for o in (probe.call, Ops))
        return {"epsilons": round(worst, 2), "numpy_epsilons": round(numpys, 2), "ok": worst < 3 * numpys + 1}

    def alone_and_among_many() -> Findings:
        rows = 2048 if probe.is_gpu else 128
        weight = quantise_fp4(generator.standard_normal((rows, 4096), np.float32))
        x = generator.standard_normal((70, 4096), np.float32)
        every = probe.call.linear(x, weight, True)
        counts = (1, 8, 9, 64)
        different = [n for n in counts if (probe.call.linear(x[:n], weight, True) != every[:n]).any()]
        return {"different_bits_for": different, "ok": not different}

    def last_block() -> Findings:
        """Weights of few tokens come from one launch, those of many from two."""
        channels, rounds = (4096, 40) if probe.is_gpu else (512, 1)
        streams, fn = (generator.standard_normal(s, np.float32) for s in ((32, 1, 4, channels), (24, 4 * channels)))
        others = np.zeros(24, np.float32), np.ones(3, np.float32), 20, 1e-6, 1e-6
        every, different = probe.call.mhc_weights(streams, fn, *others), 0
        for token in [0, 7, 31] * rounds:
            some = probe.call.mhc_weights(streams[token : token + 1], fn, *others)
            different += any((one != all_[token]).any() for one, all_ in zip(some, every, strict=True))
        return {"different": different, "of": 3 * rounds, "ok": not different}

    def last_of_chunk() -> Findings:
        """What is between an expert's products comes from the first one for few tokens, for many from a launch."""
        width, hidden, rounds = (512, 12288, 40) if probe.is_gpu else (128, 256, 1)
        shapes = (hidden, width), (width, hidden), (hidden, width)
        matrices = Expert(*(quantise_fp4(generator.standard_normal(shape, np.float32)) for shape in shapes))
        x, share = generator.standard_normal((70, width), np.float32), np.ones(70, np.float32)
        every, different = probe.call.expert(x, share, matrices, 10.0, True), 0
        for token in [0, 7, 69] * rounds:
            one = probe.call.expert(x[token : token + 1], share[:1], matrices, 10.0, True)
            different += bool((one[0] != every[token]).any())
        return {"different": different, "of": 3 * rounds, "ok": not different}

    probe.measure("subnormal numbers survive", subnormal)
    for name, store in {"fp4": quantise_fp4, "fp8": quantise_fp8, "float32": lambda weight: weight}.items():
        for columns in (128, 1024, 4096):
            probe.measure(f"sums of {columns} products, {name}", lambda s=store, n=columns: sums(s, n))
    probe.measure("index scores of one sign", scores)
    probe.measure("the same bits alone and among many", alone_and_among_many)
    probe.measure("the last block sees what the others wrote", last_block)
    probe.measure("the last block of a chunk sees what the others wrote", last_of_chunk)


def text(probe: Probe) -> None:
    """The bundled model's greedy text beside NumPy's, and seconds per token."""
    prompt, count = [5, 17, 3, 250, 44, 9, 120, 31, 8] * (20 if probe.is_gpu else 1), 64 if probe.is_gpu else 4

    def timed(ops: Ops) -> tuple[list[int], float]:
        model = Model(Checkpoint.open(bundled_model()), ops, fake_quant=False)
        options = {"temperature": 0, "stop_ids": []}
        list(generate(model, prompt, max_new_tokens=2, **options))
        start = time.perf_counter()
        ids = [token.id for token in generate(model, prompt, max_new_tokens=count, **options)]
        return ids, round((time.perf_counter() - start) / count, 5)

    def both() -> Findings:
        (found, seconds), (expected, numpys) = timed(probe.ops), timed(Ops())
        alike = next((i for i, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1]), count)
        ok = alike >= count // 4  # a near tie may fall the other way late in a text, but not at once
        return {"alike": alike, "of": count, "s_per_token": seconds, "numpy_s_per_token": numpys, "ok": ok}

    probe.measure("bundled model", both)


def timing(probe: Probe) -> None:
    """Times on the device and on the host, for the sizes of the released model."""
    for name, measurement in timings(probe.ops):
        probe.measure(f"time {name}", measurement)


STEPS = {
    "machine": machine,
    "compile": compile_,
    "examples": examples,
    "packed": packed,
    "numerics": numerics,
    "text": text,
    "timing": timing,
}


def main(backend: str, *steps: str) -> int:
    """Run the steps; 1 where anything failed."""
    probe = Probe(backend)
    for step in steps:
        STEPS[step](probe)
    return int(probe.failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
