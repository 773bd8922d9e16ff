"""A report as text: a table of the rows, and what became of the goals."""

import sys

from dsv4.bench.case import ROOF, Row, Verdict
from dsv4.bench.machine import machine_in_words
from dsv4.bench.run import Report
from dsv4.bench.stage import NUMPY, OURS
from dsv4.bench.timing import Spread

COLUMNS = "row", "what", "time", "moved", "of roof", "× NumPy", "× others", "bound by"

NUMBERS = "time", "moved", "of roof", "× NumPy"
"""The columns that are aligned on the right."""


def print_report(report: Report) -> None:
    """Print everything: the machine, the table, the goals, and what was not measured."""
    print(f"{machine_in_words(report.machine)}")
    print(f"backend {report.backend}, {report.threads} threads; {_roof_in_words(report)}")
    print(
        "times are medians ± half of what lies between the quartiles; ratios say how many times as long others take\n"
    )
    _print_table([table_cells(row) for row in report.rows])
    goals = [
        goal_in_words(row, verdict, report.backend)
        for row in report.rows
        for verdict in row.verdicts
        if not (verdict.goal.of == OURS and row.lead == NUMPY)  # what is asked of other backends than NumPy's
    ]
    print("\n".join(["", "goals:", *goals] if goals else []))
    for name, version in report.peers.items():
        print(f"compared with {name}: {version}")
    for reason in report.missing.values():
        print(reason)
    for name, reason in report.left_out.items():
        print(f"{name}: not measured, {reason}")


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
    """One line: whether a goal is met, and by how much it is missed."""
    goal, found = verdict.goal, verdict.found
    who = backend if goal.of == OURS else goal.of
    if goal.against == ROOF:
        wanted, reached = f"at least {goal.least:.0%} of the roof", f"{found or 0:.0%}"
    elif goal.least < 1:
        wanted = f"at most {1 / goal.least:g} times as long as {goal.against}"
        reached = f"{1 / found:.2f}" if found else ""
    else:
        wanted, reached = f"at least {goal.least:g} times as fast as {goal.against}", f"{found or 0:.2f}"
    if found is None:
        return f"  {row.name}: not measured; {who} should be {wanted}"
    judgement = "met" if verdict.met else f"missed by {verdict.missed_by:.0%}"
    return f"  {row.name}: {judgement}; {who} should be {wanted}, found {reached}"


def _roof_in_words(report: Report) -> str:
    rates = [report.roof_bytes / row.seconds[ROOF].median for row in report.rows if ROOF in row.seconds]
    found = f"{min(rates) / 1e9:.1f} … {max(rates) / 1e9:.1f} GB/s" if rates else "not measured"
    return f"roof {found}, {report.roof_reader} over {_bytes(report.roof_bytes)}"


def _print_table(rows: list[dict[str, str]]) -> None:
    """A table with rules where it is read on a terminal, aligned text elsewhere."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*[])
        for column in COLUMNS:
            table.add_column(column, justify="right" if column in NUMBERS else "left")
        for row in rows:
            table.add_row(*(row[column] for column in COLUMNS))
        Console().print(table)
        return
    widths = {column: max([len(column), *(len(row[column]) for row in rows)]) for column in COLUMNS}
    for row in [dict(zip(COLUMNS, COLUMNS, strict=True)), *rows]:
        cells = (f"{row[name]:{'>' if name in NUMBERS else '<'}{widths[name]}}" for name in COLUMNS)
        print("  ".join(cells).rstrip())


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
