"""The picture of stale index keys: its cells are the official choices, and what it says of them is true."""

import numpy as np
import pytest

from dsv4.pictures.stale_keys import EXAMPLE, LEFT, RIGHT, ROW, TOKENS, TOP, draw_stale_keys
from dsv4.pictures.svg import DARK, LIGHT
from model41.golden41 import expected
from pictures.reading import read
from pictures.stored import script

GOLDEN = expected("v41_float")
NAMES = "p1.decode.layers.2.attn.indexer.topk", "p1.decode.released.layers.2.attn.indexer.topk"
START = int(GOLDEN["p1.length"][0])
STEPS = 24


@pytest.fixture(scope="module")
def choices():
    return script().stale_choices()


@pytest.fixture(scope="module", params=[LIGHT, DARK], ids=lambda theme: theme.name)
def theme(request):
    return request.param


@pytest.fixture(scope="module")
def picture(choices, theme):
    return read(draw_stale_keys(choices, theme).svg())


def test_it_shows_the_choices_of_the_official_code(choices):
    assert (choices.layer, choices.last, choices.ratio, choices.first) == (2, 6, 2, START)
    for found, name in zip((choices.own, choices.released), NAMES, strict=True):
        np.testing.assert_array_equal(found, GOLDEN[name])


def test_each_cell_is_an_entry_that_is_read_or_should_be(picture, theme):
    """Full colour: in both; pale: by own keys alone; grey: by stale keys alone."""
    entries = (START + STEPS) // 2
    width = (RIGHT - LEFT) / entries

    def drawn(colour):
        cells = picture.cells.get(colour, [])
        return {(round((y - TOP) / ROW), round((x - LEFT) / width)) for x, y, _, _ in cells}

    own, released = ({(step, int(entry)) for step in range(STEPS) for entry in GOLDEN[name][step]} for name in NAMES)
    assert drawn(theme.hues["csa"].full) == own & released
    assert drawn(theme.shade("csa", 0.3)) == own - released
    assert drawn(theme.faint) == released - own


def test_steps_that_complete_an_entry_choose_rightly_and_no_others(picture):
    own, released = ([set(row) for row in GOLDEN[name].tolist()] for name in NAMES)
    scored = [word for word in picture.words if word.startswith("its own, ") or word == "of layer 6"]
    assert len(scored) == STEPS
    for step, words in enumerate(scored):
        completes = (START + step) % 2 == 1
        assert words == (f"its own, {(START + step + 1) // 2} keys" if completes else "of layer 6")
        assert (own[step] == released[step]) == completes
    stale = [len(own[step] & released[step]) for step in range(STEPS) if (START + step) % 2 == 0]
    assert f"Own keys: 8 of 8 as they must be. Stale keys: {np.mean(stale):.1f} of 8 on average." in picture.words


def test_a_key_stands_for_two_tokens_in_one_layer_and_for_one_in_the_other(picture):
    boxes = [picture.ground(text) for text in picture.texts if text.content == f"key {EXAMPLE}"]
    tokens = {
        text.content: picture.ground(text) for text in picture.texts if text.content.isdecimal() and text.top < 200
    }
    assert len(boxes) == 2 and len(tokens) == TOKENS
    for box, first, last in zip(boxes, (2 * EXAMPLE, EXAMPLE), (2 * EXAMPLE + 1, EXAMPLE), strict=True):
        assert (box.left, box.right) == pytest.approx((tokens[str(first)].left, tokens[str(last)].right), abs=0.02)
