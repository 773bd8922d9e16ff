"""The mask picture shows the shares: each cell's shade, each row's sums, and what is left empty."""

import numpy as np
import pytest

import tiny
from dsv4.ops import Ops
from dsv4.pictures.masks import FULL_COLOUR, FULL_HEIGHT, HUES, LEVELS, RIGHT, ROWS, SUM_WIDTH, TOP, draw_mask
from dsv4.pictures.shares import attention_shares, first_layer
from dsv4.pictures.svg import DARK, LIGHT
from pictures.reading import read

LENGTH, STRIDE = 270, 4
QUERIES = np.arange(STRIDE - 1, LENGTH, STRIDE)


@pytest.fixture(scope="module", params=["SWA", "CSA", "HCA"])
def shares(request):
    model = tiny.model(Ops())
    return attention_shares(model, tiny.tokens(3, LENGTH), first_layer(model, request.param))


@pytest.fixture(scope="module")
def tokens():
    return [f"{number} \n"[: number % 5] for number in range(LENGTH)]


@pytest.fixture(scope="module")
def picture(shares, tokens):
    return read(draw_mask(shares, tokens, LIGHT).svg())


def grids(picture):
    """The colour at the middle of each column of each row: [row, x] for x from 0 to 960 in steps of a tenth."""
    height = FULL_HEIGHT / len(QUERIES)
    found = np.full((len(QUERIES), 9600), "", dtype="<U7")
    for colour, cells in picture.cells.items():
        for x, y, width, high in cells:
            if TOP <= y < TOP + FULL_HEIGHT and x < RIGHT - SUM_WIDTH - 1:
                row = round((y - TOP) / height)
                assert abs(y - TOP - row * height) < 0.01
                assert abs(high - height) < 0.01
                found[row, round(10 * x) : round(10 * (x + width))] = colour
    return found


def shade(share, hue):
    level = min(round(np.sqrt(min(share / FULL_COLOUR, 1)) * (LEVELS - 1)), LEVELS - 1)
    return LIGHT.shade(hue, level / (LEVELS - 1))


def grounds(picture):
    """Left and width of the grounds that the rows stand on, from left to right."""
    found = {(rect.left, rect.right - rect.left) for rect in picture.rects if rect.top == TOP}
    return sorted(found)


def test_each_cell_has_the_shade_of_its_share_and_the_rest_is_empty(shares, picture):
    colours = grids(picture)
    panels = grounds(picture)
    assert len(panels) == (3 if shares.kind == "SWA" else 4)
    expected = {0: (shares.window.mean(axis=1), shares.in_window, 1, "window")}
    if shares.kind != "SWA":
        expected[1] = shares.entries.mean(axis=1), shares.chosen, shares.ratio, HUES[shares.kind]
    checked = 0
    for number, (share, read_by, width, hue) in expected.items():
        left, whole = panels[number]
        for row, query in enumerate(QUERIES):
            for place in range(share.shape[1]):
                middle = int(10 * (left + (place + 0.5) * width * whole / LENGTH))
                if read_by[query, place]:
                    assert colours[row, middle] == shade(share[query, place], hue)
                    checked += 1
                elif number == 1 and shares.visible[query, place]:
                    assert colours[row, middle] == LIGHT.shade("sink", 0.35)
                else:
                    assert colours[row, middle] == ""
    assert checked > 400


def test_the_sink_has_a_column_of_its_own(shares, picture):
    left, width = grounds(picture)[-2]
    column = grids(picture)[:, int(10 * (left + width / 2))]
    assert column.tolist() == [shade(shares.sink.mean(axis=1)[query], "sink") for query in QUERIES]


def test_the_bars_at_the_right_are_the_sums_of_the_rows(shares, picture):
    """What they leave of the whole width is the sink's, and hatched."""
    left = RIGHT - SUM_WIDTH
    hatched = [rect for rect in picture.rects if rect.colour == "url(#hatch)" and rect.left == left and rect.top == TOP]
    assert [(rect.right, rect.bottom) for rect in hatched] == [(RIGHT, TOP + FULL_HEIGHT)]

    def bars(hue):
        cells = [cell for cell in picture.cells.get(LIGHT.hues[hue].full, []) if cell[0] >= left]
        return np.array([(x - left, width) for x, _, width, _ in cells]).reshape(-1, 2)

    window = SUM_WIDTH * shares.window.sum(axis=-1).mean(axis=1)[QUERIES]
    np.testing.assert_allclose(bars("window")[:, 0], 0)
    np.testing.assert_allclose(bars("window")[:, 1], window, atol=0.01)
    if shares.kind != "SWA":
        entries = SUM_WIDTH * shares.entries.sum(axis=-1).mean(axis=1)[QUERIES]
        read_by = entries > 0
        np.testing.assert_allclose(bars(HUES[shares.kind])[:, 0], window[read_by], atol=0.01)
        np.testing.assert_allclose(bars(HUES[shares.kind])[:, 1], entries[read_by], atol=0.01)
        sink = SUM_WIDTH * shares.sink.mean(axis=1)[QUERIES]
        np.testing.assert_allclose(window + entries + sink, SUM_WIDTH)


def test_it_says_what_is_drawn(shares, picture):
    assert len(QUERIES) <= ROWS < LENGTH / (STRIDE - 1)
    assert f"Who reads what in layer {shares.layer}" in picture.words[0]
    assert "every 4th token" in picture.words[1]
    assert f"mean of {shares.sink.shape[1]} heads" in picture.words[1]
    assert ("refused by the indexer" in picture.words) == (shares.kind == "CSA")
    assert {str(QUERIES[0]), str(QUERIES[-1])} <= set(picture.words)
    assert not any("\n" in word for word in picture.words)


def test_dark_and_light_have_the_same_cells(shares, tokens, picture):
    dark = read(draw_mask(shares, tokens, DARK).svg())
    assert sorted(map(sorted, dark.cells.values())) == sorted(map(sorted, picture.cells.values()))


def test_a_short_text_is_drawn_token_by_token():
    model = tiny.model(Ops())
    shares = attention_shares(model, tiny.tokens(3, 6), first_layer(model, "CSA"))
    picture = read(draw_mask(shares, list("abcdef"), LIGHT).svg())
    assert "Row: every token of a text." in picture.words[1]
    assert set("abcdef") <= set(picture.words)
