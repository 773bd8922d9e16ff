"""Who imports whom: rooms stand on those below them, and no module is part of a circle."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ROOMS = (
    *("dsv4.ops", "dsv4.errors", "dsv4.arguments", "dsv4.config", "dsv4.config41"),
    *("dsv4.parameters", "dsv4.parameters41", "dsv4.checkpoint", "dsv4.model", "dsv4.model41"),
    *(
        "dsv4.checking",
        "dsv4.presets",
        "dsv4.text",
        "dsv4.learn",
        "dsv4.cost",
        "dsv4.entry_points",
        "dsv4.backends",
        "dsv4.loading",
        "dsv4.pictures",
        "dsv4.verify",
        "dsv4",
        "dsv4.explain",
        "dsv4.serve",
        "dsv4.cli",
    ),
    *("dsv4_accel.bench", "dsv4_command", "dsv4.__main__"),
)
"""From the lowest to the highest: each may import those before it, and itself."""

BACKENDS = ("dsv4_accel.numba", "dsv4_accel.cuda")
"""Each stands on the operations, the errors and itself alone."""

LEARNS = "dsv4_accel.numba.vjp"
"""Stands on the hand-derived products that it makes faster, too."""


def source_files() -> dict[str, Path]:
    """Every module by its name."""
    files = {}
    for root in (ROOT / "ref", ROOT / "accel"):
        for path in root.rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if parts[0] in ("dsv4", "dsv4_accel", "dsv4_command"):
                files[name] = path
    return files


def imports(source: str, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a source imports, anywhere in it; of packages, those that it takes a name from."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & known.keys() or {str(node.module)}
    return found & known.keys()


FILES = source_files()
GRAPH = {name: imports(path.read_text(encoding="utf-8"), FILES) for name, path in FILES.items()}


def room(module: str) -> str:
    """The longest room that a module lies in."""
    return max((one for one in (*ROOMS, *BACKENDS, LEARNS) if module == one or module.startswith(f"{one}.")), key=len)


def floors_above(module: str, imported: set[str]) -> set[str]:
    """What a module imports although it lies above."""
    own = room(module)
    if own == LEARNS:
        return {other for other in imported if room(other) not in (own, "dsv4_accel.numba", "dsv4.ops", "dsv4.learn")}
    if own in BACKENDS:
        return {other for other in imported if room(other) not in (own, "dsv4.ops", "dsv4.errors")}
    allowed = ROOMS[: ROOMS.index(own) + 1]
    return {other for other in imported if room(other) not in allowed}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules of which each imports the next and the last the first; empty where there is no such circle."""
    done: set[str] = set()

    def search(path: list[str]) -> list[str]:
        for other in sorted(graph[path[-1]] - done):
            if other in path:
                return path[path.index(other) :]
            if found := search([*path, other]):
                return found
        done.add(path[-1])
        return []

    return next((found for start in sorted(graph) if (found := search([start]))), [])


def test_the_modules_were_found():
    assert {"dsv4.ops.mhc", "dsv4.text.chat.parse", "dsv4_accel.bench.roof", "dsv4_command"} <= GRAPH.keys()
    assert GRAPH["dsv4.loading"] >= {"dsv4.backends", "dsv4.checkpoint", "dsv4.model.model"}


@pytest.mark.parametrize("module", sorted(set(GRAPH) - {"dsv4_accel"}))
def test_no_module_imports_what_lies_above_it(module):
    assert floors_above(module, GRAPH[module]) == set()


def test_no_module_is_part_of_a_circle():
    assert circle(GRAPH) == []


def test_an_import_upwards_and_a_circle_are_found():
    assert floors_above("dsv4.ops.mhc", {"dsv4.errors", "dsv4.ops.norm"}) == {"dsv4.errors"}
    assert floors_above("dsv4_accel.numba.moe", {"dsv4.ops.moe", "dsv4.model.moe"}) == {"dsv4.model.moe"}
    assert floors_above("dsv4_accel.numba.moe", {"dsv4.learn.vjp.moe"}) == {"dsv4.learn.vjp.moe"}
    assert floors_above("dsv4_accel.numba.vjp.moe", {"dsv4.learn.vjp.moe", "dsv4.loading"}) == {"dsv4.loading"}
    assert circle({"a": {"b", "c"}, "b": set(), "c": {"d"}, "d": {"a"}}) == ["a", "c", "d"]
    assert imports("def f():\n    from dsv4 import config, nothing\n", FILES) == {"dsv4.config"}
