"""What is different on a GPU: the goals, and rows of sizes that only a GPU takes in its stride."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from dsv4_accel.bench.case import ARITHMETIC, ROOF, Case, Goal
from dsv4_accel.bench.models import CONTEXTS, TRANSFORMERS
from dsv4_accel.bench.peer_cupy import CUPY, CUPY_HALF
from dsv4_accel.bench.products import large_product
from dsv4_accel.bench.selection import attention

GOALS: dict[str, Sequence[Goal]] = {
    "fp4.matvec": (Goal(0.8, ROOF),),
    "fp8.matvec": (Goal(0.8, ROOF),),
    "experts.decode": (Goal(0.7, ROOF),),
    "index_top_k": (Goal(0.6, ROOF),),
    "attention.decode": (Goal(3, CUPY),),
    "model.decode": (Goal(5, TRANSFORMERS),),
    **{f"layer.decode.{name}": (Goal(1 / 1.4, ROOF),) for name in CONTEXTS},
}
"""What is asked of a GPU, by row."""

BATCHES = 16, 64
PROMPTS = 256, 1024, 4096


def gpu_cases(cases: Sequence[object]) -> list[Case]:
    """The rows that make sense on a GPU, with its goals, and those of larger sizes."""
    kept = [case for case in cases if isinstance(case, Case) and case.threads is None and not case.on_cpu]
    more = [
        Case(f"attention.decode.{batch}", f"64 heads × 512, 640 keys, 1 token × {batch}", ARITHMETIC, prepare, goals)
        for batch in BATCHES
        for prepare, goals in [(partial(attention, tokens=1, batch=batch), (Goal(3, CUPY),))]
    ]
    more += [
        Case(f"fp4.matmat.{tokens}.rounded", f"FP4 [2048, 4096] × {tokens}, rounded", ARITHMETIC, prepare, goals)
        for tokens in PROMPTS
        for prepare, goals in [(partial(large_product, tokens=tokens), (Goal(0.5, CUPY_HALF),))]
    ]
    return [*(replace(case, goals=GOALS.get(case.name, ())) for case in kept), *more]
