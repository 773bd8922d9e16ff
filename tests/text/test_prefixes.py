"""What is kept of prompts and answers: what is found again, what goes, and that it changes no token."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from dsv4.errors import SettingError
from dsv4.text.generate import generate
from dsv4.text.prefixes import MOST_EDGES, Prefix, Prefixes, edges
from serve.conftest import backend


class Size:
    """A cache of which only the size matters."""

    def __init__(self, allocated):
        self.allocated = allocated


def kept(prefixes, ids, kind="any", nbytes=100):
    """Keep something for these ids, and give it back."""
    prefix = Prefix(Size(nbytes), None)
    prefixes.keep(np.array(ids), kind, lambda: prefix)
    return prefix


def find(prefixes, ids, kind="any"):
    return prefixes.find(np.array(ids), kind)


def test_the_longest_beginning_is_found():
    prefixes = Prefixes(10_000)
    one, three = kept(prefixes, [5]), kept(prefixes, [5, 6, 7])
    kept(prefixes, [5, 6, 8, 9])
    assert find(prefixes, [5, 6, 7, 8]) is three
    assert find(prefixes, [5, 6, 6, 8]) is one
    assert find(prefixes, [6, 5]) is None


def test_the_last_token_of_a_prompt_must_still_be_read():
    prefixes = Prefixes(10_000)
    two = kept(prefixes, [5, 6])
    kept(prefixes, [5, 6, 7])
    assert find(prefixes, [5, 6, 7]) is two
    assert find(prefixes, [5]) is None


def test_another_kind_is_not_found():
    prefixes = Prefixes(10_000)
    kept(prefixes, [5], kind="with drafts")
    assert find(prefixes, [5, 6]) is None
    assert find(prefixes, [5, 6], kind="with drafts") is not None


def test_the_one_that_was_used_longest_ago_goes():
    prefixes = Prefixes(3 * 108)
    for token in (1, 2, 3):
        kept(prefixes, [token])
    find(prefixes, [1, 0])
    kept(prefixes, [2])  # again: this counts as used, too
    kept(prefixes, [4])
    assert [find(prefixes, [token, 0]) is not None for token in (1, 2, 3, 4)] == [True, True, False, True]


def test_what_is_kept_already_is_not_made_again():
    prefixes = Prefixes(10_000)
    first = kept(prefixes, [5])
    prefixes.keep(np.array([5]), "any", lambda: pytest.fail("made again"))
    assert find(prefixes, [5, 6]) is first and len(prefixes) == 1


def test_what_is_larger_than_the_memory_drives_nothing_out():
    prefixes = Prefixes(300)
    kept(prefixes, [1])
    kept(prefixes, [2], nbytes=301)
    assert len(prefixes) == 1 and find(prefixes, [1, 0])


@pytest.mark.parametrize("memory", [-1, 1.5, "1 GiB", True])
def test_a_memory_that_is_no_size(memory):
    with pytest.raises(SettingError, match="memory"):
        Prefixes(memory)


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=4), st.integers(0, 150)), max_size=30),
    st.integers(0, 500),
)
def test_the_memory_is_never_exceeded_and_counted_to_the_byte(calls, memory):
    prefixes = Prefixes(memory)
    for ids, nbytes in calls:
        kept(prefixes, ids, nbytes=nbytes)
        found = sum(len(key[1]) + prefix.nbytes for key, prefix in prefixes._kept.items())
        assert prefixes.nbytes == found <= memory


def test_the_states_count():
    assert Prefix(Size(10), np.zeros((1, 1, 2, 3), np.float32)).nbytes == 34


@given(st.integers(1, 10_000), st.sampled_from([1, 5, 128]))
def test_edges_are_few_regular_and_before_the_last_token(length, block):
    found = list(edges(length, block))
    assert len(found) <= MOST_EDGES
    if length <= block:
        assert found == []
    else:
        step = found[0]
        assert step % block == 0 and found == list(range(step, length, step))
        assert step == block or length > step * MOST_EDGES / 2


CHUNK = 64
TURNS = [30, 150, 1, 140]


def conversation(model, prefixes, speculative):
    """Four turns: the answers, and how many tokens each turn made the model read."""
    read, ids, answers = [], [], []
    states = model.states

    def counted(tokens, *rest):
        read.append(np.size(tokens))
        return states(tokens, *rest)

    model.states = counted
    counts = []
    try:
        for turn, more in enumerate(TURNS):
            ids = [*ids, *tiny.tokens(turn, more).tolist()]
            read.clear()
            generation = generate(
                model, ids, 9, 0.8, 1.0, turn, [], speculative, prefill_chunk=CHUNK, prefixes=prefixes
            )
            answers.append([token.id for token in generation])
            counts.append(sum(read))
            ids += answers[-1]
    finally:
        del model.states
    return answers, counts


__all__ = ["backend"]


@pytest.fixture(scope="module", params=["mtp", "dspark"])
def model(backend, request):
    return tiny.model(backend, dtype=np.float32, **(tiny.DSPARK if request.param == "dspark" else {}))


@pytest.mark.parametrize("speculative", [False, True])
@pytest.mark.parametrize("memory", [0, 150_000, 2**26])
def test_a_conversation_is_the_same_with_what_is_kept(model, speculative, memory):
    prefixes = Prefixes(memory)
    assert conversation(model, prefixes, speculative)[0] == conversation(model, None, speculative)[0]
    assert prefixes.nbytes <= memory


def test_a_turn_reads_only_what_it_adds(model):
    """On a backend that is not batch-invariant, it reads what is behind the last whole chunk of the turn before."""
    _, counts = conversation(model, Prefixes(2**26), speculative=False)
    lengths = [sum(TURNS[: turn + 1]) + 9 * turn for turn in range(len(TURNS))]
    if "float32" in model.ops.batch_invariant:
        known = [0, *(length + 8 for length in lengths[:-1])]  # the last token of an answer is not read
    else:
        known = [0, *((length - 1) // CHUNK * CHUNK for length in lengths[:-1])]
    expected = [length - from_before + 8 for length, from_before in zip(lengths, known, strict=True)]
    assert counts == expected


def test_a_drafter_reads_with_what_follows_now(model):
    """Two prompts that part where one was kept: what is drafted for the second knows the second's token."""
    if "float32" not in model.ops.batch_invariant:
        pytest.skip("with drafts nothing is reused")
    begin = tiny.tokens(0, 128).tolist()
    prefixes = Prefixes(2**26)
    for token in (3, 4, 5):
        ids = [*begin, token, 6]
        drafts = []
        for known in (prefixes, None):
            generation = generate(model, ids, 20, 0.0, stop_ids=[], speculative=True, prefixes=known)
            rounds = []
            generation.rounds.watch = rounds.append
            drafts.append(([token.id for token in generation], rounds))
        assert drafts[0] == drafts[1]


def test_prompts_of_one_call_help_each_other_and_stay_apart(model):
    if "float32" not in model.ops.batch_invariant:
        pytest.skip("a batch shows in the last bits")
    begin = tiny.tokens(0, 130).tolist()
    prompts = [[*begin, 1], [*begin, 2], begin[:40]]
    together, apart = (
        list(generate(model, prompts, 8, 0.9, seed=5, stop_ids=[], prefixes=each)) for each in (Prefixes(2**26), None)
    )
    assert together == apart


def test_a_drafter_of_the_callers_would_miss_what_is_not_read_again(model):
    class Own:
        max_drafts = 1

        def read(self, *_): ...

        def draft(self, *_): ...

    with pytest.raises(SettingError, match="prefixes"):
        generate(model, [1], speculative=Own(), prefixes=Prefixes(0))
