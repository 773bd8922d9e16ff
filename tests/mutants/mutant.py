"""What a mutant is: one mistake, the patch that makes it, and the tests that must notice."""

from dataclasses import dataclass
from pathlib import Path


class StaleError(Exception):
    """A patch no longer fits the source: the code has moved on and the catalogue has not."""


@dataclass(frozen=True)
class Mutant:
    """One mistake that somebody made or could make."""

    name: str
    """A short name in lower case, unique in the catalogue."""
    trap: str
    """The mistake in one sentence."""
    file: str
    """Where it is made, relative to the package."""
    old: str
    """The text that the mistake replaces; it must occur exactly once in the file."""
    new: str
    """What stands there instead."""
    tests: tuple[str, ...]
    """Test files or node ids below tests/; at least one of them must fail an assertion."""
    also: tuple[tuple[str, str], ...] = ()
    """Further replacements in the same file, (old, new), where one does not make the mistake."""
    package: str = "dsv4"
    """Which package it is made in: dsv4 or dsv4_accel."""

    def patch(self, source: str) -> str:
        """The source with the mistake in it. Raises StaleError where a text to replace is not there exactly once."""
        for old, new in ((self.old, self.new), *self.also):
            if (count := source.count(old)) != 1:
                raise StaleError(f"{self.name}: expected once in {self.file}, found {count} times: {old!r}")
            source = source.replace(old, new)
        return source

    def apply(self, source_root: Path) -> Path:
        """Make the mistake in a copy of the packages and return the changed file; raises StaleError as `patch` does."""
        path = source_root / self.package / self.file
        path.write_text(self.patch(path.read_text(encoding="utf-8")), encoding="utf-8")
        return path
