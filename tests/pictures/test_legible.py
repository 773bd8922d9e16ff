"""Every picture can be read: texts have room and contrast, nothing covers them, and hues differ for every eye."""

from itertools import combinations

import numpy as np
import pytest

from dsv4.pictures.svg import THEMES, WIDTH, text_width
from pictures.reading import contrast, read
from pictures.stored import SVGS

PICTURES = [pytest.param(path.read_text(encoding="utf-8"), id=path.stem) for path in SVGS]

IDEAS = ("window", "csa", "hca", "stream")

EYES = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
"""What is left of linear red, green, blue without a kind of cones (Machado, Oliveira, Fernandes 2009, severity 1)."""


@pytest.mark.parametrize("svg", PICTURES)
def test_it_says_in_words_what_it_shows(svg):
    root = read(svg).root
    assert root.get("role") == "img"
    ids = {element.get("id"): element.text for element in root if element.get("id")}
    title, description = (ids[name] for name in root.get("aria-labelledby").split())
    assert 10 < len(title) < 80
    assert len(description) > 100
    assert root.get("viewBox").split()[:3] == ["0", "0", str(WIDTH)]


@pytest.mark.parametrize("svg", PICTURES)
def test_nothing_is_fetched_and_every_reference_leads_to_something(svg):
    ids = {element.get("id") for element in read(svg).root.iter()}
    assert svg.count("http") == svg.count('xmlns="http://www.w3.org/2000/svg"') == 1
    for reference in set(svg.split("url(#")[1:]):
        assert reference.partition(")")[0] in ids


@pytest.mark.parametrize("svg", PICTURES)
def test_texts_are_large_enough_where_a_page_shows_the_picture_900_pixels_wide(svg):
    points = [text.size * 900 / WIDTH * 72 / 96 for text in read(svg).texts]
    assert min(points) >= 10


@pytest.mark.parametrize("svg", PICTURES)
def test_no_text_touches_another_one_or_the_border(svg):
    picture = read(svg)
    paper = picture.rects[0]
    for text in picture.texts:
        assert paper.holds(text), text
    for one, other in combinations(picture.texts, 2):
        assert not one.meets(other), (one.content, other.content)


@pytest.mark.parametrize("svg", PICTURES)
def test_each_text_is_inside_of_a_box_or_outside_and_nothing_is_drawn_over_it(svg):
    picture = read(svg)
    for text in picture.texts:
        for rect in picture.rects:
            if rect.meets(text):
                assert rect.holds(text, 0), (text.content, rect)
                assert rect.order < text.order, (text.content, rect)


@pytest.mark.parametrize("svg", PICTURES)
def test_no_line_runs_through_a_text(svg):
    picture = read(svg)
    for text in picture.texts:
        ground = picture.ground(text)
        for line in picture.lines:
            assert line.order < ground.order or not line.meets(text), (text.content, line)


@pytest.mark.parametrize("svg", PICTURES)
def test_texts_have_a_contrast_of_at_least_4_5(svg):
    picture = read(svg)
    for text in picture.texts:
        assert contrast(text.colour, picture.ground(text).colour) >= 4.5, text.content


@pytest.mark.parametrize(("one", "other", "expected"), [("#000000", "#ffffff", 21.0), ("#777777", "#ffffff", 4.48)])
def test_contrast_is_that_of_the_guidelines(one, other, expected):
    assert round(contrast(one, other), 2) == round(contrast(other, one), 2) == expected


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
@pytest.mark.parametrize("eyes", EYES)
def test_each_idea_has_a_hue_that_every_eye_tells_from_the_others(theme, eyes):
    """At least as far apart as Okabe and Ito's blue and green are where blue cones are missing."""
    colours = {idea: lab(theme.hues[idea].full, np.asarray(EYES[eyes])) for idea in IDEAS}
    for one, other in combinations(IDEAS, 2):
        assert np.linalg.norm(colours[one] - colours[other]) > 15, (one, other)


def lab(colour: str, eyes) -> np.ndarray:
    """A colour in CIELAB, as these eyes see it."""
    encoded = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.maximum(to_xyz @ (eyes @ linear), 1e-4) / to_xyz.sum(axis=1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(
    ("content", "plain", "bold"),
    [
        ("lightning indexer", 845, 969),
        ("grouped output projection", 1308, 1493),
        ("128 × 583 B = 74.6 kB", 1158, 1260),
        ("WMW@%&", 557, 608),
        ("0 … c−1", 430, 452),
    ],
)
def test_texts_are_no_wider_than_the_tests_take_them_for(content, plain, bold):
    """As a browser measures them in DejaVu Sans at a size of 100."""
    assert plain <= text_width(content, 100) <= 1.1 * plain
    assert bold <= text_width(content, 100, bold=True) <= 1.2 * bold
    assert text_width(content, 50) == text_width(content, 100) / 2
