"""What holds at each step, by hand."""

from dataclasses import replace

import pytest

import tiny
from dsv4.errors import SettingError
from dsv4.learn.recipe import Recipe, Stage
from dsv4.learn.schedule import cosine_decay, moment, ramped_batch, stage_config, warm_up

STAGES = (
    Stage("dense", steps=10, length=16, batch=8),
    Stage("indexer", steps=4, length=16, batch=2),
    Stage("sparse", steps=6, length=64, batch=8),
    Stage("decay", steps=3, length=64, batch=8),
    Stage("decay", steps=5, length=600, batch=1),
)
RECIPE = Recipe(
    model=tiny.config(hidden_size=32, moe_intermediate_size=32),
    stages=STAGES,
    learning_rate=0.02,
    final_learning_rate=0.002,
    warmup_steps=5,
    checkpoint_interval=7,
    indexer_learning_rate=0.003,
    first_batch=2,
    ramp_steps=12,
)
MOMENTS = [moment(RECIPE, step) for step in range(RECIPE.steps)]


def test_stages_follow_each_other():
    assert RECIPE.steps == 28
    assert [held.stage for held in MOMENTS] == [stage for stage in STAGES for _ in range(stage.steps)]


def test_the_learning_rate_rises_stays_and_falls_over_the_whole_decay():
    rates = [held.learning_rate for held in MOMENTS]
    assert rates[:6] == pytest.approx([0.004, 0.008, 0.012, 0.016, 0.02, 0.02])
    assert rates[10:14] == [0.003] * 4
    assert rates[6:10] + rates[14:20] == [0.02] * 10
    assert rates[23] == pytest.approx(0.011)  # half way
    assert rates[27] == pytest.approx(0.002)
    assert rates[20:] == sorted(rates[20:], reverse=True) and rates[20] < 0.02


def test_the_batch_grows_to_that_of_the_stage():
    assert [held.batch for held in MOMENTS] == [2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 2, 2, 2, 2, *[8] * 9, *[1] * 5]


def test_the_decay_has_its_own_weight_of_mtp_and_rounds():
    assert [held.mtp_weight for held in MOMENTS] == [0.3] * 20 + [0.1] * 8
    assert [held.quantise for held in MOMENTS] == [False] * 20 + [True] * 8
    assert not any(moment(replace(RECIPE, quantise=False), step).quantise for step in range(28))


@pytest.mark.parametrize("step", [-1, 28])
def test_there_are_no_other_steps(step):
    with pytest.raises(SettingError, match=f"step: expected one from 0 to 27, found {step}"):
        moment(RECIPE, step)


def test_by_themselves():
    assert [warm_up(step, 4) for step in (0, 1, 3, 9)] == [0.25, 0.5, 1, 1]
    assert warm_up(0, 0) == 1
    assert [cosine_decay(step, 2, 5, 1) for step in (0, 1)] == pytest.approx([3, 1])
    assert [ramped_batch(step, 3, 1, 7) for step in range(5)] == [1, 3, 5, 7, 7]
    assert ramped_batch(0, 0, 1, 7) == 7 and ramped_batch(0, 9, 8, 7) == 7


def test_attention_is_dense_until_the_indexer_has_learned():
    """The tiny model chooses 3 entries; 16 tokens have 4, and 600 have 150."""
    topk = [stage_config(tiny.CONFIG, stage).index_topk for stage in STAGES]
    assert topk == [4, 4, 3, 3, 3]
    assert stage_config(tiny.CONFIG, replace(STAGES[0], length=600)).index_topk == 150
    assert stage_config(tiny.CONFIG, replace(STAGES[0], length=8)) == tiny.CONFIG
