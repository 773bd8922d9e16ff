"""Which token is to be predicted where, by hand and by going through each sequence token by token."""

import numpy as np
import pytest
from hypothesis import given

from dsv4.learn.losses.labels import count_predicted, labels
from strategies import generators, sizes

GAPS = np.array([[0, 1, 1, 0, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0]], bool)


def by_hand(ids, mask, ahead):
    found, exist = np.zeros_like(ids), np.zeros(ids.shape, bool)
    for row, real in enumerate(mask):
        places = np.flatnonzero(real)
        for place, wanted in zip(places, places[ahead:], strict=False):
            found[row, place], exist[row, place] = ids[row, wanted], True
    return found, exist


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_gaps_and_padding_on_either_side(ahead):
    ids = np.random.default_rng(0).integers(1, 50, GAPS.shape)
    found, expected = labels(ids, GAPS, ahead), by_hand(ids, GAPS, ahead)
    np.testing.assert_array_equal(found.ids, expected[0])
    np.testing.assert_array_equal(found.exist, expected[1])


@given(generator=generators, batch=sizes(1, 4), length=sizes(1, 6), ahead=sizes(1, 3))
def test_any_mask(generator, batch, length, ahead):
    ids, mask = generator.integers(0, 50, (batch, length)), generator.random((batch, length)) < 0.7
    for given_mask, real in ((mask, mask), (None, np.ones_like(mask))):
        found, expected = labels(ids, given_mask, ahead), by_hand(ids, real, ahead)
        np.testing.assert_array_equal(found.ids, expected[0])
        np.testing.assert_array_equal(found.exist, expected[1])


def test_how_many_are_predicted():
    assert count_predicted(np.zeros((4, 7), np.int64), GAPS) == 3 + 6 + 0 + 1
    assert count_predicted(np.zeros((2, 5), np.int64)) == 8
