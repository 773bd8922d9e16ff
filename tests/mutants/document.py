"""Writes the table of docs/mutants.md: every mistake, and the test that fails first where it is made.

PYTHONPATH=tests python -m mutants.document
"""

import os
from concurrent.futures import ProcessPoolExecutor

from mutants import runner
from mutants.catalogue import MUTANTS, PARTS

PAGE = runner.ROOT / "docs" / "mutants.md"
HEADING = "## The catalogue"
SOURCE = "../tests/mutants/catalogue"


def table(killers: dict[str, str]) -> str:
    """The table of each part of the catalogue; killers: the first failing test by the mutant's name."""
    lines = [HEADING]
    for part, mutants in PARTS.items():
        lines += ["", f"### [{part}]({SOURCE}/{part}.py)", "", "| The mistake | Patch of | First test that fails |"]
        lines += ["|---|---|---|"]
        for mutant in mutants:
            test = killers[mutant.name].removeprefix("tests/").partition("[")[0]
            lines += [f"| **{mutant.name}**: {mutant.trap} | `{mutant.file}` | `{test}` |"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Kill every mutant, and put the table in the place of the page's old one."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        killers = dict(zip([mutant.name for mutant in MUTANTS], pool.map(runner.kill, MUTANTS), strict=True))
    text = PAGE.read_text(encoding="utf-8").partition(HEADING)[0]
    PAGE.write_text(text + table(killers), encoding="utf-8")


if __name__ == "__main__":
    main()
