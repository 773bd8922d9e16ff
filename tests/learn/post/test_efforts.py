"""Efforts: what length costs in each of them."""

import pytest

from dsv4.errors import SettingError
from dsv4.learn.post.efforts import DEFAULTS, Effort
from dsv4.text.chat.templates import EFFORTS


def test_what_length_costs_by_hand():
    effort = Effort("high", 50, 0.2)
    assert effort.reward(1.0, 25) == pytest.approx(0.9)
    assert effort.reward(0.0, 50) == pytest.approx(-0.2)
    assert Effort("max", 50, 0.0).reward(0.75, 50) == 0.75


def test_more_thought_has_more_room_and_a_lower_price():
    efforts = [Effort.named(mode) for mode in EFFORTS["april"]]
    assert list(DEFAULTS) == list(EFFORTS["april"])
    assert sorted(efforts, key=lambda one: one.window) == efforts
    assert sorted(efforts, key=lambda one: -one.penalty) == efforts
    short, long = (efforts[0].reward(1.0, tokens) for tokens in (4, 20))
    assert short - long > efforts[2].reward(1.0, 4) - efforts[2].reward(1.0, 20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("low", 5, 0.1), r"^effort: mode: expected one of non-think, high, max, found 'low'$"),
        (("high", 0, 0.1), r"^effort high: window: expected an integer from 1 to \d+, found 0$"),
        (("high", 5, -0.1), r"^effort high: penalty: expected a number from 0, found -0\.1$"),
        (("high", 5, float("nan")), r"^effort high: penalty: expected a finite number, found nan$"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(SettingError, match=message):
        Effort(*arguments)
    with pytest.raises(SettingError, match=r"^effort: mode: expected one of .*, found 3$"):
        Effort.named(3)
