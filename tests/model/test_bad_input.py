"""Bad input: the right exception, a message that names what was expected and found, and a cache left as it was."""

import re

import numpy as np
import pytest

import tiny
from dsv4.errors import CheckpointError, DSV4Error, PromptError, SettingError
from dsv4.loading import load

VOCAB = tiny.CONFIG.vocab_size
CONTEXT = 16


@pytest.fixture(scope="module")
def model(backend):
    return tiny.model(backend, max_position_embeddings=CONTEXT)


IDS = [
    pytest.param([[1, 2], [3, VOCAB]], f"expected 0 … {VOCAB - 1}, found {VOCAB} at token 1 of sequence 1", id="above"),
    pytest.param([[1, -1, 2], [3, 4, 5]], f"expected 0 … {VOCAB - 1}, found -1 at token 1 of sequence 0", id="below"),
    pytest.param([[], []], "expected [batch, length], at least one token, found shape (2, 0)", id="empty"),
    pytest.param([[1.0, 2.0], [3.0, 4.0]], "expected integers, found float64", id="floats"),
    pytest.param([["a"], ["b"]], "expected integers, found <U1", id="text"),
    pytest.param([[True], [False]], "expected integers, found bool", id="truth values"),
    pytest.param(np.ones((2, 1, 1), int), "found shape (2, 1, 1)", id="three axes"),
    pytest.param([[1] * 13, [2] * 13], f"max_position_embeddings = {CONTEXT} tokens, found 17", id="too long"),
]


@pytest.mark.parametrize(("ids", "message"), IDS)
def test_bad_ids_leave_the_cache_as_it_was(model, ids, message):
    check_refusal(model, message, ids)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        pytest.param([[1, 1], [1, 1]], "mask: expected the shape of the ids, (2, 3), found (2, 2)", id="shorter"),
        pytest.param([1, 1, 1], "mask: expected the shape of the ids, (2, 3), found (1, 3)", id="one row"),
        pytest.param(np.ones((2, 3, 1)), "found (2, 3, 1)", id="three axes"),
    ],
)
def test_masks_that_do_not_fit(model, mask, message):
    check_refusal(model, message, [[1, 2, 3], [4, 5, 6]], mask)


def check_refusal(model, message, ids, mask=None):
    """The call raises PromptError; the cache goes on as if it had not been made."""
    start, more = tiny.tokens(1, 2, 4), tiny.tokens(2, 2, CONTEXT - 4)
    cache = model.new_cache(2, max_rollback=0)
    states = model.states(start, cache)
    model.mtp_logits(states, np.concatenate([start[:, 1:], more[:, :1]], axis=1), cache)
    bytes_before = cache.nbytes()
    with pytest.raises(PromptError, match=re.escape(message)):
        model(ids, cache, mask)
    with pytest.raises(PromptError, match=re.escape(message)):
        model.mtp_logits(np.zeros((2, np.shape(ids)[1], *states.shape[2:])), ids, cache, mask)
    assert cache.nbytes() == bytes_before
    np.testing.assert_array_equal(cache.lengths, [4, 4])
    fetch = model.ops.to_numpy
    tiny.close(fetch(model(more, cache)), fetch(model(np.concatenate([start, more], axis=1)))[:, 4:])


def test_a_sequence_without_any_token(model):
    with pytest.raises(PromptError, match="sequence 1: expected at least one token, found none"):
        model([[1, 2], [3, 4]], mask=[[1, 1], [0, 0]])


def test_decoding_ends_with_the_context(model):
    ids = tiny.tokens(3, 1, CONTEXT)
    cache = model.new_cache()
    for position in range(CONTEXT):
        model(ids[:, position : position + 1], cache)
    with pytest.raises(PromptError, match=f"max_position_embeddings = {CONTEXT} tokens, found {CONTEXT + 1}"):
        model([[1]], cache)
    np.testing.assert_array_equal(cache.lengths, [CONTEXT])
    model([[1]], cache, mask=[[False]])  # no token, so nothing too many


@pytest.mark.parametrize("batch", [1, 3])
def test_a_cache_for_another_batch_size(model, batch):
    cache = model.new_cache(batch)
    with pytest.raises(PromptError, match=f"cache: expected one for 2 sequences, found one for {batch}"):
        model([[1], [2]], cache)
    np.testing.assert_array_equal(cache.lengths, [0] * batch)


def test_a_model_without_an_mtp_layer(backend):
    model = tiny.model(backend, compress_ratios=(0, 4), num_nextn_predict_layers=0)
    cache = model.new_cache()
    states = model.states([[1, 2]], cache)
    with pytest.raises(CheckpointError, match=r"tiny: expected an MTP layer \(mtp.0.\*\), found none"):
        model.mtp_logits(states, [[2, 3]], cache)
    assert backend.to_numpy(model([[3]], cache)).shape == (1, 1, VOCAB)


@pytest.mark.parametrize("ids", [[[1, 2], [3]], [[1, [2]]]], ids=["ragged rows", "ragged tokens"])
def test_ragged_ids(model, ids):
    with pytest.raises(PromptError, match="token ids: expected"):
        model(ids)


@pytest.mark.parametrize(
    "kept", [np.s_[:, :2], np.s_[:, :1], np.s_[:1], np.s_[:, :, :2], np.s_[:, :, :1], np.s_[:, :, 0]]
)
def test_states_that_do_not_fit_the_ids(model, kept):
    """A state for each token, with every stream; nothing is spread over what is missing."""
    states = model.states([[1, 2, 3], [4, 5, 6]])
    with pytest.raises(DSV4Error, match="states: expected"):
        model.mtp_logits(states[kept], [[2, 3, 4], [5, 6, 7]])


def test_rollback_counts_that_do_not_fit_the_batch(model):
    cache = model.new_cache(2)
    model([[1, 2], [3, 4]], cache)
    with pytest.raises(PromptError, match="rollback: expected"):
        cache.rollback(np.array([1, 1, 1]))


def test_the_mtp_layer_cannot_run_ahead_of_the_layers(model):
    """States given twice would be taken for later ones."""
    cache = model.new_cache(2)
    states = model.states([[1, 2, 3], [4, 5, 6]], cache)
    following = [[2, 3, 4], [5, 6, 7]]
    model.mtp_logits(states, following, cache)
    with pytest.raises(PromptError, match=r"MTP: expected states that the cache has seen, up to positions \[3, 3\]"):
        model.mtp_logits(states, following, cache)
    np.testing.assert_array_equal(cache.mtp.lengths, [3, 3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": 0}, "batch: expected an integer of at least 1, found 0"),
        ({"batch": 2.0}, "batch: expected an integer of at least 1, found 2.0"),
        ({"batch": True}, "batch: expected an integer of at least 1, found True"),
        ({"max_rollback": -1}, "max_rollback: expected an integer of at least 0, found -1"),
        ({"max_rollback": None}, "max_rollback: expected an integer of at least 0, found None"),
        ({"max_rollback": "3"}, "max_rollback: expected an integer of at least 0, found '3'"),
        ({"packed": 1}, "packed: expected True or False, found 1"),
    ],
)
def test_a_cache_of_no_size(model, arguments, message):
    with pytest.raises(DSV4Error, match=message):
        model.new_cache(**arguments)


def test_a_word_is_no_truth_value(backend):
    with pytest.raises(SettingError, match="fake_quant: expected True or False, found 'off'"):
        tiny.model(backend, fake_quant="off")


def test_numbers_of_numpy_are_numbers(model):
    """Also unsigned ones, which NumPy turns into floats where it joins them with others."""
    expected = model.ops.to_numpy(model([[1, 2, 3]]))
    cache = model.new_cache(np.int8(1), np.uint64(2))
    model(np.array([[1, 9, 9]], np.uint64), cache, np.ones((1, 3), np.uint8))
    cache.rollback(np.array([2], np.uint64))
    np.testing.assert_array_equal(cache.lengths, [1])
    found = model.ops.to_numpy(model(np.array([[2, 3]], np.uint64), cache))
    tiny.close(found, expected[:, 1:])


def test_more_rollback_than_a_context_has_tokens_takes_no_more_room(model):
    cache = model.new_cache(max_rollback=10**30)
    model([[1, 2]], cache)
    cache.rollback(2)
    np.testing.assert_array_equal(cache.lengths, [0])


@pytest.mark.parametrize("count", [None, "1", 1.0, True, [1, [2]], [1.0, 1.0], 2**70, [3, 1]])
def test_a_rollback_by_what_is_no_number_of_tokens(model, count):
    cache = model.new_cache(2)
    model([[1, 2], [3, 4]], cache)
    with pytest.raises(PromptError, match="rollback: expected"):
        cache.rollback(count)
    np.testing.assert_array_equal(cache.lengths, [2, 2])


@pytest.mark.parametrize(
    "mask", ["ab", [["a", "b"]], [[1, 2]], [[0.0, -1e4]], [[np.nan, 1]], [[1], [1, 1]], [[None, 1]]]
)
def test_masks_that_are_none(model, mask):
    """Among them one that is added to scores, which would mean the opposite."""
    with pytest.raises(PromptError, match="mask: expected"):
        model([[1, 2]], mask=mask)


def test_caches_that_are_none_or_of_another_model(backend, model):
    other = tiny.model(backend, compress_ratios=(0, 4), num_nextn_predict_layers=0)
    states = model.states([[1, 2]])
    for cache, message in (
        ({}, "expected a cache from model.new_cache, found {}"),
        (other.new_cache(), "found one of 2"),
    ):
        with pytest.raises(PromptError, match=f"cache: .*{message}"):
            model([[1, 2]], cache)
        with pytest.raises(PromptError, match=f"cache: .*{message}"):
            model.mtp_logits(states, [[2, 3]], cache)


@pytest.mark.parametrize("number", [-1, 4, 1.0, True, None])
def test_a_layer_that_there_is_not(model, number):
    with pytest.raises(PromptError, match=f"layer: expected an integer from 0 to 3, found {number}"):
        model.layer(number, model.first_streams([[1]]), [[1]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": 5}, "path: expected the path of a directory, or None, found 5"),
        ({"backend": None}, "backend: expected the name of a backend, found None"),
        ({"fake_quant": True}, "fake_quant: expected one of auto, on, off, found True"),
        ({"dtype": "float99"}, "dtype: expected float32 or float64, found 'float99'"),
        ({"dtype": np.float16}, "dtype: expected float32 or float64, found float16"),
        ({"dtype": None}, "dtype: expected float32 or float64, found None"),
    ],
)
def test_what_cannot_be_loaded(arguments, message):
    with pytest.raises(SettingError, match=message):
        load(**arguments)


def test_one_layer_looks_at_its_ids_too(model):
    streams = model.first_streams([[1, 2]])
    with pytest.raises(PromptError, match="found -1 at token 1 of sequence 0"):
        model.layer(0, model.ops.to_numpy(streams), [[1, -1]])
