"""A whole run: which rows, on which stage, and the report that comes of it."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dsv4.backends import backend as backend_named
from dsv4.errors import SettingError
from dsv4.ops import Ops
from dsv4_accel.bench.case import Case, Row
from dsv4_accel.bench.context import context_cases
from dsv4_accel.bench.gpu import gpu_cases
from dsv4_accel.bench.layer import LargeLayer
from dsv4_accel.bench.layers41 import v41_cases
from dsv4_accel.bench.load import load_cases
from dsv4_accel.bench.machine import describe_machine
from dsv4_accel.bench.models import model_cases
from dsv4_accel.bench.operations import operation_cases
from dsv4_accel.bench.peers import Peers
from dsv4_accel.bench.processes import PortableCase, import_case, portable_cases
from dsv4_accel.bench.products import product_cases
from dsv4_accel.bench.roof import DEVICE_BYTES, DeviceRoof, Roof, buffer_bytes, thread_count
from dsv4_accel.bench.selection import selection_cases
from dsv4_accel.bench.servers import server_cases
from dsv4_accel.bench.serving import serving_cases
from dsv4_accel.bench.stage import Stage, lives_elsewhere
from dsv4_accel.bench.timing import FULL, QUICK
from dsv4_accel.bench.training import training_cases

QUICK_BYTES = 2**25
"""The size of the roof's buffer and of the arrays that take turns in a quick run; a cache may hold them."""

AnyCase = Case | PortableCase


@dataclass(frozen=True)
class Report:
    """Everything that a run has found. machine: as `describe_machine` says; roof: how it was read, in words.

    peers: what was compared with; missing: why a peer was not; left_out: why a chosen row was not measured, by row.
    """

    backend: str
    threads: int
    quick: bool
    machine: dict[str, Any]
    roof_reader: str
    roof_bytes: int
    peers: dict[str, str]
    missing: dict[str, str]
    left_out: dict[str, str]
    rows: list[Row]

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return vars(self) | {"rows": [row.to_json() for row in self.rows]}


def all_cases() -> list[AnyCase]:
    """Every row that there is, in the order of the table."""
    products: list[AnyCase] = [*product_cases()]
    return [
        *products,
        *portable_cases(),
        *operation_cases(),
        *selection_cases(),
        *model_cases(),
        *v41_cases(),
        *context_cases(),
        *training_cases(),
        *serving_cases(),
        *server_cases(),
        *load_cases(),
        import_case(),
    ]


def chosen_cases(patterns: Sequence[str], cases: Sequence[AnyCase]) -> list[AnyCase]:
    """The cases whose names fit one of the patterns, all without a pattern.

    Raises SettingError for a pattern that fits none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(case.name, pattern) for case in cases):
            names = ", ".join(case.name for case in cases)
            raise SettingError(f"--only: expected a name or a pattern such as 'fp4.*' of {names}; found {pattern!r}")
    return [case for case in cases if not patterns or any(fnmatchcase(case.name, one) for one in patterns)]


def run(
    backend: str = "auto",
    only: Sequence[str] = (),
    quick: bool = False,
    peers: bool = True,
    layer_directory: Path | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> Report:
    """Measure the rows whose names fit one of the patterns `only`, all without a pattern.

    backend: what to compute with; quick: little time and memory for each row, and none for the large ones unless
    `only` names them; peers: whether to compare with other libraries; layer_directory: where the checkpoint of one
    layer is or shall stay. Raises SettingError for a pattern that fits nothing, and for a layer that cannot be read or
    written; BackendError for a backend that cannot run.
    """
    ops = backend_named(backend)
    on_gpu = lives_elsewhere(ops)
    chosen = chosen_cases(only, gpu_cases(all_cases()) if on_gpu else all_cases())
    left_out = {case.name: reason for case in chosen if (reason := _why_not(case, ops, quick and not only))}
    cases = [case for case in chosen if case.name not in left_out]
    threads, nbytes = thread_count(), QUICK_BYTES if quick else buffer_bytes()
    roof = DeviceRoof(ops, QUICK_BYTES if quick else DEVICE_BYTES) if on_gpu else Roof(nbytes, threads)
    with closing(LargeLayer(layer_directory)) as layer:
        stage = Stage(
            ops=ops,
            pace=QUICK if quick else FULL,
            roof=roof,
            threads=threads,
            rotation_bytes=nbytes,
            peers=Peers(wanted=peers),
            layer=layer,
        )
        rows = []
        for done, case in enumerate(cases):
            progress(done, len(cases), case.name)
            rows.append(case.measure(stage))
    return Report(
        backend=ops.name,
        threads=threads,
        quick=quick,
        machine=describe_machine(),
        roof_reader=stage.roof.reader,
        roof_bytes=stage.roof.nbytes,
        peers=stage.peers.versions,
        missing=stage.peers.missing,
        left_out=left_out,
        rows=rows,
    )


def _why_not(case: AnyCase, ops: Ops, spare_large: bool) -> str | None:
    """Why a row is not measured, None where it is."""
    if isinstance(case, PortableCase) and ops.name != "numba":
        return "only Numba's backend has a portable path"
    if isinstance(case, Case) and (missing := [name for name in case.needs if find_spec(name) is None]):
        return f"needs {missing[0]}, which is not installed"
    return "too large for a quick look" if case.large and spare_large else None
