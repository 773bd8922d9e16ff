"""What goes wrong on purpose: who is killed when, who is slow, and which share of the messages is lost."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from dsv4.errors import SettingError, quoted

SYNCER = "syncer"


class Kill(NamedTuple):
    """Somebody ends without a word, and is started again later."""

    who: int | str
    """A learner's number, or SYNCER."""
    after: int
    """After how many of its steps; the syncer: after how many merges."""
    seconds: float
    """From then until it is started again."""


class Chaos(NamedTuple):
    """Everything that goes wrong."""

    kills: tuple[Kill, ...] = ()
    slow: tuple[tuple[int, float], ...] = ()
    """Learners and how many times longer their steps take."""
    lost: float = 0.0
    """The share of requests, updates and fragments that never arrive."""

    def check(self, learners: int) -> "Chaos":
        """Itself. Raises SettingError for a learner that is not there, and for a share that is none."""
        for who in [kill.who for kill in self.kills] + [learner for learner, _ in self.slow]:
            if isinstance(who, int) and who >= learners:
                raise SettingError(f"learner: expected a number from 0 to {learners - 1}, found {who}")
        if not 0 <= self.lost < 1:
            raise SettingError(f"lost: expected a share from 0 to below 1, found {self.lost}")
        return self


QUIET = Chaos()
"""Nothing goes wrong."""


def read_kills(specs: Iterable[str]) -> tuple[Kill, ...]:
    """Kills from `WHO@AFTER+SECONDS`: learner 1 after its 20th step for 5 seconds is 1@20+5; +10 unless said.

    WHO: a learner's number or `syncer`, whose AFTER counts merges. Raises SettingError for anything else.
    """
    kills = []
    for spec in specs:
        found = re.fullmatch(rf"([0-9]{{1,4}}|{SYNCER})@([0-9]{{1,9}})(?:\+([0-9]{{1,6}}(?:\.[0-9]{{1,6}})?))?", spec)
        if found is None:
            raise SettingError(f"--kill: expected WHO@AFTER+SECONDS as 1@20+5 or {SYNCER}@8, found {quoted(spec)}")
        who, after, seconds = found.groups()
        kills.append(Kill(SYNCER if who == SYNCER else int(who), int(after), float(seconds or 10)))
    return tuple(kills)


def read_slow(specs: Iterable[str]) -> tuple[tuple[int, float], ...]:
    """Slow learners from `WHOxTIMES`: 2x10 is learner 2, whose steps take ten times as long.

    Raises SettingError for anything else.
    """
    slow = []
    for spec in specs:
        found = re.fullmatch(r"([0-9]{1,4})x([0-9]{1,4}(?:\.[0-9]{1,4})?)", spec)
        if found is None or float(found[2]) <= 0:
            raise SettingError(f"--slow: expected WHOxTIMES as 2x10, found {quoted(spec)}")
        slow.append((int(found[1]), float(found[2])))
    return tuple(slow)
