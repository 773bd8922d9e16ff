"""The mean of several models' weights, as one checkpoint."""

from dataclasses import replace

import numpy as np
import pytest

from dsv4.checkpoint import Checkpoint
from dsv4.errors import CheckpointError
from dsv4.learn import Trainable
from dsv4.learn.post.averaging import average
from dsv4.text.tokenizer import Tokenizer
from learn.post.stages import MODEL, checkpoint


@pytest.fixture(scope="module")
def models(tmp_path_factory, tokenizer_directory):
    """Three models of one start: they agree in the table of the hash layer."""
    place = tmp_path_factory.mktemp("models")
    first = checkpoint(place / "0", tokenizer_directory)
    weights, found = Trainable.of(Checkpoint.open(first)), [first]
    for seed in (1, 2):
        g = np.random.default_rng(seed)
        moved = {name: array + g.standard_normal(array.shape) for name, array in weights.parameters.items()}
        moved = {name: array.astype(np.float32) for name, array in moved.items()}
        files = [first / name for name in ("tokenizer.json", "tokenizer_config.json")]
        Trainable(weights.config, moved, weights.others).save(place / str(seed), extra_files=files)
        found.append(place / str(seed))
    return found


def arrays(path):
    return dict(Trainable.of(Checkpoint.open(path)).items())


def test_each_weight_is_the_mean_and_tables_stay(models, tmp_path):
    found = arrays(average(models, tmp_path / "out"))
    one, two, three = map(arrays, models)
    assert found.keys() == one.keys()
    for name, array in found.items():
        expected = one[name] if array.dtype.kind == "i" else (one[name] / 3 + two[name] / 3 + three[name] / 3)
        np.testing.assert_allclose(array, expected, rtol=0, atol=1e-6, err_msg=name)
    assert Tokenizer.from_file(tmp_path / "out").vocabulary == Tokenizer.from_file(models[0]).vocabulary


def test_the_mean_of_one_is_itself(models, tmp_path):
    found = arrays(average(models[:1], tmp_path / "out"))
    for name, array in arrays(models[0]).items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_models_that_have_no_mean(models, tokenizer_directory, tmp_path):
    with pytest.raises(CheckpointError, match=r"^models: expected at least one to take the mean of, found none$"):
        average([], tmp_path / "out")
    smaller = checkpoint(tmp_path / "smaller", tokenizer_directory, config=replace(MODEL, n_routed_experts=2))
    with pytest.raises(
        CheckpointError, match=r"smaller: expected a model with the configuration of .*, found another$"
    ):
        average([models[0], smaller], tmp_path / "out")
    other = checkpoint(tmp_path / "other", tokenizer_directory, seed=5)
    with pytest.raises(CheckpointError, match=r"tid2eid: expected the same integers in all models, found others$"):
        average([models[0], other], tmp_path / "out")
