"""What a row of the bench is: contestants, bytes, a goal; and what came of it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

from dsv4_accel.bench.stage import OURS, Stage
from dsv4_accel.bench.threads import limited_to
from dsv4_accel.bench.timing import Contestant, Spread, alternate, ratio, spread

ROOF = "roof"
"""The adding up of a large buffer, which takes part in every contest that moves bytes."""

MEMORY, ARITHMETIC, CALLS = "memory", "arithmetic", "calls"
"""What keeps a row from being faster, for the most part: the bytes, the numbers, or the many small steps."""


class Goal(NamedTuple):
    """`of` is at least `least` times as fast as `against`; against the roof, it reads at least this fraction of it."""

    least: float
    against: str
    of: str = OURS


@dataclass(frozen=True)
class Contest:
    """The implementations that are timed in turn, first the one that the row is about; and the bytes that a call moves
    at the least, if that says something."""

    contestants: Mapping[str, Contestant]
    bytes_moved: int | None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Verdict:
    """What a goal asked for and what was found, None where a contestant was not there."""

    goal: Goal
    found: Spread | None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached."""
        return None if self.found is None else self.found.median >= self.goal.least

    @property
    def missed_by(self) -> float | None:
        """The fraction of the goal that is missing, 0 where it is reached."""
        return None if self.found is None else max(0.0, 1 - self.found.median / self.goal.least)

    def to_json(self) -> dict[str, Any]:
        """The verdict as a JSON object."""
        found = self.found and self.found._asdict()
        return {**self.goal._asdict(), "found": found, "met": self.met, "missed_by": self.missed_by}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The verdict that `to_json` has written."""
        found = fields["found"]
        return cls(Goal(fields["least"], fields["against"], fields["of"]), found and Spread(**found))


@dataclass(frozen=True)
class Row:
    """A measured case.

    lead: the contestant that the row is about; seconds: of a call, by contestant, the roof's too; roof_fraction: of the
    measured read bandwidth, how much the lead's bytes over its time are; ratios: how many times as long as the lead
    each other contestant takes; notes: what was not measured, and why.
    """

    name: str
    what: str
    bound_by: str
    threads: int
    lead: str
    bytes_moved: int | None
    seconds: dict[str, Spread]
    roof_fraction: Spread | None
    ratios: dict[str, Spread]
    verdicts: list[Verdict]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """The row as a JSON object."""
        return vars(self) | {
            "seconds": _named(self.seconds),
            "roof_fraction": self.roof_fraction and self.roof_fraction._asdict(),
            "ratios": _named(self.ratios),
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The row that `to_json` has written."""
        fraction = fields["roof_fraction"]
        parts = {
            "seconds": {name: Spread(**numbers) for name, numbers in fields["seconds"].items()},
            "roof_fraction": fraction and Spread(**fraction),
            "ratios": {name: Spread(**numbers) for name, numbers in fields["ratios"].items()},
            "verdicts": [Verdict.from_json(verdict) for verdict in fields["verdicts"]],
        }
        return cls(**fields | parts)


@dataclass(frozen=True)
class Case:
    """A row to measure.

    name: as `--only` selects it; what: the operation and its shapes; bound_by: MEMORY, ARITHMETIC or CALLS;
    prepare: makes the contest, which is dropped after it; threads: how many instead of all; large: whether it is left
    out of a quick run unless it is asked for; on_cpu: whether it says nothing about a GPU; needs: packages without
    which it is left out.
    """

    name: str
    what: str
    bound_by: str
    prepare: Callable[[Stage], Contest]
    goals: Sequence[Goal] = ()
    threads: int | None = None
    large: bool = False
    on_cpu: bool = False
    needs: Sequence[str] = ()

    def measure(self, stage: Stage) -> Row:
        """Run the contest and judge it."""
        threads = self.threads or stage.threads
        with ExitStack() as resources:
            contest = self.prepare(replace(stage, threads=threads, resources=resources))
            contestants = dict(contest.contestants)
            if contest.bytes_moved is not None:
                contestants[ROOF] = Contestant(lambda: stage.roof.read(threads))
            contestants = {name: replace(one, finish=stage.finish) for name, one in contestants.items()}
            with limited_to(threads):  # only now: libraries that a contest has just loaded are limited, too
                times = alternate(contestants, stage.pace)
        return judge(self, contest, times, stage.roof.nbytes, threads)


def judge(case: Case, contest: Contest, times: dict[str, list[float]], roof_bytes: int, threads: int) -> Row:
    """The row that the times of a contest make. roof_bytes: what one call of the roof reads."""
    lead = next(iter(contest.contestants))
    ratios = {name: ratio(times[name], times[lead]) for name in contest.contestants if name != lead}
    fraction = None
    if contest.bytes_moved is not None:
        share = contest.bytes_moved / roof_bytes
        fraction = Spread(*(share * number for number in ratio(times[ROOF], times[lead])))
    return Row(
        name=case.name,
        what=case.what,
        bound_by=case.bound_by,
        threads=threads,
        lead=lead,
        bytes_moved=contest.bytes_moved,
        seconds={name: spread(seconds) for name, seconds in times.items()},
        roof_fraction=fraction,
        ratios=ratios,
        verdicts=[Verdict(goal, _found(goal, times, lead, fraction)) for goal in case.goals],
        notes=list(contest.notes),
    )


def _found(goal: Goal, times: dict[str, list[float]], lead: str, fraction: Spread | None) -> Spread | None:
    """What the goal asks for, as measured; None where one of the two did not take part."""
    if goal.against == ROOF:
        return fraction if goal.of == lead else None
    if goal.of not in times or goal.against not in times:
        return None
    return ratio(times[goal.against], times[goal.of])


def _named(spreads: dict[str, Spread]) -> dict[str, dict[str, float]]:
    return {name: numbers._asdict() for name, numbers in spreads.items()}
