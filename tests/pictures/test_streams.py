"""The picture of a hyper-connection shows the weights of the pass."""

import re

import numpy as np
import pytest

import tiny
from dsv4.ops import Ops
from dsv4.pictures.streams import MIX, MIXED, PER_ONE, READ, ROW, TOP, WIDEST, WRITE, draw_streams, strongest_mixing
from dsv4.pictures.svg import LIGHT
from pictures.reading import NAMESPACE, read

IDS = tiny.tokens(5, 40)


@pytest.fixture(scope="module")
def model():
    return tiny.model(Ops())


@pytest.fixture(scope="module")
def mixing(model):
    return strongest_mixing(model, IDS)


@pytest.fixture(scope="module")
def picture(mixing):
    return read(draw_streams(mixing, "a\n", LIGHT).svg())


def test_the_weights_are_those_of_the_pass_where_the_streams_keep_least(model, mixing):
    seen = {}
    model.states(IDS[None], observe=lambda name, result: seen.update({name: result[0]}))
    name = f"layers.{mixing.layer}.hc_{mixing.sublayer}"
    for weight in ("pre", "post", "comb"):
        assert (getattr(mixing, weight) == seen[f"{name}.{weight}"][mixing.position]).all()
    kept = [np.diagonal(comb, axis1=1, axis2=2).sum(axis=1) for name, comb in seen.items() if name.endswith(".comb")]
    assert len(kept) == 2 * model.config.num_hidden_layers
    assert np.isclose(np.trace(mixing.comb), np.min(kept))


def test_bars_are_as_long_as_the_weights_and_say_them(mixing, picture):
    n = len(mixing.pre)
    for x, weights in ((READ + 10, mixing.pre), (WRITE + 10, mixing.post)):
        bars = [rect for rect in picture.rects if rect.left == x and rect.bottom - rect.top == 15]
        lengths = [rect.right - rect.left for rect in bars]
        np.testing.assert_allclose(lengths, np.maximum(PER_ONE * weights, 1), atol=0.01)
    for weight in [*mixing.pre, *mixing.post, *mixing.comb.flat]:
        assert f"{weight:.2f}" in picture.words
    assert picture.words.count("F: attention") + picture.words.count("F: the experts") == 1
    assert sum(word.startswith("stream ") and len(word) < 10 for word in picture.words) == 2 * n


def test_lines_lead_from_old_to_new_streams_as_thick_as_their_share(mixing, picture):
    number = r"([\d.]+)"
    pattern = re.compile(rf"M{number} {number}C{number} {number} {number} {number} {number} {number}")
    found = {}
    for path in picture.root.iter(f"{NAMESPACE}path"):
        if match := pattern.fullmatch(path.get("d")):
            x, start, *_, right, end = map(float, match.groups())
            assert (x, right) == (MIX, MIXED)
            found[round((start - TOP) / ROW), round((end - TOP) / ROW)] = float(path.get("stroke-width"))
    thick = {(j, i): WIDEST * share for (j, i), share in np.ndenumerate(mixing.comb) if WIDEST * share >= 0.1}
    assert found.keys() == thick.keys()
    for place, width in thick.items():
        assert abs(found[place] - width) < 0.01


def test_the_matrix_has_a_row_for_each_old_stream(mixing, picture):
    """Row by row, as `comb` stands in memory."""
    numbers = [text for text in picture.texts if re.fullmatch(r"[01]\.\d\d", text.content)]
    n = len(mixing.pre)
    cells = sorted(numbers, key=lambda text: text.order)[-n * n :]
    assert [cell.content for cell in cells] == [f"{share:.2f}" for share in mixing.comb.flat]
    tops = np.array([cell.top for cell in cells]).reshape(n, n)
    lefts = np.array([cell.left for cell in cells]).reshape(n, n)
    assert (np.ptp(tops, axis=1) == 0).all()
    assert (np.diff(tops[:, 0]) > 0).all()
    assert (np.diff(lefts, axis=1) > 0).all()


@pytest.mark.parametrize("n", [1, 2, 6])
def test_any_number_of_streams_can_be_drawn(n):
    model = tiny.model(Ops(), hc_mult=n)
    picture = read(draw_streams(strongest_mixing(model, IDS), "a", LIGHT).svg())
    assert f"stream {n - 1}′" in picture.words
    assert all(picture.rects[0].holds(text) for text in picture.texts)
