"""JSON in tool calls: what is JSON and how it is written, compared with Python's own reader where that keeps to it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.text.chat.json_text import read_json, string_of, write_json

DEEP = 5_000  # levels, far more than Python can recurse
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
MARKS = r'[ ] { } , : " \ 0 - 1 . 5 e + E3 "a" "\u00e9" true null NaN é "a": [] 1,'
fragments = st.sampled_from([*MARKS.split(), " ", "\n", "\t", "\x00", '"a": 1'])


def refuse(constant):
    raise ValueError(constant)


def by_python(text):
    """How Python writes the text again, or None where it is no JSON."""
    try:
        return json.dumps(json.loads(text, parse_constant=refuse), ensure_ascii=False)
    except ValueError:
        return None


def by_us(text):
    try:
        return write_json(read_json(text))
    except ValueError as error:
        assert "expected" in str(error)
        return None


@given(values, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_json_is_written_as_python_writes_it(value, indent, ascii_only):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert by_us(text) == by_us(f" {text}\r\n") == json.dumps(value, ensure_ascii=False)


@given(st.lists(fragments, max_size=9).map("".join))
def test_any_text_is_json_for_us_where_it_is_for_python(text):
    assert by_us(text) == by_python(text)


NUMBERS = ["0", "-0", "-0.0", "1E5", "1e-7", "100000000000000000000.0", "0.1e1", "1.0000000000000000000001", "1e308"]
STRINGS = [r'"\ud83d\ude00"', r'"\/\b"', '{"a":1,"b":2,"a":3}', r'{"\u0061":1,"a":2}', "[[],{}]", " [ 1 , { } ] "]


@pytest.mark.parametrize("text", [*NUMBERS, *STRINGS])
def test_numbers_strings_and_repeated_names_are_written_as_python_writes_them(text):
    assert by_us(text) == by_python(text) is not None


INCOMPLETE = ["", " ", "[", "[1,]", "[,1]", "[1 2]", "[1}", "]", '{"a"}', '{"a":}', '{"a":1,}', "{1:2}", '"a":1', "1 2"]
FOREIGN = ["NaN", "[Infinity]", "-Infinity", "01", "1.", ".5", "+1", "1e", "0x1", "tru", "True", "'a'", "１", "1 //"]
CHARACTERS = ['"', '"\n"', r'"\x"', r'"\u12"', "\ufeff1", "\u00a01", "[" * DEEP, '{"a":' * DEEP]


@pytest.mark.parametrize("text", [*INCOMPLETE, *FOREIGN, *CHARACTERS], ids=lambda text: repr(text[:8]))
def test_what_is_no_json_is_reported(text):
    with pytest.raises(ValueError, match="expected "):
        read_json(text)


LONG = ["9" * 4301, f"-{'1' * 100_000}", "1e400", "-1.5E+999"]
NESTED = ["[" * DEEP + "]" * DEEP, '{"a": ' * DEEP + "1" + "}" * DEEP]


@pytest.mark.parametrize("text", [*LONG, *NESTED], ids=lambda text: text[:8])
def test_what_python_cannot_hold_stays_as_it_is(text):
    assert by_us(text) == text


def test_the_characters_of_a_string_are_given_and_nothing_for_other_values():
    assert string_of(read_json(r'"a\n\u00e9"')) == "a\né"
    assert [string_of(read_json(text)) for text in ("1", "null", "[]", '{"a": "b"}')] == [None] * 4
