"""Batches of a run: of the right size at each step, no row twice before each has come once, from the stage's texts."""

from dataclasses import replace

import numpy as np
import pytest

from dsv4.errors import SettingError, TextError
from dsv4.learn.recipe import Stage
from dsv4.learn.schedule import moment
from dsv4.learn.texts.batches import Rows
from dsv4.learn.texts.feed import TextFeed
from learn.runs import RECIPE

DOCUMENTS = {
    "a.txt": [np.arange(100, 140), np.arange(200, 210)],
    "b.txt": [np.arange(300, 390)],
    "c.txt": [np.arange(400, 412)],
}
SHARES = {"a.txt": 2, "b.txt": 1, "c.txt": 0}
FEED_RECIPE = replace(
    RECIPE,
    stages=(Stage("dense", 5, 9, 6), Stage("dense", 4, 9, 2), Stage("sparse", 6, 24, 5, SHARES)),
    first_batch=1,
    ramp_steps=12,
    seed=3,
)


@pytest.mark.parametrize("ramp", [0, 3, 12, 100])
def test_every_stage_goes_through_its_rows_in_order(ramp):
    """With a batch that grows, over the ends of stages, too."""
    recipe = replace(FEED_RECIPE, ramp_steps=ramp)
    feed, step = TextFeed(recipe, DOCUMENTS), 0
    used = [DOCUMENTS, DOCUMENTS, {name: DOCUMENTS[name] for name in ("a.txt", "b.txt")}]
    shares = [None, None, {"a.txt": 2, "b.txt": 1}]
    for number, stage in enumerate(recipe.stages):
        rows, first = Rows(used[number], stage.length - 1, recipe.seed, number, shares[number]), 0
        for _ in range(stage.steps):
            size = moment(recipe, step).batch
            found, expected = feed.batch(step), rows.batch(first, size)
            assert len(found.ids) == size
            np.testing.assert_array_equal(found.ids, expected.ids)
            np.testing.assert_array_equal(found.mask, expected.mask)
            first, step = first + size, step + 1


def test_a_step_has_the_same_batch_whenever_it_is_asked_for():
    feed, other = TextFeed(FEED_RECIPE, DOCUMENTS), TextFeed(FEED_RECIPE, DOCUMENTS)
    forth = [feed.batch(step).ids for step in range(15)]
    back = [other.batch(step).ids for step in reversed(range(15))]
    for one, same in zip(forth, reversed(back), strict=True):
        np.testing.assert_array_equal(one, same)


def test_a_text_without_a_share_is_not_read_and_may_be_short():
    """c.txt has 12 tokens, and the last stage sequences of 24."""
    feed = TextFeed(FEED_RECIPE, DOCUMENTS)
    last = np.concatenate([feed.batch(step).ids.ravel() for step in range(9, 15)])
    assert not ((last >= 400) & (last < 412)).any() and (last >= 300).any() and ((last >= 100) & (last < 210)).any()
    with pytest.raises(TextError, match=r"c.txt: expected at least one sequence of 24 tokens, found 12"):
        TextFeed(replace(FEED_RECIPE, stages=(Stage("dense", 1, 24, 1),)), DOCUMENTS)


def test_a_share_of_a_text_that_is_not_there():
    stages = (Stage("dense", 1, 9, 1), Stage("dense", 1, 9, 1, {"a.txt": 1, "d.txt": 1}))
    with pytest.raises(
        SettingError, match=r"recipe: stages\[1\].shares: expected names of a.txt, b.txt, c.txt, found 'd"
    ):
        TextFeed(replace(FEED_RECIPE, stages=stages), DOCUMENTS)


def test_a_long_run_is_laid_out_at_once():
    feed = TextFeed(replace(FEED_RECIPE, stages=(Stage("dense", 10**5, 9, 2),), ramp_steps=0), DOCUMENTS)
    rows = Rows(DOCUMENTS, 8, FEED_RECIPE.seed, 0)
    np.testing.assert_array_equal(feed.batch(10**5 - 1).ids, rows.batch(2 * (10**5 - 1), 2).ids)
