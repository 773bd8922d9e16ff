"""Specifications of what goes wrong: read, or refused in one line."""

import pytest

from dsv4.errors import SettingError
from dsv4.learn.diloco.chaos import SYNCER, Chaos, Kill, read_kills, read_slow


def test_what_they_say():
    assert read_kills(["1@20+5", "syncer@8", "0@3+0.5"]) == (Kill(1, 20, 5), Kill(SYNCER, 8, 10), Kill(0, 3, 0.5))
    assert read_slow(["2x10", "0x1.5"]) == ((2, 10.0), (0, 1.5))


@pytest.mark.parametrize("spec", ["", "1", "1@", "x@3", "1@3+", "-1@3", "1@3+5s", "1@3 ", "1@3+-5", "syncer", "1@2.5"])
def test_kills_that_say_nothing_are_refused(spec):
    with pytest.raises(SettingError, match="--kill: expected WHO@AFTER"):
        read_kills([spec])


@pytest.mark.parametrize("spec", ["", "2", "x2", "2x", "2x0", "2x-1", "syncerx2"])
def test_speeds_that_say_nothing_are_refused(spec):
    with pytest.raises(SettingError, match="--slow: expected WHOxTIMES"):
        read_slow([spec])


@pytest.mark.parametrize(
    "chaos", [Chaos(kills=(Kill(2, 1, 1),)), Chaos(slow=((2, 2.0),)), Chaos(lost=1.0), Chaos(lost=-0.1)]
)
def test_what_does_not_fit_the_run_is_refused(chaos):
    with pytest.raises(SettingError, match=r"expected a (number|share) from 0"):
        chaos.check(2)
