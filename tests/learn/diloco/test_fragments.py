"""Fragments: each tensor in one of them, nearly equal, the same for everybody."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from dsv4.errors import SettingError
from dsv4.learn.diloco.fragments import packed
from dsv4.parameters import parameters

SIZES = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(1, 10**6), min_size=1, max_size=40)


@given(SIZES, st.data())
def test_every_tensor_is_in_exactly_one_fragment_and_none_is_empty(sizes, data):
    fragments = data.draw(st.integers(1, len(sizes)))
    found = packed(sizes, fragments)
    assert len(found) == fragments and all(found)
    assert sorted(name for names in found for name in names) == sorted(sizes)


@given(SIZES, st.data())
def test_no_fragment_is_more_than_a_tensor_larger_than_another(sizes, data):
    found = packed(sizes, data.draw(st.integers(1, len(sizes))))
    filled = [sum(sizes[name] for name in names) for names in found]
    for names, size in zip(found, filled, strict=True):
        assert size - min(sizes[name] for name in names) <= min(filled)


@given(SIZES, st.integers(0, 100))
def test_the_order_of_the_tensors_does_not_matter(sizes, seed):
    names = sorted(sizes)
    random.Random(seed).shuffle(names)
    assert packed({name: sizes[name] for name in names}, 1 + len(sizes) // 2) == packed(sizes, 1 + len(sizes) // 2)


def test_by_hand():
    """7 | 5 | 4 to the emptiest: 5 + 4; then 3 to 7; then 2 to 9."""
    assert packed({"a": 4, "b": 7, "c": 3, "d": 2, "e": 5}, 2) == (("b", "c"), ("a", "d", "e"))


def test_all_parameters_of_a_model_are_covered_once():
    sizes = {name: one.size for name, one in parameters(tiny.config()).items()}
    found = packed(sizes, 24)
    assert sorted(name for names in found for name in names) == sorted(sizes)


@pytest.mark.parametrize(("sizes", "fragments"), [({"a": 1}, 2), ({"a": 1}, 0), ({"a": 0, "b": 0}, 2)])
def test_what_cannot_be_packed_is_refused(sizes, fragments):
    with pytest.raises(SettingError):
        packed(sizes, fragments)
