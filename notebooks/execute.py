"""Runs notebooks from their sources and writes them, with outputs, beside these: python notebooks/execute.py [NAME …]

NN_name.py is the text that is edited; NN_name.ipynb is made from it. Whatever would differ from run to run although
nothing has changed (cell ids, times, versions) is left out.
"""

import os
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
TIME_LIMIT = 120
"""Seconds of processor that a notebook may take."""

CELL_LIMIT = 900
"""Seconds after which a cell is taken for one without end."""

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""The products are small: on a busy machine, threads that wait for each other take many times as long."""


def sources() -> list[Path]:
    """The notebooks' sources, in order."""
    return sorted(HERE.glob("[0-9][0-9]_*.py"))


def execute(source: Path) -> nbformat.NotebookNode:
    """The notebook of this source, run in a fresh kernel. Raises an error of nbclient where a cell fails."""
    notebook = jupytext.read(source)
    client = NotebookClient(notebook, timeout=CELL_LIMIT, resources={"metadata": {"path": str(HERE)}})
    client.execute(env=os.environ | ONE_THREAD)
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{source.stem}-{number}"
        cell.metadata = {}
    return notebook


def main() -> None:
    for source in sources():
        if sys.argv[1:] and not any(source.name.startswith(name) for name in sys.argv[1:]):
            continue
        start = time.perf_counter()
        target = source.with_suffix(".ipynb")
        nbformat.write(execute(source), target)
        print(f"{target.name}: {time.perf_counter() - start:.0f} s, {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
