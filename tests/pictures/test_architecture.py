"""The architecture picture: its data is complete and true, and the drawing shows all of it."""

import re
from pathlib import Path

import pytest

from dsv4.pictures.architecture import BOXES, EDGES
from dsv4.pictures.architecture_plan import COLUMNS, PLACES, ROUTES, STREAMS, draw_architecture
from dsv4.pictures.svg import DARK, LIGHT, WIDTH
from pictures.reading import NAMESPACE, read

ROOT = Path(__file__).resolve().parents[2]

STREAMS_CARRY = {
    ("embedding", "attention read"),
    ("attention read", "attention write"),
    ("attention write", "experts read"),
    ("experts read", "experts write"),
    ("experts write", "head"),
}
"""The edges that are drawn as the four streams."""


@pytest.mark.parametrize("name", BOXES)
def test_every_box_names_a_file_and_a_page_that_exist(name):
    box = BOXES[name]
    assert (ROOT / box.file).is_file()
    assert (ROOT / "docs" / box.page).is_file()
    assert box.says.endswith(".")
    assert set(box.feeds) <= BOXES.keys()


def test_a_pass_leads_from_the_tokens_through_every_box():
    reached, waiting = set(), ["tokens", "sink"]  # the sink is a weight: nothing leads to it
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += BOXES[name].feeds
    assert reached == BOXES.keys()
    assert {name for name, box in BOXES.items() if not box.feeds} == {"drafts"}


def test_every_edge_is_drawn_as_a_line_or_as_streams():
    assert set(EDGES) == ROUTES.keys() | STREAMS_CARRY
    assert not ROUTES.keys() & STREAMS_CARRY


@pytest.mark.parametrize("edge", ROUTES, ids=" → ".join)
def test_a_line_leaves_its_box_and_ends_at_the_next_one(edge):
    """The shared expert's line ends where the answers are added; that of the MTP module leaves the streams."""
    for path, _ in ROUTES[edge]:
        points = ends(path)
        if edge != ("experts write", "mtp"):
            assert distance(points[0], PLACES[edge[0]]) <= 1
        if edge != ("shared expert", "experts write"):
            assert distance(points[1], PLACES[edge[1]]) <= 2


def ends(path):
    """The first and the last point of a path of straight pieces."""
    numbers = re.findall(r"([MHV])([\d.]+)(?: ([\d.]+))?", path)
    (_, x, y), *rest = numbers
    first = last = float(x), float(y)
    for command, number, _ in rest:
        last = (float(number), last[1]) if command == "H" else (last[0], float(number))
    return first, last


def distance(point, place):
    """How far a point is from a box's border or inside; 0 on it."""
    (x, y), (left, top, width, height) = point, place
    outside = max(left - x, 0, x - left - width), max(top - y, 0, y - top - height)
    inside = min(x - left, left + width - x, y - top, top + height - y)
    return max(*outside, inside)


def test_boxes_stand_in_the_picture_and_not_on_each_other():
    places = list(PLACES.values())
    assert PLACES.keys() == BOXES.keys()
    for number, (x, y, width, height) in enumerate(places):
        assert 0 <= x < x + width <= WIDTH
        for left, top, wide, high in places[:number]:
            assert x >= left + wide or left >= x + width or y >= top + high or top >= y + height
    assert all(PLACES["embedding"].x < x < PLACES["embedding"].x + PLACES["embedding"].width for x in STREAMS)
    assert sorted(COLUMNS) == list(COLUMNS)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_each_box_is_shown_with_its_name_and_file_and_says_what_it_does(theme):
    root = read(draw_architecture(theme).svg()).root
    groups = list(root.iter(f"{NAMESPACE}g"))
    assert len(groups) == len(BOXES)
    for group, box in zip(groups, BOXES.values(), strict=True):
        texts = [text.text for text in group.iter(f"{NAMESPACE}text")]
        assert texts[:2] == [box.name, box.file.removeprefix("ref/dsv4/")]
        title = group.find(f"{NAMESPACE}title").text
        assert box.says in title
        assert box.file in title


def test_both_themes_say_the_same():
    light, dark = (read(draw_architecture(theme).svg()) for theme in (LIGHT, DARK))
    assert light.words == dark.words
