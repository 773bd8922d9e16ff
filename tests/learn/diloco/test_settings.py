"""Settings that do not fit are refused in one line that names the value."""

import pytest

from dsv4.errors import SettingError
from dsv4.learn.diloco.settings import Settings


def test_the_defaults_are_decoupled_dilocos():
    settings = Settings()
    assert (settings.fragments, settings.inner_steps, settings.delay, settings.quorum) == (24, 24, 2, 1)
    assert settings.steps_per_round == 1


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"fragments": 5, "inner_steps": 24}, "inner_steps"),
        ({"fragments": 48}, "inner_steps"),
        ({"fragments": 0}, "fragments"),
        ({"learners": 0}, "learners"),
        ({"quorum": 3}, "quorum"),
        ({"quorum": 0}, "quorum"),
        ({"delay": 0}, "delay"),
        ({"delay": 25}, "delay"),
        ({"grace": 1.5}, "grace"),
        ({"grace": float("nan")}, "grace"),
        ({"outer_momentum": -0.1}, "outer_momentum"),
        ({"outer_learning_rate": 11.0}, "outer_learning_rate"),
        ({"bits": 3}, "bits"),
        ({"bits": 4.0}, "bits"),
        ({"merge": "median"}, "merge"),
    ],
)
def test_what_does_not_fit(changes, name):
    with pytest.raises(SettingError, match=f"^{name}: expected"):
        Settings(**changes)
