"""Writes the catalogue of docs/mutants.md: every mistake, and the test that fails first where it is made.

PYTHONPATH=tests python -m mutants.document            # makes all of them, some minutes
PYTHONPATH=tests python -m mutants.document NAME …     # makes these, and keeps what the page says of the others
"""

import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor

from mutants import runner
from mutants.catalogue import MUTANTS, PARTS
from mutants.mutant import Mutant

PAGE = runner.ROOT / "docs" / "mutants.md"
HEADING = "## The catalogue"
SOURCE = "../tests/mutants/catalogue"
SPELLED = {"Cuda": "CUDA", "Diloco": "DiLoCo", "Dspark": "DSpark"}
FOUND_BY = re.compile(r"^- \*\*(?P<name>\S+)\*\*: .* Found by `(?P<test>[^`]+)`\.$", re.MULTILINE)


def catalogue(killers: dict[str, str]) -> str:
    """The contents, and a list for each part of the catalogue; killers: the first failing test by the mutant's name."""
    lines = [HEADING, "", "| part | mistakes |", "|---|---:|"]
    lines += [f"| [{title(part)}](#{title(part).lower().replace(' ', '-')}) | {len(PARTS[part])} |" for part in PARTS]
    for part, mutants in PARTS.items():
        lines += ["", f"### {title(part)}", "", f"Patches: [{part}.py]({SOURCE}/{part}.py).", ""]
        lines += [f'<details markdown="1"><summary>{len(mutants)} mistakes</summary>', ""]
        lines += [f"{beginning(mutant)}{killers[mutant.name]}`." for mutant in mutants]
        lines += ["", "</details>"]
    return "\n".join(lines) + "\n"


def title(part: str) -> str:
    """The heading of a part: "Numba rows" for numba_rows."""
    words = part.replace("_", " ").capitalize().split()
    return " ".join(SPELLED.get(word, word) for word in words)


def beginning(mutant: Mutant) -> str:
    """The line of a mutant, up to the name of the test."""
    return f"- **{mutant.name}**: {mutant.trap}. In `{mutant.file}`. Found by `"


def known_killers(page: str) -> dict[str, str]:
    """The first failing test of each mutant that a page names."""
    return {match["name"]: match["test"] for match in FOUND_BY.finditer(page)}


def main() -> None:
    """Kill every mutant, or those that are named, and put the catalogue in the place of the page's old one."""
    text = PAGE.read_text(encoding="utf-8")
    chosen = [mutant for mutant in MUTANTS if mutant.name in sys.argv[1:]] or MUTANTS
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip([mutant.name for mutant in chosen], pool.map(runner.kill, chosen), strict=True))
    killers = {name: test.removeprefix("tests/").partition("[")[0] for name, test in found.items()}
    PAGE.write_text(text.partition(HEADING)[0] + catalogue(known_killers(text) | killers), encoding="utf-8")


if __name__ == "__main__":
    main()
