"""Two reports, row by row: what has become slower or faster by more than the measurements scatter."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dsv4.checkpoint.input_files import read_json
from dsv4.errors import SettingError, quoted
from dsv4_accel.bench.case import ROOF, Row
from dsv4_accel.bench.timing import Spread

Judgement = Literal["slower", "faster", "the same"]


class Change(NamedTuple):
    """One row, before and now."""

    row: str
    before: Spread
    """Seconds of a call, as in the old report."""
    now: Spread
    """The same, as measured now."""
    yardstick: str | None
    """What ran beside it both times and shows whether the machine itself was slower; None where nothing did."""
    judgement: Judgement
    """Slower: the quartiles of the times lie above those from before, and so do those relative to the yardstick."""

    @property
    def times(self) -> float:
        """How many times as long a call takes now."""
        return self.now.median / self.before.median

    def to_json(self) -> dict[str, Any]:
        """The change as a JSON object."""
        spreads = {"before": self.before._asdict(), "now": self.now._asdict()}
        return {**self._asdict(), **spreads, "times": self.times}


def read_rows(path: Path, backend: str, threads: int) -> list[Row]:
    """The rows of a report that `dsv4 bench --json` has printed, to compare a new one of this backend with.

    Raises SettingError for a file that holds no report, or one of another backend or number of threads.
    """
    found = read_json(path, SettingError, "a report of `dsv4 bench --json`")
    try:
        rows = [Row.from_json(row) for row in found["rows"]]
        before, now = (found["backend"], found["threads"]), (backend, threads)
    except (KeyError, TypeError, AttributeError) as error:
        raise SettingError(f"{path}: expected a report of `dsv4 bench --json`, found other JSON") from error
    if before != now:
        raise SettingError(f"{path}: expected a report of {_setting(*now)}, found one of {_setting(*before)}")
    return rows


def changes(before: Sequence[Row], now: Sequence[Row]) -> list[Change]:
    """The rows that both reports have, in the order of the new one."""
    earlier = {row.name: row for row in before}
    return [_change(earlier[row.name], row) for row in now if row.name in earlier]


def in_words(change: Change) -> str:
    """One line: what a call took before and takes now, and what that means."""
    times = f"{change.before.median * 1e3:.4g} ms before, {change.now.median * 1e3:.4g} ms now"
    beside = f", also beside {change.yardstick}" if change.yardstick and change.judgement != "the same" else ""
    return f"{change.row}: {change.judgement}, {change.times:.2f} times as long{beside} ({times})"


def _change(before: Row, now: Row) -> Change:
    yardstick, relative = _yardstick(before, now)
    by_time = _judge(before.seconds[before.lead], now.seconds[now.lead])
    agreed = by_time if relative is None or _judge(*relative) == by_time else "the same"
    return Change(now.name, before.seconds[before.lead], now.seconds[now.lead], yardstick, agreed)


def _yardstick(before: Row, now: Row) -> tuple[str | None, tuple[Spread, Spread] | None]:
    """What was measured beside the row in both reports, and the row's times relative to it."""
    if before.roof_fraction and now.roof_fraction:
        return ROOF, (_inverse(before.roof_fraction), _inverse(now.roof_fraction))
    shared = [name for name in now.ratios if name in before.ratios]
    if not shared:
        return None, None
    return shared[0], (_inverse(before.ratios[shared[0]]), _inverse(now.ratios[shared[0]]))


def _inverse(ratio: Spread) -> Spread:
    return Spread(1 / ratio.median, 1 / ratio.high, 1 / ratio.low)


def _judge(before: Spread, now: Spread) -> Judgement:
    if now.low > before.high:
        return "slower"
    return "faster" if now.high < before.low else "the same"


def _setting(backend: Any, threads: Any) -> str:
    return f"{quoted(backend)} with {threads} threads"
