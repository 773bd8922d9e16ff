"""The cache of a beginning goes on as one that was only ever given that beginning, and holds no more."""

import numpy as np
import pytest

import tiny
from dsv4.errors import PromptError
from dsv4.model.cut import cut
from model.test_batches import LENGTHS, TAPE, fed, go_on, model, packed

__all__ = ["model", "packed"]


def begun(model, packed, sequence, length, max_rollback=3):
    """A cache that has read so many tokens of a sequence, of which the MTP layer knows no more than they say."""
    cache = model.new_cache(1, max_rollback, packed)
    states = model.states(TAPE[[sequence], :length], cache)
    if length > 1:
        model.mtp_logits(states[:, :-1], TAPE[[sequence], 1:length], cache)
    return cache


@pytest.mark.parametrize("max_rollback", [0, 5, 200])
@pytest.mark.parametrize(("sequence", "back"), [(0, 0), (0, 3), (2, 0), (2, 2), (2, 3), (4, 0), (1, 3), (3, 0)])
def test_what_is_cut_goes_on_like_the_beginning_alone(model, packed, sequence, back, max_rollback):
    cache = fed(model, packed, [0, 1, 2, 3, 4])
    length = LENGTHS[sequence] - back
    found = cut(cache, sequence, length, max_rollback)
    assert found.lengths.tolist() == [length]
    assert (found.main.max_rollback, found.mtp.max_rollback) == (max_rollback, max_rollback + 1)
    assert cache.lengths.tolist() == list(LENGTHS), "the batch that it came from stays as it was"
    expected = begun(model, packed, sequence, length)
    tape = TAPE[[sequence], length:]
    ours, theirs = (model.ops.to_numpy(model(tape[:, :7], each)) for each in (found, expected))
    tiny.close(ours, theirs)


@pytest.mark.parametrize("length", [1, 5, 131, 300])
def test_the_mtp_layer_knows_nothing_behind_what_is_cut(model, packed, length):
    """It has read the last token together with the next one, which may be another one now."""
    cache = begun(model, packed, 0, 300)
    tail = cut(begun(model, packed, 0, length), 0, length)
    assert tail.mtp.lengths.tolist() == [length - 1]
    if length == 300:
        states = model.states(TAPE[[0], 299:300], begun(model, packed, 0, 299))
        model.mtp_logits(states, [[7]], cache)
        assert cache.mtp.lengths.tolist() == [300]
        assert cut(cache, 0, 300).mtp.lengths.tolist() == [299]


def test_a_rollback_does_not_go_back_before_what_is_cut(model, packed):
    """The rows from before it are not there: it is refused, and one that stays behind it is not."""
    found = cut(begun(model, packed, 0, 300), 0, 300, max_rollback=200)
    model(TAPE[[0], 300:303], found)
    with pytest.raises(PromptError, match="rollback: expected at most max_rollback = 200 tokens"):
        found.rollback(4)
    found.rollback(3)
    expected = begun(model, packed, 0, 300)
    tiny.close(*(model.ops.to_numpy(model(TAPE[[0], 300:307], each)) for each in (found, expected)))


def test_what_is_cut_takes_the_memory_of_one_sequence(model, packed):
    cache, short = fed(model, packed, [0, 1, 2, 3, 4], max_rollback=100), fed(model, packed, [1], max_rollback=0)
    assert cut(cache, 1, LENGTHS[1]).allocated == short.allocated
    assert cut(cache, 0, LENGTHS[0]).allocated < cache.allocated / 5


def test_it_is_independent_of_what_it_came_from(model, packed):
    cache = begun(model, packed, 0, 300)
    found = cut(cache, 0, 300)
    before = go_on(model, found.fork(), [0])
    model(TAPE[[0], :20], cache)
    np.testing.assert_array_equal(go_on(model, found, [0]), before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 1), "sequence"),
        ((0, 0), "length: expected an integer from 1 to 300, found 0"),
        ((0, 301), "length: expected an integer from 1 to 300, found 301"),
        ((0, 296), "length: expected at most max_rollback = 3 tokens before the furthest position 300, found 296"),
        ((0, 300, -1), "max_rollback"),
    ],
)
def test_a_place_that_cannot_be_gone_back_to(model, packed, arguments, message):
    with pytest.raises(PromptError, match=message):
        cut(fed(model, packed, [0, 1, 2, 3, 4]), *arguments)
