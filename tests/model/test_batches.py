"""Sequences that leave a batch and come to another: what they compute is what they would compute alone."""

import numpy as np
import pytest

import tiny
from dsv4.errors import PromptError

TAPE = tiny.tokens(31, 5, 330)
"""Of five sequences."""
LENGTHS = (300, 4, 131, 1, 127)


@pytest.fixture(scope="module", params=[False, True], ids=["float", "packed"])
def packed(request):
    return request.param


@pytest.fixture(scope="module")
def model(backend, packed):
    source = tiny.quantised(tiny.checkpoint(**tiny.WIDE)) if packed else None
    return tiny.model(backend, source, fake_quant=packed)


def fed(model, packed, sequences, max_rollback=3):
    """A cache of some of the sequences, each with as many tokens as its length says, and half of them read by MTP."""
    cache = model.new_cache(len(sequences), max_rollback, packed)
    lengths = np.array([LENGTHS[sequence] for sequence in sequences])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids, following = TAPE[sequences, : mask.shape[1]], TAPE[sequences, 1 : mask.shape[1] + 1]
    states = model.states(ids, cache, mask)
    model.mtp_logits(states, following, cache, np.arange(mask.shape[1]) < lengths[:, None] // 2)
    return cache


def go_on(model, cache, sequences, count=6):
    """The logits of the next tokens of these sequences, one at a time, which is how they are decoded."""
    places = np.array([LENGTHS[sequence] for sequence in sequences])[:, None]
    rows = np.array(sequences)[:, None]
    steps = [model.ops.to_numpy(model(TAPE[rows, places + step], cache)) for step in range(count)]
    return np.concatenate(steps, axis=1)


def alone(model, packed, sequence):
    return go_on(model, fed(model, packed, [sequence]), [sequence])[0]


@pytest.mark.parametrize("chosen", [[2], [4, 0], [1, 1, 3], [0, 1, 2, 3, 4]])
def test_selected_sequences_go_on_as_if_alone(model, packed, chosen):
    cache = fed(model, packed, [0, 1, 2, 3, 4])
    selected = cache.select(chosen)
    assert selected.lengths.tolist() == [LENGTHS[one] for one in chosen]
    assert selected.mtp.lengths.tolist() == [LENGTHS[one] // 2 for one in chosen]
    found = go_on(model, selected, chosen)
    for row, sequence in zip(found, chosen, strict=True):
        tiny.close(row, alone(model, packed, sequence))
    assert cache.lengths.tolist() == list(LENGTHS), "the batch that they came from stays as it was"
    tiny.close(go_on(model, cache, [0, 1, 2, 3, 4])[2], alone(model, packed, 2))


@pytest.mark.parametrize("groups", [[[0], [1]], [[1], [0]], [[3, 1], [2], [0, 4]]])
def test_joined_sequences_go_on_as_if_alone(model, packed, groups):
    caches = [fed(model, packed, group) for group in groups]
    together = [sequence for group in groups for sequence in group]
    joined = type(caches[0]).join(caches)
    assert joined.lengths.tolist() == [LENGTHS[one] for one in together]
    assert joined.nbytes() == {part: sum(cache.nbytes()[part] for cache in caches) for part in caches[0].nbytes()}
    found = go_on(model, joined, together)
    for row, sequence in zip(found, together, strict=True):
        tiny.close(row, alone(model, packed, sequence))
    assert [cache.lengths.tolist() for cache in caches] == [[LENGTHS[one] for one in group] for group in groups]


def test_a_joined_batch_goes_back_as_its_parts_could(model, packed):
    own, other = fed(model, packed, [0]), fed(model, packed, [2])
    joined = own.join([own, other])
    joined.rollback(np.array([3, 0]))
    own.rollback(3)
    found, expected = (model.states(TAPE[[0], 297:300], cache) for cache in (joined.select([0]), own))
    tiny.close(model.ops.to_numpy(found), model.ops.to_numpy(expected))
    with pytest.raises(PromptError, match="max_rollback"):
        joined.rollback(1)


@pytest.mark.parametrize("sequences", [[], [5], [-1], ["0"], [0.0]])
def test_a_sequence_that_there_is_not(model, packed, sequences):
    with pytest.raises(PromptError, match="sequence"):
        model.new_cache(5, packed=packed).select(sequences)


def test_caches_that_are_not_alike(model, packed):
    others = [model.new_cache(max_rollback=7, packed=packed), tiny.model(model.ops, compress_ratios=(0, 4)).new_cache()]
    if packed:
        others.append(model.new_cache())
    for other in others:
        with pytest.raises(PromptError, match="found different ones"):
            other.join([model.new_cache(packed=packed), other])
    with pytest.raises(PromptError, match="at least one"):
        others[0].join([])
