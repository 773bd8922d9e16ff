"""What a run leaves: states whole or not at all, which of them are kept, one process at a time, damaged files."""

import numpy as np
import pytest

from dsv4.errors import SettingError, TrainingError
from dsv4.learn.run_directory import LOG_LINES, RunDirectory
from full_disk import full_disk
from tiny_checkpoint import listing

STATE = {
    "step": np.array(7),
    "weights.a": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    "spikes.losses": np.array([0.1, 1 / 3]),
    "choices.1": np.array([[1, 2]], np.int32),
}


@pytest.fixture
def directory(tmp_path):
    return RunDirectory(tmp_path)


def test_a_state_is_read_as_it_was_written(directory):
    directory.log.append({"step": 0})
    directory.save_state(7, STATE, keep_from=7)
    found, lines = directory.load_state(7)
    assert lines == 1 and found.keys() == STATE.keys()
    for name, array in STATE.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)


def test_the_last_two_that_are_old_enough_are_kept(directory):
    kept = []
    for step in range(0, 12, 2):
        directory.save_state(step, STATE, keep_from=step - 3)
        kept.append(directory.steps())
    assert kept == [[0], [0, 2], [0, 2, 4], [0, 2, 4, 6], [2, 4, 6, 8], [4, 6, 8, 10]]
    assert (directory.newest(), directory.newest(at_most=7), directory.newest(at_most=4)) == (10, 6, 4)
    with pytest.raises(TrainingError, match=r"states: expected a state after 3 steps or fewer, found none$"):
        directory.newest(at_most=3)
    directory.forget_after(6)
    assert directory.steps() == [4, 6]


def test_states_are_ordered_by_number_and_other_files_do_not_count(directory, tmp_path):
    for step in (99_999_998, 100_000_000):
        directory.save_state(step, STATE, keep_from=0)
    for name in ("old", "7", "¹²³⁴⁵⁶⁷⁸", "00000007.copy"):
        (tmp_path / "states" / f"{name}.safetensors").touch()
    assert directory.steps() == [99_999_998, 100_000_000]


def test_no_state(directory):
    with pytest.raises(TrainingError, match=r"states: expected a state, found none$"):
        directory.newest()


def test_a_full_disk_keeps_what_there_was(directory):
    directory.save_state(0, STATE, keep_from=0)
    with full_disk(100), pytest.raises(SettingError, match=r"00000002.safetensors: .*found: File too large$"):
        directory.save_state(2, STATE, keep_from=2)
    assert directory.steps() == [0]
    assert directory.load_state(0)[1] == 0
    assert listing(directory.path / "states") == ["00000000.safetensors"]


def test_a_damaged_state(directory):
    directory.save_state(0, STATE, keep_from=0)
    content = directory.state_file(0).read_bytes()
    for damaged in (b"", content[:100], content.replace(LOG_LINES.encode(), b"log_limes")):
        directory.state_file(0).write_bytes(damaged)
        with pytest.raises(TrainingError, match=r"00000000.safetensors: expected a state") as caught:
            directory.load_state(0)
        assert "\n" not in str(caught.value)


def test_one_process_at_a_time(directory):
    with (
        directory.locked(),
        pytest.raises(TrainingError, match=r"expected no other process to train there, found one$"),
        RunDirectory(directory.path).locked(),
    ):
        pass
    with directory.locked():
        pass
    with pytest.raises(TrainingError, match="nowhere: expected a directory to train in, found: No such file"):
        RunDirectory(directory.path / "nowhere").locked().__enter__()


def test_what_a_killed_process_left_half_written_is_removed(directory):
    directory.save_state(0, STATE, keep_from=0)
    old = directory.path / ".model.0123.old"
    old.mkdir()
    (directory.path / ".model.4567.old").mkdir()
    (directory.path / ".model.4567.old" / "notes.txt").touch()
    for name in ("states/.00000002.safetensors.x1.partial", ".log.jsonl.x2.partial"):
        (directory.path / name).touch()
    with directory.locked():
        assert listing(directory.path) == [".lock", ".model.4567.old", "states"]
        assert listing(directory.path / "states") == ["00000000.safetensors"]


def test_small_files(directory):
    directory.write_json("texts.json", {"Ä.txt": "1"})
    assert directory.read_json("texts.json") == {"Ä.txt": "1"}
    with pytest.raises(TrainingError, match=r"recipe.json: expected a file of a run that was begun here"):
        directory.read_json("recipe.json")
    assert not directory.exists
