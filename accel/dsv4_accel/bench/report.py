"""A report as text: a table of the rows, and what became of the goals; plain, or as Markdown for a page."""

from collections.abc import Iterator

from dsv4_accel.bench.case import ROOF, Row, Verdict
from dsv4_accel.bench.machine import machine_in_words
from dsv4_accel.bench.run import Report
from dsv4_accel.bench.stage import NUMPY, OURS
from dsv4_accel.bench.timing import Spread

COLUMNS = "row", "what", "time", "moved", "of roof", "× NumPy", "× others", "bound by"

NUMBERS = "time", "moved", "of roof", "× NumPy"
"""The columns that are aligned on the right."""

LEGEND = "times are medians ± half of what lies between the quartiles; ratios say how many times as long others take"


def as_text(report: Report) -> str:
    """Everything: the machine, the table, the goals, and what was not measured. The table has at most 160 columns."""
    cells = [dict(zip(COLUMNS, COLUMNS, strict=True)), *map(table_cells, report.rows)]
    widths = {column: max(len(row[column]) for row in cells) for column in COLUMNS}
    aligned = ((f"{row[name]:{'>' if name in NUMBERS else '<'}{widths[name]}}" for name in COLUMNS) for row in cells)
    table = ["  ".join(row).rstrip() for row in aligned]
    goals = [f"  {line}" for line in _goals(report)]
    lines = [*_head(report), "", *table, *(["", "goals:", *goals] if goals else []), "", *_tail(report)]
    return "\n".join(lines).rstrip()


def as_markdown(report: Report) -> str:
    """The same as Markdown: paragraphs, a table, lists."""
    aligned = ["---:" if name in NUMBERS else ":---" for name in COLUMNS]
    rows = [list(COLUMNS), aligned, *(list(table_cells(row).values()) for row in report.rows)]
    table = [f"| {' | '.join(row)} |" for row in rows]
    goals = [f"- {line}" for line in _goals(report)]
    tail = [f"- {line}" for line in _tail(report)]
    parts = "\n\n".join(_head(report)), "\n".join(table), "\n".join(goals), "\n".join(tail)
    return "\n\n".join(part for part in parts if part)


def table_cells(row: Row) -> dict[str, str]:
    """A row's cells by column."""
    others = [f"{name} {_times(ratio)}" for name, ratio in row.ratios.items() if name != NUMPY]
    numpy, fraction = row.ratios.get(NUMPY), row.roof_fraction
    return {
        "row": row.name,
        "what": row.what,
        "time": _duration(row.seconds[row.lead]),
        "moved": "" if row.bytes_moved is None else _bytes(row.bytes_moved),
        "of roof": "" if fraction is None else f"{fraction.median:.0%}",
        "× NumPy": "" if numpy is None else _times(numpy),
        "× others": ", ".join(others),
        "bound by": row.bound_by,
    }


def goal_in_words(row: Row, verdict: Verdict, backend: str) -> str:
    """One line: whether a goal is met, and by how much it is missed; in brackets the quartiles of what was found."""
    goal, found = verdict.goal, verdict.found
    who = backend if goal.of == OURS else goal.of
    if goal.against == ROOF:
        wanted = f"at least {goal.least:.0%} of the roof"
        reached = found and "{:.1%} ({:.1%} … {:.1%})".format(*found)
    elif goal.least < 1:
        wanted = f"at most {1 / goal.least:g} times as long as {goal.against}"
        reached = found and f"{1 / found.median:.2f} ({1 / found.high:.2f} … {1 / found.low:.2f})"
    else:
        wanted = f"at least {goal.least:g} times as fast as {goal.against}"
        reached = found and "{:.2f} ({:.2f} … {:.2f})".format(*found)
    if found is None:
        return f"{row.name}: not measured; {who} should be {wanted}"
    judgement = "met" if verdict.met else f"missed by {verdict.missed_by:.1%}"
    return f"{row.name}: {judgement}; {who} should be {wanted}, found {reached}"


def _head(report: Report) -> list[str]:
    backend = f"backend {report.backend}, {report.threads} threads; {_roof_in_words(report)}"
    return [machine_in_words(report.machine), backend, LEGEND]


def _goals(report: Report) -> Iterator[str]:
    for row in report.rows:
        for verdict in row.verdicts:
            if not (verdict.goal.of == OURS and row.lead == NUMPY):  # what is asked of other backends than NumPy's
                yield goal_in_words(row, verdict, report.backend)


def _tail(report: Report) -> Iterator[str]:
    """With what was compared, and what was not measured."""
    yield from (f"compared with {name}: {version}" for name, version in report.peers.items())
    yield from report.missing.values()
    yield from (f"{row.name}: {note}" for row in report.rows for note in row.notes)
    yield from (f"{name}: not measured, {reason}" for name, reason in report.left_out.items())


def _roof_in_words(report: Report) -> str:
    rates = [report.roof_bytes / row.seconds[ROOF].median for row in report.rows if ROOF in row.seconds]
    found = f"{min(rates) / 1e9:.1f} … {max(rates) / 1e9:.1f} GB/s" if rates else "not measured"
    return f"roof {found}, {report.roof_reader} over {_bytes(report.roof_bytes)}"


def _duration(seconds: Spread) -> str:
    spread = (seconds.high - seconds.low) / 2 / seconds.median
    for unit, name in ((1, "s"), (1e-3, "ms")):
        if seconds.median >= unit:
            return f"{seconds.median / unit:.3g} {name} ± {spread:.0%}"
    return f"{seconds.median / 1e-6:.3g} µs ± {spread:.0%}"


def _bytes(number: int) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number} B"


def _times(ratio: Spread) -> str:
    return f"{ratio.median:.3g}"
