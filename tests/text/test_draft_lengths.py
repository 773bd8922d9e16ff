"""How many drafts are checked: the official threshold, and the paper's algorithm against trying all lengths."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.ops.elementwise import sigmoid
from dsv4.text.draft_lengths import Scheduler, Threshold, confident_prefix, schedule

GOLDEN = json.loads((Path(__file__).parents[1] / "data/golden/dspark_verify.json").read_text())
CHANCES = st.lists(st.lists(st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]), max_size=4), max_size=3)


@pytest.mark.parametrize("case", GOLDEN["confidence_cut"], ids=lambda case: str(case["threshold"]))
def test_the_threshold_cuts_as_the_official_one(case):
    chances = sigmoid(np.array(case["confidence"])).tolist()
    assert confident_prefix(chances, case["threshold"]) == case["length"]
    assert Threshold(case["threshold"]).lengths([chances, []]) == [case["length"], 0]


@pytest.mark.parametrize("case", GOLDEN["scheduler"], ids=lambda case: str(case["lengths"]))
def test_the_schedule_is_the_papers(case):
    found = schedule(case["conf"], lambda tokens: case["sps"][tokens])
    assert found.lengths == case["lengths"]
    assert found.throughput == pytest.approx(case["throughput"], rel=1e-6)


@given(CHANCES, st.floats(0.01, 2))
def test_no_lengths_give_more_tokens_per_second_where_each_token_costs_the_same(chances, slope):
    """Tokens per second then rise to one peak and fall, so that stopping at the first fall loses nothing."""

    def steps_per_second(tokens):
        return 1 / (1 + slope * tokens)

    def throughput(lengths):
        kept = sum(np.cumprod(row[:length]).sum() for row, length in zip(chances, lengths, strict=True))
        return (len(chances) + kept) * steps_per_second(len(chances) + sum(lengths))

    found = schedule(chances, steps_per_second)
    best = max(throughput(lengths) for lengths in itertools.product(*(range(len(row) + 1) for row in chances)))
    assert found.throughput == pytest.approx(best, rel=1e-12)
    assert throughput(found.lengths) == pytest.approx(best, rel=1e-12)


@given(CHANCES, st.integers(0, 2), st.integers(0, 3), st.sampled_from([0.1, 0.7]))
def test_a_length_does_not_depend_on_the_drafts_behind_it(chances, row, place, other):
    """Or the text would no longer follow the model's distribution."""
    table = [1.0, 1.0, 0.9, 0.85, 0.5, 0.49, 0.48, 0.47, 0.46, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
    lengths = schedule(chances, table.__getitem__).lengths
    if row < len(chances) and lengths[row] <= place < len(chances[row]) - 1:
        changed = [list(each) for each in chances]
        changed[row][place + 1] = other
        assert schedule(changed, table.__getitem__).lengths[row] <= place + 1


def test_the_scheduler_measures_both_ends_first():
    scheduler, chances = Scheduler(), [[0.9] * 5, [0.9] * 3]
    assert scheduler.lengths(chances) == [0, 0]
    scheduler.timed(2, 1.0)
    assert scheduler.lengths(chances) == [5, 3]
    scheduler.timed(10, 9.0)
    steps = scheduler.steps_per_second()
    assert 1 / steps(2) == pytest.approx(1) and 1 / steps(6) == pytest.approx(5)  # each token costs a second
    assert scheduler.lengths(chances) == [0, 0]


def test_the_scheduler_takes_all_drafts_where_they_cost_nothing():
    scheduler, chances = Scheduler(), [[0.9] * 5, [0.9, 0.0, 0.9]]
    for tokens in (2, 10):
        scheduler.lengths(chances)
        scheduler.timed(tokens, 1.0)
    assert scheduler.lengths(chances) == [5, 1]


def test_a_line_through_noise_never_says_that_a_step_takes_no_time():
    scheduler = Scheduler()
    for tokens, seconds in ((2, 3.0), (10, 1.0)):
        scheduler.timed(tokens, seconds)
    assert scheduler.steps_per_second()(100) <= 2


def test_one_slow_step_does_not_change_what_a_size_costs():
    scheduler = Scheduler()
    for seconds in (1.0, 1.0, 500.0, 1.0):
        scheduler.timed(1, seconds)
    scheduler.timed(3, 3.0)
    assert 1 / scheduler.steps_per_second()(1) == pytest.approx(1)
