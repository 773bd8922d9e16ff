"""The end of a run: the seconds that each step took, and the slowest tests of all steps.

    python .ci/summary.py STEPS REPORTS

STEPS has a line for each step, its name and its seconds by the clock and of the processor; REPORTS is a directory of
JUnit reports, each named after the step that wrote it.
"""

import sys
from pathlib import Path
from xml.etree import ElementTree

SLOWEST = 20
"""How many tests are listed."""


def main(steps: Path, reports: Path) -> None:
    """Print both tables."""
    rows = [line.split("\t") for line in steps.read_text(encoding="utf-8").splitlines()]
    print(f"\n{'step':<32}{'seconds':>9}{'of processor':>14}")
    for name, clock, processor in rows:
        print(f"{name:<32}{float(clock):>9.0f}{float(processor):>14.0f}")
    print(f"{'all, several at a time':<32}{'':>9}{sum(float(row[2]) for row in rows):>14.0f}")
    print(f"\n{'the slowest tests':<110}{'seconds':>9}")
    for seconds, test, step in sorted(_tests(reports), reverse=True)[:SLOWEST]:
        print(f"{step + ': ' + test:<110.110}{seconds:>9.1f}")


def _tests(reports: Path) -> list[tuple[float, str, str]]:
    """Seconds, name and step of every test."""
    return [
        (float(case.get("time", 0)), f"{case.get('classname')}::{case.get('name')}", report.stem)
        for report in reports.glob("*.xml")
        for case in ElementTree.parse(report).iter("testcase")
    ]


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
