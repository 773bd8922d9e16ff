"""Rows of runs side by side, each learner with its part of the batch."""

from dataclasses import replace

import numpy as np
import pytest

from dsv4.errors import SettingError
from dsv4.learn.diloco import measured
from dsv4.learn.diloco import reach as module
from dsv4.learn.diloco.chaos import Chaos, Kill
from dsv4.learn.diloco.goodput.fit import FITTED
from dsv4.learn.diloco.measured import steps_between_kills, variants
from dsv4.learn.diloco.plot import goodput
from dsv4.learn.diloco.reach import Variant, drawn_kills, reach, shared
from dsv4.learn.diloco.settings import Settings
from dsv4.learn.diloco.training import fragments_of
from dsv4.learn.recipe import Stage
from learn.diloco.toys import Start
from learn.runs import KilledError, killed, recipe, short, write_texts


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    directory = tmp_path_factory.mktemp("reach")
    few = Settings(2, 2, 2)
    variants = {
        "alone": Variant(None),
        "two": Variant(few),
        "as they are": Variant(replace(few, bits=32)),
        "warm": Variant(replace(few, warm_start=2)),
        "killed": Variant(few, Chaos((Kill(1, 2, 2.0),))),
    }
    texts = write_texts(directory)
    args = short(4), texts, texts[0].read_text(), directory / "runs", variants
    return reach(*args, window=16), reach(*args, window=16), directory


def test_a_row_for_each_variant_from_its_own_run(rows):
    found, again, directory = rows
    alone, two, as_they_are, _, killed = found
    assert [row.name for row in found] == ["alone", "two", "as they are", "warm", "killed"]
    assert all(np.isfinite(row.nats) and row.nats < 6 for row in found)
    assert len({row.nats for row in found}) == 5
    assert killed.goodput < two.goodput < alone.goodput == 1
    assert 6 < as_they_are.bytes_up / two.bytes_up < 8
    assert (directory / "runs/killed/model/config.json").exists()
    assert again == found


def test_a_row_that_was_interrupted_is_gone_on_with(rows, tmp_path, monkeypatch):
    found, _, directory = rows
    texts = [directory / name for name in ("plays.txt", "letters.txt")]
    args = short(4), texts, texts[0].read_text(), tmp_path, {"two": Variant(Settings(2, 2, 2))}
    with monkeypatch.context() as patch:
        patch.setattr(module, "tape_of", killed)
        with pytest.raises(KilledError):
            reach(*args, window=16)
    assert reach(*args, window=16) == [found[1]]


def test_learners_together_see_as_many_tokens_as_one_alone(rows):
    alone, two, _, warm, _ = rows[0]
    assert alone.tokens == two.tokens == warm.tokens > 0


def test_each_stage_is_shared():
    assert shared(recipe(stages=(Stage("dense", 4, 16, 8), Stage("decay", 2, 32, 4))), 4).stages == (
        Stage("dense", 4, 16, 2),
        Stage("decay", 2, 32, 1),
    )


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(SettingError, match="batch: expected a multiple of the 3 learners, found 2"):
        shared(short(4), 3)


def test_kills_come_as_often_as_asked_for_and_to_everybody():
    kills = drawn_kills(8, 10_000, 50.0, 19.0, seed=0)
    assert {kill.who for kill in kills} == set(range(8))
    assert 0.9 * 1600 < len(kills) < 1.1 * 1600  # about 1,570: no gap is below a step
    assert all(1 <= kill.after < 10_000 and kill.seconds == 19.0 for kill in kills)
    assert len({(kill.who, kill.after) for kill in kills}) == len(kills)
    assert kills == drawn_kills(8, 10_000, 50.0, 19.0, seed=0) != drawn_kills(8, 10_000, 50.0, 19.0, seed=1)


def test_a_mean_time_that_is_none_is_refused():
    with pytest.raises(SettingError, match="between"):
        drawn_kills(2, 10, 0.0, 1.0, 0)


@pytest.mark.parametrize(("learners", "reaches"), [(8, True), (4, False)])
def test_goodput_where_a_rigid_program_has_27_percent_is_what_renewal_theory_says(learners, reaches):
    """A rigid program stands for a restart after each failure; a learner for a reconfiguration and a scale-up."""
    rate = (1 / 0.27 - 1) / FITTED.restart
    stands = FITTED.reconfiguration + FITTED.scale_up
    found = []
    for seed in range(6):
        tape = []
        kills = drawn_kills(learners, 288, steps_between_kills(learners), stands, seed)
        settings = {"learners": learners, "fragments": 2, "inner_steps": 24}
        world = Start(288, shapes={"a": (2,), "b": (2,)}, **settings).world(Chaos(kills), seed, tape.append)
        while not world.is_over:
            world.advance()
        steps, seconds = [line for line in tape if line["event"] == "step"], tape[-1]["time"]
        found.append(float(goodput(steps, learners, [seconds], window=seconds)[0]))
    assert np.mean(found) == pytest.approx(1 / (1 + rate / learners * stands), abs=0.04)
    assert (np.mean(found) >= 0.85) == reaches


def test_the_rows_of_the_document_fit_its_recipe():
    rows = variants(0)
    assert list(rows) == ["one", "4 undisturbed", "4 killed", "8 undisturbed", "8 killed", "4 cold", "8 cold"]
    for one in rows.values():
        if one.settings is not None:
            one.chaos.check(one.settings.learners)
            fragments_of(shared(measured.recipe(0), one.settings.learners), one.settings)


@pytest.mark.parametrize("arguments", [[], ["runs", "first"]])
def test_what_is_not_understood_is_one_line(capsys, arguments):
    assert measured.main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
