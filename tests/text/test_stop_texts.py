"""Stop texts: where a text ends, however it is cut into pieces, and that nothing waits for longer than it must."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.errors import SettingError
from dsv4.text.stop_texts import StopTexts

texts = st.text("ab\n", max_size=14)
stop_lists = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=4)


def naive(text, stops):
    """The text before the stop text that is whole first, the longest of those; None where there is none."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))]
    return None


@given(texts, stop_lists, st.lists(st.integers(0, 14)))
def test_any_pieces_give_the_text_before_the_first_stop(text, stops, cuts):
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    stream, out = StopTexts(stops), ""
    for start, stop in itertools.pairwise(places):
        out += stream.push(text[start:stop])
        assert text.startswith(out)
        behind = text[len(out) : stop]
        assert stream.ended or not behind or any(each.startswith(behind) for each in stops)  # nothing waits in vain
    expected = naive(text, stops)
    assert stream.ended == (expected is not None)
    assert out + stream.flush() == (text if expected is None else expected)


def test_nothing_comes_after_the_end():
    stream = StopTexts(["\n\n"])
    assert [stream.push(piece) for piece in ("one\n", "\ntwo", "three")] == ["one", "", ""]
    assert stream.flush() == ""


@pytest.mark.parametrize(
    ("stops", "found"), [("ab", "'ab'"), (5, "5"), (None, "None"), ([""], "''"), ([1], "1"), (["a", None], "None")]
)
def test_stops_that_are_none(stops, found):
    with pytest.raises(SettingError, match=f"stop: expected .*, found {found}"):
        StopTexts(stops)
