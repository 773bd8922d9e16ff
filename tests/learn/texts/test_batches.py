"""Rows of a training step: pieces of one document, each as often as promised, the same whenever they are asked for."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.errors import SettingError, TextError
from dsv4.learn.texts.batches import Rows


def documents(*lengths, first=0):
    """Documents of these lengths in which no token id occurs twice, so that a token tells where it comes from."""
    starts = first + np.cumsum([0, *lengths])
    return [np.arange(start, start + length) for start, length in zip(starts, lengths, strict=False)]


def rows_of(rows, first, count):
    ids, mask = rows.batch(first, count)
    return [one[real] for one, real in zip(ids, mask, strict=True)]


sources = st.lists(st.lists(st.integers(2, 70), min_size=1, max_size=5), min_size=1, max_size=3)


@given(sources, st.integers(1, 20), st.integers(0, 3), st.integers(0, 60))
def test_a_row_is_a_run_of_one_document(lengths, length, seed, first):
    laid_out = {str(n): documents(*one, first=1000 * n) for n, one in enumerate(lengths)}
    if any(sum(one) <= length for one in lengths):
        return
    every = [document for one in laid_out.values() for document in one]
    ids, mask = Rows(laid_out, length, seed).batch(first, 7)
    assert ids.shape == mask.shape and ids.shape[0] == 7 and ids.shape[1] <= length + 1
    assert mask.any(axis=0).all()  # no column of padding alone
    for row, real in zip(ids, mask, strict=True):
        assert (np.diff(real.astype(int)) <= 0).all() and (row[~real] == 0).all()
        tokens = row[real]
        (source,) = [document for document in every if tokens[0] in document]
        place = int(np.flatnonzero(source == tokens[0])[0])
        assert tokens.tolist() == source[place : place + len(tokens)].tolist()
        assert len(tokens) == min(length + 1, len(source))  # as full as the document allows


@given(st.integers(0, 5), st.integers(0, 3), st.integers(0, 40), st.integers(1, 9))
def test_a_row_depends_on_its_number_alone(seed, stage, first, count):
    laid_out = {"a": documents(50, 9), "b": documents(30, first=100)}
    undisturbed = rows_of(Rows(laid_out, 8, seed, stage), 0, first + count)
    resumed = rows_of(Rows(laid_out, 8, seed, stage), first, count)
    assert [row.tolist() for row in resumed] == [row.tolist() for row in undisturbed[first:]]


def test_seeds_and_stages_draw_other_orders():
    drawn = {
        (seed, stage): np.concatenate(rows_of(Rows({"a": documents(400)}, 8, seed, stage), 0, 20)).tolist()
        for seed in range(3)
        for stage in range(3)
    }
    assert len(set(map(tuple, drawn.values()))) == 9


def test_every_piece_comes_once_before_any_comes_again():
    lengths = (41, 8, 9, 3, 17)
    rows = Rows({"a": documents(*lengths[:2]), "b": documents(*lengths[2:], first=49)}, 8)
    expected = Counter({0: 5, 41: 1, 49: 1, 58: 1, 61: 2})  # ⌈(n − 1) / 8⌉ pieces of each, by its first token
    assert rows.rows_per_pass == 10
    starts = np.array([0, 41, 49, 58, 61])
    for turn in range(4):
        found = Counter(int(starts[starts <= row[0]].max()) for row in rows_of(rows, 10 * turn, 10))
        assert found == expected


def test_a_long_document_is_read_evenly_and_cut_at_changing_places():
    rows = Rows({"a": documents(101)}, 10)
    predicted, starts = Counter(), set()
    for row in rows_of(rows, 0, 400 * rows.rows_per_pass):
        predicted.update(row[1:].tolist())
        starts.add(int(row[0]))
    assert starts == set(range(91))
    counts = np.array([predicted[token] for token in range(1, 101)])
    assert (counts[10:-10] == 400).all()
    assert counts.min() > 150 and counts.max() < 650  # at the ends of the document the pieces cannot move outwards


def test_a_document_that_fits_is_never_cut():
    rows = Rows({"a": documents(9, 30)}, 8)
    short = [row for row in rows_of(rows, 0, 50) if row[0] < 9]
    assert len(short) == 10 and all(row.tolist() == list(range(9)) for row in short)


@pytest.mark.parametrize("shares", [{"a": 3, "b": 1}, {"b": 0.25, "a": 0.75}])
def test_shares_are_met_in_each_pass(shares):
    laid_out = {"a": documents(50), "b": documents(*[10] * 50, first=100), "c": documents(50, first=700)}
    rows = Rows(laid_out, 10, shares=shares)
    for turn in range(3):
        found = rows_of(rows, turn * rows.rows_per_pass, rows.rows_per_pass)
        from_a, from_c = (sum(low <= row[0] < high for row in found) for low, high in ((0, 50), (700, 750)))
        assert from_c == 0 and abs(from_a / len(found) - 0.75) < 0.01
    assert rows.rows_per_pass == 55  # 41 of a and 14 of b
    of_b = Counter(int(row[0]) for row in rows_of(rows, 0, 55 * 25) if row[0] >= 100)
    assert of_b == dict.fromkeys(range(100, 600, 10), 7)  # 25 passes are seven rounds through b


def test_a_text_shorter_than_a_sequence_is_named():
    with pytest.raises(TextError, match=r"^short: expected at least one sequence of 9 tokens, found 8$"):
        Rows({"long": documents(50), "short": documents(5, 3)}, 8)
    Rows({"enough": documents(5, 4)}, 8)
    with pytest.raises(TextError, match="none: expected at least one sequence"):
        Rows({"none": []}, 8)
    with pytest.raises(TextError, match="found none"):
        Rows({}, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length: expected an integer of at least 1"),
        ({"seed": -1}, "seed"),
        ({"stage": 0.5}, "stage"),
        ({"shares": {"b": 1}}, "shares: expected names among a, found 'b'"),
        ({"shares": {"a": -1}}, "at least 0"),
        ({"shares": {"a": 0}}, "not all 0"),
        ({"shares": {"a": "1"}}, "shares: a: expected a finite number"),
    ],
)
def test_wrong_settings_are_named(options, message):
    with pytest.raises(SettingError, match=message):
        Rows(**({"sources": {"a": documents(50)}, "length": 8} | options))
