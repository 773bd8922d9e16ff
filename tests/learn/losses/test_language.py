"""The losses of the next token and of MTP, by hand."""

import numpy as np
import pytest

from dsv4.learn import tape
from dsv4.learn.losses.mtp import mtp
from dsv4.learn.losses.next_token import next_token
from learn.differences import hold

IDS = np.array([[3, 1, 4, 1, 5], [2, 6, 0, 0, 0]])
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], bool)
LOGITS = np.random.default_rng(0).standard_normal((2, 5, 7)) * 3


def surprise(row, place, token):
    """−log of the probability that the softmax gives to a token."""
    exponential = np.exp(LOGITS[row, place])
    return -np.log(exponential[token] / exponential.sum())


def test_next_token_by_hand():
    terms = [surprise(0, 0, 1), surprise(0, 1, 4), surprise(0, 2, 1), surprise(0, 3, 5), surprise(1, 0, 6)]
    np.testing.assert_allclose(next_token(LOGITS, IDS, MASK), sum(terms) / 5)
    np.testing.assert_allclose(next_token(LOGITS[:1], IDS[:1]), sum(terms[:4]) / 4)


def test_mtp_is_shifted_by_one_more_and_divided_by_what_the_main_model_predicts():
    terms = [surprise(0, 0, 4), surprise(0, 1, 1), surprise(0, 2, 5)]
    np.testing.assert_allclose(mtp(LOGITS, IDS, MASK), sum(terms) / 5)
    np.testing.assert_allclose(mtp(LOGITS[:1], IDS[:1]), sum(terms) / 4)


@pytest.mark.parametrize("loss", [next_token, mtp])
def test_gradients(loss):
    hold(lambda logits: loss(logits, IDS, MASK), LOGITS)


def test_the_gradient_is_the_probability_less_the_truth():
    logits = tape.leaf(LOGITS[:1])
    [found] = tape.gradients(next_token(logits, IDS[:1]), [logits])
    expected = np.exp(LOGITS[:1]) / np.exp(LOGITS[:1]).sum(axis=-1, keepdims=True)
    expected[0, np.arange(4), IDS[0, 1:]] -= 1
    expected[0, 4] = 0
    np.testing.assert_allclose(found, expected / 4, atol=1e-15)


@pytest.mark.parametrize("loss", [next_token, mtp])
def test_large_logits_and_float32(loss):
    large = (LOGITS * 1000).astype(np.float32)
    found = loss(large, IDS, MASK)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, loss(large.astype(np.float64), IDS, MASK), rtol=1e-6)


@pytest.mark.parametrize("loss", [next_token, mtp])
def test_nothing_to_predict(loss):
    with pytest.raises(ValueError, match="expected a sequence of two tokens or more"):
        loss(LOGITS[:, :1], IDS[:, :1])


def test_two_tokens_give_no_term_of_mtp():
    assert mtp(LOGITS[:, :2], IDS[:, :2]) == 0
