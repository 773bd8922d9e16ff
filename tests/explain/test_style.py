"""Colours that can be read and told apart, of the style sheet as it stands."""

import itertools
import re
from importlib.resources import files

import pytest

CSS = (files("dsv4.explain") / "assets" / "page.css").read_text(encoding="utf-8")
THEMES = {"light": re.search(r":root \{(.*?)\}", CSS, re.DOTALL)[1]}
THEMES["dark"] = re.search(r'data-theme="dark"\] \{(.*?)\}', CSS, re.DOTALL)[1]
IDEAS = "window", "csa", "hca", "stream", "expert", "sink"


def colour(theme, name):
    """Red, green and blue from 0 to 1."""
    value = re.search(rf"--{name}: ([^;]+);", THEMES[theme])[1].strip()
    if value.startswith("#"):
        digits = value[1:] if len(value) == 7 else "".join(2 * digit for digit in value[1:])
        return [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    return [int(part) / 255 for part in value.split()]


def linear(rgb):
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb]


def luminance(rgb):
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear(rgb), strict=True))


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("ground", ["ground", "card", "soft"])
@pytest.mark.parametrize("ink", ["ink", "quiet", "window-ink", "csa-ink", "hca-ink", "stream-ink", "expert-ink"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read(theme, ink, ground):
    assert contrast(colour(theme, ink), colour(theme, ground)) >= 4.5


@pytest.mark.parametrize("idea", IDEAS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_marks_stand_out_from_the_ground(theme, idea):
    least = 1.8 if (theme, idea) == ("light", "csa") else 3  # orange has a place of its own below the text
    assert contrast(colour(theme, idea), colour(theme, "card")) >= least


DEUTERANOPE = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
PROTANOPE = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]


@pytest.mark.parametrize("matrix", [DEUTERANOPE, PROTANOPE], ids=["deuteranope", "protanope"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_window_and_both_kinds_of_entries_can_be_told_apart_by_the_colour_blind(theme, matrix):
    """As Machado, Oliveira and Fernandes simulate them; the distance is that of linear light, 0 … √3."""

    def seen(name):
        rgb = linear(colour(theme, name))
        return [sum(row[at] * rgb[at] for at in range(3)) for row in matrix]

    for one, other in itertools.combinations(("window", "csa", "hca"), 2):
        distance = sum((a - b) ** 2 for a, b in zip(seen(one), seen(other), strict=True)) ** 0.5
        assert distance > 0.2, (one, other)
