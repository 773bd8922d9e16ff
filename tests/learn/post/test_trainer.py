"""The learning rate of the steps of a stage, by hand and in the log."""

from dataclasses import replace

import pytest

from dsv4.learn.post.run import sft
from dsv4.learn.post.trainer import learning_rate
from dsv4.learn.run_directory import RunDirectory
from learn.post.stages import FINE, checkpoint, starting

STAGE = replace(FINE, steps=11, learning_rate=0.08, warmup_steps=4, decay_steps=4, final_learning_rate=0.02)


def test_the_learning_rate_rises_stays_and_falls_to_the_last_step():
    rates = [learning_rate(STAGE, step) for step in range(11)]
    assert rates[:7] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.08, 0.08, 0.08])
    half = 0.03 * 2**0.5 / 2  # cos 45° of half the way
    assert rates[7:] == pytest.approx([0.05 + half, 0.05, 0.05 - half, 0.02])


def test_without_a_decay_it_stays():
    stage = replace(STAGE, decay_steps=0)
    assert [learning_rate(stage, step) for step in range(3, 11)] == [0.08] * 8


def test_the_log_has_the_rate_of_each_step_and_a_step_at_the_rate_0_moves_nothing(tmp_path, tokenizer_directory):
    start = checkpoint(tmp_path / "start", tokenizer_directory)
    stage = starting(FINE, start, learning_rate=0.004, decay_steps=2)
    out = RunDirectory(tmp_path / "out")
    sft(stage, out.path)
    assert [line["learning_rate"] for line in out.log.read()] == pytest.approx([0.004, 0.002, 0.0])
    before, after = (out.load_state(step)[0] for step in out.steps()[-2:])
    moved = [name for name in after if name.startswith("weights.") and (before[name] != after[name]).any()]
    assert (before["step"], after["step"], moved) == (2, 3, [])
