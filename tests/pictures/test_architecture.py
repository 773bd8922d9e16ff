"""The architecture pictures of V4 and V4.1: their data is complete and true, and each drawing shows all of it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dsv4.checkpoint.opening import read_any_config
from dsv4.pictures import architecture41_plan, architecture_plan
from dsv4.pictures.architecture import BOXES
from dsv4.pictures.architecture41 import BOXES41
from dsv4.pictures.svg import DARK, LIGHT, WIDTH
from pictures.reading import NAMESPACE, read

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Version:
    """One of the pictures; streams: the edges that are drawn as the four streams; lines: the paths of all others."""

    boxes: dict
    places: dict
    lines: dict[tuple[str, str], list[str]]
    streams: set[tuple[str, str]]
    draw: Callable

    @property
    def edges(self):
        return {(name, other) for name, box in self.boxes.items() for other in box.feeds}


STREAMS_CARRY = {
    ("attention read", "attention write"),
    ("attention write", "experts read"),
    ("experts read", "experts write"),
    ("experts write", "head"),
}

VERSIONS = {
    "V4": Version(
        BOXES,
        architecture_plan.PLACES,
        {edge: [path for path, _ in lines] for edge, lines in architecture_plan.ROUTES.items()},
        STREAMS_CARRY | {("embedding", "attention read")},
        architecture_plan.draw_architecture,
    ),
    "V4.1": Version(
        BOXES41,
        architecture41_plan.PLACES,
        {edge: [path for path, _ in lines] for edge, lines in architecture41_plan.ROUTES.items()}
        | {edge: [path] for edge, path in architecture41_plan.HANDED_ON.items()},
        STREAMS_CARRY | {("embedding", "engram"), ("engram", "attention read")},
        architecture41_plan.draw_architecture41,
    ),
}

each = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)


@each
def test_every_box_names_a_file_and_a_page_that_exist(version):
    for box in version.boxes.values():
        assert (ROOT / box.file).is_file()
        assert (ROOT / "docs" / box.page).is_file()
        assert box.says.endswith(".")
        assert set(box.feeds) <= version.boxes.keys()


@each
def test_a_pass_leads_from_the_tokens_through_every_box(version):
    reached, waiting = set(), ["tokens", "sink"]  # the sink is a weight: nothing leads to it
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += version.boxes[name].feeds
    assert reached == version.boxes.keys()
    assert {name for name, box in version.boxes.items() if not box.feeds} == {"drafts"}


@each
def test_every_edge_is_drawn_as_a_line_or_as_streams(version):
    assert version.edges == version.lines.keys() | version.streams
    assert not version.lines.keys() & version.streams


@each
def test_a_line_leaves_its_box_and_ends_at_the_next_one(version):
    """The shared expert's line ends where the answers are added; that of the drafter leaves the streams."""
    for (start, end), paths in version.lines.items():
        for path in paths:
            points = ends(path)
            if (start, end) not in (("experts write", "mtp"), ("experts write", "stages")):
                assert distance(points[0], version.places[start]) <= 1, path
            if start != "shared expert":
                assert distance(points[1], version.places[end]) <= 2, path


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


@each
def test_boxes_stand_in_the_picture_and_not_on_each_other(version):
    places = list(version.places.values())
    assert version.places.keys() == version.boxes.keys()
    for number, (x, y, width, height) in enumerate(places):
        assert 0 <= x < x + width <= WIDTH
        for left, top, wide, high in places[:number]:
            assert x >= left + wide or left >= x + width or y >= top + high or top >= y + height
    first, _, wide, _ = version.places["embedding"]
    assert all(first < x < first + wide for x in architecture_plan.STREAMS)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
@each
def test_each_box_is_shown_with_its_name_and_file_and_says_what_it_does(version, theme):
    root = read(version.draw(theme).svg()).root
    groups = list(root.iter(f"{NAMESPACE}g"))
    assert len(groups) == len(version.boxes)
    for group, box in zip(groups, version.boxes.values(), strict=True):
        texts = [text.text for text in group.iter(f"{NAMESPACE}text")]
        assert texts[:2] == [box.name, box.file.removeprefix("ref/dsv4/")]
        title = group.find(f"{NAMESPACE}title").text
        assert box.says in title
        assert box.file in title


@each
def test_both_themes_say_the_same(version):
    light, dark = (read(version.draw(theme).svg()) for theme in (LIGHT, DARK))
    assert light.words == dark.words


def test_what_the_picture_of_v41_says_of_layers_is_so():
    """The numbers of layers in its words are those of the released configuration."""
    config = read_any_config(ROOT / "tests" / "data" / "configs" / "deepseek-v4.1-flash.json")
    words = read(architecture41_plan.draw_architecture41(LIGHT).svg()).words
    first, second = config.engram.layer_ids
    assert f"in layers {first} and {second}" in words
    assert f"in {len(config.kv_source_layer_ids)} layers, for all behind" in words
    assert f"in {len(config.index_source_layer_ids)} layers" in words
    assert f"of layer {config.candidate_source_layer_id}" in words
    assert f"{config.engram.columns} rows" in words
    assert any(f"n = {config.hc_mult} streams; L = {config.num_hidden_layers} blocks" in word for word in words)
