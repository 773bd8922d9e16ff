"""The rows that need processes of their own: what an import costs, and kernels without this processor's vectors."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from tempfile import TemporaryDirectory

from dsv4.errors import BackendError
from dsv4_accel.bench.case import CALLS, ROOF, Case, Contest, Goal, Row, Verdict
from dsv4_accel.bench.stage import OURS, Stage
from dsv4_accel.bench.timing import QUICK, Contestant

VARIABLE = "DSV4_NUMBA_PORTABLE"
"""The environment variable with which Numba's backend does without this processor's own instructions."""


def import_case() -> Case:
    """What `import dsv4` costs beside `import numpy`, each with the start of Python; and beside all that a model needs,
    which is imported when it is first used."""
    goal = Goal(1 / 1.3, "import numpy", of="import dsv4")
    return Case("import", "a Python that imports dsv4", CALLS, _imports, (goal,))


def _imports(stage: Stage) -> Contest:
    """Both find compiled files of their own, whether or not Python may write any beside the sources."""
    compiled = stage.resources.enter_context(TemporaryDirectory(prefix="dsv4-bench-"))
    environment = os.environ | {"PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}

    def call(statement: str) -> Contestant:
        return Contestant(partial(subprocess.run, [sys.executable, "-c", statement], check=True, env=environment))

    statements = "import dsv4", "import numpy", "from dsv4 import load, generate"
    return Contest({statement: call(statement) for statement in statements}, None)


@dataclass(frozen=True)
class PortableCase:
    """A row of Numba's portable path: another row, measured by a process that is told to take this path."""

    original: str
    goals: Sequence[Goal]
    large: bool = False

    @property
    def name(self) -> str:
        """As `--only` selects it."""
        return f"{self.original}.portable"

    def measure(self, stage: Stage) -> Row:
        """Run the other row in a process of its own. Raises BackendError where that fails."""
        command = [sys.executable, "-c", "from dsv4.cli import main; main()", "bench", "--json", "--no-peers"]
        command += ["--only", self.original, "--backend", stage.ops.name]
        command += ["--quick"] if stage.pace == QUICK else []
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {VARIABLE: "1"})
        if done.returncode != 0:
            raise BackendError(f"{self.name}: expected a process that measures, found: {done.stderr.strip()}")
        return self.renamed(Row.from_json(json.loads(done.stdout)["rows"][0]))

    def renamed(self, row: Row) -> Row:
        """The other process's row as one of this case, with this case's goals."""
        verdicts = [Verdict(goal, row.roof_fraction if row.lead == OURS else None) for goal in self.goals]
        return replace(row, name=self.name, what=f"{row.what}, portable", verdicts=verdicts)


def portable_cases() -> list[PortableCase]:
    """The products whose portable path has a goal."""
    return [
        PortableCase("fp4.matvec", (Goal(0.3, ROOF),)),
        PortableCase("fp8.matvec", (Goal(0.6, ROOF),)),
    ]
