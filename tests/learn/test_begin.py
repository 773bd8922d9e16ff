"""How runs begin: whole or not at all, from texts in any order, from checkpoints; and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from dsv4.checkpoint import read_config
from dsv4.checkpoint import target as targets
from dsv4.errors import CheckpointError, DSV4Error, SettingError, TextError, TrainingError
from dsv4.learn import begin as begins
from dsv4.learn import snapshots
from dsv4.learn.pretrain import pretrain
from dsv4.learn.recipe import Stage
from dsv4.learn.run_directory import RunDirectory
from dsv4.learn.trainable import Trainable
from full_disk import full_disk
from learn.runs import KilledError, assert_same_run, final, killed, recipe, same_bits, short, write_texts
from tiny_checkpoint import listing


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def first(tmp_path_factory, texts):
    """A run of two steps."""
    return pretrain(short(), texts, tmp_path_factory.mktemp("first") / "run").parent


MOMENTS = {
    "before the tokenizer": (begins, "train_tokenizer"),
    "before the feed": (begins, "TextFeed"),
    "before the state": (snapshots, "write_model"),
    "in the state": (RunDirectory, "save_state"),
    "in the model": (Trainable, "save"),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("how", ["Ctrl-C", "kill -9"])
def test_a_begin_that_is_cut_short_does_not_matter(tmp_path, texts, first, monkeypatch, moment, how):
    """Killed, a process clears nothing; the next one does."""
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(*MOMENTS[moment], killed)
        if how == "kill -9":
            patch.setattr(targets, "_discard", lambda partial, lock: None)
        pretrain(short(), texts, tmp_path / "run")
    assert listing(tmp_path) == ([".run.partial"] if how == "kill -9" else [])
    with pytest.raises(TrainingError, match="expected a run to resume, found none"):
        pretrain(short(), texts, tmp_path / "run", resume=True)
    pretrain(short(), texts, tmp_path / "run")
    assert listing(tmp_path) == ["run"]
    assert_same_run(tmp_path / "run", first)


def test_a_run_has_begun_with_a_state_and_a_model(tmp_path, texts):
    with pytest.raises(KilledError):
        pretrain(short(), texts, tmp_path / "run", watch=killed)
    directory = RunDirectory(tmp_path / "run")
    assert directory.steps() == [0]
    state, lines = directory.load_state(0)
    assert lines == 0 and state["step"] == 0
    assert directory.model.is_dir()


def test_a_full_disk_in_the_begin_leaves_nothing(tmp_path, texts):
    """The system's own refusal to write."""
    with full_disk(), pytest.raises(SettingError, match="safetensors: expected a file that can be written") as caught:
        pretrain(short(), texts, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert listing(tmp_path) == []


def test_the_order_of_the_texts_does_not_matter(tmp_path, texts, first):
    pretrain(short(), texts[::-1], tmp_path / "run")
    assert_same_run(tmp_path / "run", first)
    pretrain(short(), texts, tmp_path / "run", resume=True)


def test_text_that_utf8_cannot_hold(tmp_path):
    (tmp_path / "odd.jsonl").write_text(json.dumps({"text": "rose \ud800 " * 20}) + "\n")
    with pytest.raises(TextError, match="UTF-8"):
        pretrain(short(), [tmp_path / "odd.jsonl"], tmp_path / "run")
    assert listing(tmp_path) == ["odd.jsonl"]


def test_texts_that_cannot_be(tmp_path, texts):
    (tmp_path / "short.txt").write_text("O!")
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "plays.txt").write_text("O!")
    before = listing(tmp_path)
    for given, message in (
        ([], "expected at least one file"),
        ([tmp_path / "none.txt"], "none.txt: expected a text file, found no such file"),
        ([tmp_path / "other"], "other: expected a text file, found a directory"),
        ([tmp_path / "blank.txt"], "expected some text, found none"),
        ([tmp_path / "short.txt"], "expected at least one sequence of"),
        ([texts[0], tmp_path / "other" / "plays.txt"], "expected files of different names"),
    ):
        with pytest.raises(TextError, match=message):
            pretrain(recipe(), given, tmp_path / "run")
        assert listing(tmp_path) == before


def test_a_vocabulary_that_is_too_small(tmp_path, texts):
    with pytest.raises(SettingError, match="vocab_size: expected an integer of at least"):
        pretrain(short(model=replace(recipe().model, vocab_size=100)), texts, tmp_path / "run")
    assert listing(tmp_path) == []


def test_places_that_cannot_be(tmp_path, texts):
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("two years of work")
    for name, message in (
        ("file", "expected a directory, found a file"),
        ("file/run", "expected a directory that can be written"),
        ("full", "expected a new or empty directory, found notes.txt"),
    ):
        with pytest.raises(CheckpointError, match=message):
            pretrain(short(), texts, tmp_path / name)
    assert listing(tmp_path) == ["file", "full"]


class TestFromACheckpoint:
    def test_its_weights_and_its_tokenizer(self, tmp_path, texts, first):
        second = recipe(stages=(Stage("sparse", 1, 16, 2),), warmup_steps=10**6, seed=5)
        pretrain(second, texts[:1], tmp_path / "second", init=first / "model")
        found, expected = (final(run)["weights.head.weight"] for run in (tmp_path / "second", first))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)  # after a step at a learning rate of nearly 0
        ours, theirs = tmp_path / "second" / "tokenizer.json", first / "model" / "tokenizer.json"
        assert ours.read_bytes() == theirs.read_bytes()

    def test_the_recipe_says_what_the_model_is(self, tmp_path, texts, first):
        """The same parameters, read in another way."""
        model = replace(recipe().model, index_topk=2, sliding_window=8)
        run = pretrain(
            recipe(stages=(Stage("sparse", 1, 16, 2),), model=model), texts, tmp_path / "run", init=first / "model"
        )
        assert (read_config(run).index_topk, read_config(run).sliding_window) == (2, 8)

    def test_a_tokenizer_config_may_be_missing(self, tmp_path, texts, first):
        source = tmp_path / "source"
        source.mkdir()
        for file in (first / "model").iterdir():
            if file.name != "tokenizer_config.json":
                (source / file.name).write_bytes(file.read_bytes())
        model = pretrain(short(), texts, tmp_path / "run", init=source)
        assert "tokenizer.json" in listing(model) and "tokenizer_config.json" not in listing(model)

    def test_a_resumed_run_knows_what_it_began_with(self, tmp_path, texts, first):
        with pytest.raises(KilledError):
            pretrain(short(), texts, tmp_path / "run", init=first / "model", watch=killed)
        with pytest.raises(SettingError, match=r"^init: expected none, since the run is resumed, found .*") as caught:
            pretrain(short(), texts, tmp_path / "run", init=first / "model", resume=True)
        assert "\n" not in str(caught.value)
        with pytest.raises(SettingError, match=r"^tokenizer: expected none, since the run is resumed"):
            pretrain(short(), texts, tmp_path / "run", tokenizer=first, resume=True)
        pretrain(short(), texts, tmp_path / "run", resume=True)
        pretrain(short(), texts, tmp_path / "whole", init=first / "model")
        same_bits(final(tmp_path / "run"), final(tmp_path / "whole"))

    def test_one_with_other_parameters_is_refused(self, tmp_path, texts, first):
        for change in ({"moe_intermediate_size": 64}, {"vocab_size": 320}):
            with pytest.raises(DSV4Error, match=r"model: tensor '.*': expected the recipe's shape"):
                pretrain(short(model=replace(recipe().model, **change)), texts, tmp_path / "run", init=first / "model")
        assert listing(tmp_path) == []

    def test_a_tokenizer_that_is_too_large(self, tmp_path, texts, first):
        source = tmp_path / "source"
        source.mkdir()
        for file in (first / "model").iterdir():
            (source / file.name).write_bytes(file.read_bytes())
        data = json.loads((source / "tokenizer.json").read_text())
        data["added_tokens"].append(data["added_tokens"][0] | {"id": 300, "content": "<one more>"})
        (source / "tokenizer.json").write_text(json.dumps(data))
        with pytest.raises(SettingError, match="expected at most vocab_size = 300 tokens, found 301"):
            pretrain(short(), texts, tmp_path / "run", init=source)
        assert listing(tmp_path) == ["source"]


class TestATokenizerThatIsGiven:
    def test_it_is_taken_as_it_is(self, tmp_path, texts, first):
        """The texts would give another one: fewer of them, as are read here, have other merges."""
        model = pretrain(short(), texts[:1], tmp_path / "run", tokenizer=first / "model")
        assert (model / "tokenizer.json").read_bytes() == (first / "model" / "tokenizer.json").read_bytes()
        own = pretrain(short(), texts[:1], tmp_path / "own")
        assert (own / "tokenizer.json").read_bytes() != (first / "model" / "tokenizer.json").read_bytes()

    def test_it_comes_before_that_of_the_checkpoint(self, tmp_path, texts, first):
        other = pretrain(short(), texts[:1], tmp_path / "other")
        model = pretrain(short(), texts[:1], tmp_path / "run", init=first / "model", tokenizer=other)
        assert (model / "tokenizer.json").read_bytes() == (other / "tokenizer.json").read_bytes()


class TestAnotherRun:
    def test_none(self, tmp_path, texts):
        with pytest.raises(TrainingError, match="expected a run to resume, found none"):
            pretrain(short(), texts, tmp_path / "run", resume=True)

    def test_one_that_is_there(self, texts, first):
        with pytest.raises(TrainingError, match=r"expected a new or empty directory, found a run; resume continues it"):
            pretrain(short(), texts, first)

    def test_another_recipe(self, texts, first):
        with pytest.raises(TrainingError, match="expected a run with the same stages, found"):
            pretrain(recipe(), texts, first, resume=True)

    def test_other_texts(self, tmp_path, texts, first):
        (tmp_path / "plays.txt").write_text("something else " * 99)
        for given, found in (
            ([tmp_path / "plays.txt", texts[1]], "another text: 'plays.txt'"),
            (texts[1:], "no such file given: 'plays.txt'"),
            ([*texts, __file__], "a file that the run has not read: 'test_begin.py'"),
        ):
            with pytest.raises(TrainingError, match=f"expected the run's texts, found {found}"):
                pretrain(short(), given, first, resume=True)
