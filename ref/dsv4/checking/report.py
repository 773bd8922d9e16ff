"""What a check found: one finding for each property, and the table that shows them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Worst:
    """The case with the largest error for NumPy's, among those that passed."""

    shapes: str
    """The arguments' names and shapes."""
    error: float
    """Against float64, relative to the size of the terms that are added up."""
    numpys_error: float
    """The same of NumPy's float32."""


@dataclass(frozen=True)
class Failure:
    """The smallest case for which a property does not hold."""

    what: str
    """What is special about the case; empty where it is only of some size."""
    shapes: str
    message: str
    """What is wrong: the error and its limit, a shape, a dtype, an exception of the function."""


@dataclass(frozen=True)
class Finding:
    """Whether one property holds."""

    name: str
    verdict: str
    """"exact", "as good", "holds" or "fails"."""
    cases: int
    """How many were tried: all, or up to the first that failed."""
    worst: Worst | None = None
    failure: Failure | None = None

    @property
    def holds(self) -> bool:
        """Whether no case failed."""
        return self.failure is None


@dataclass(frozen=True)
class Report:
    """The findings of a check; as text a small table, and below it each failure."""

    operation: str
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether every property holds."""
        return all(finding.holds for finding in self.findings)

    def __str__(self) -> str:
        held = sum(finding.holds for finding in self.findings)
        lines = [f"{self.operation}: {held} of {len(self.findings)} properties hold", ""]
        lines += [f"{'property':<22}{'verdict':<9}{'cases':>5}{'error':>10}{'NumPy':>10}  worst case"]
        lines += [_row(finding) for finding in self.findings]
        for finding in self.findings:
            if finding.failure is not None:
                lines += ["", *_explanation(finding.name, finding.failure)]
        return "\n".join(lines)

    __repr__ = __str__


def _row(finding: Finding) -> str:
    row = f"{finding.name:<22}{finding.verdict:<9}{finding.cases:>5}"
    if finding.worst is not None:
        row += f"{finding.worst.error:>10.1e}{finding.worst.numpys_error:>10.1e}  {finding.worst.shapes}"
    return row


def _explanation(name: str, failure: Failure) -> list[str]:
    what = f" ({failure.what})" if failure.what else ""
    return [f"{name}{what}: {failure.message}", f"  for {failure.shapes}"]
