"""Where a checkpoint may be written: nothing that dsv4 did not write is ever replaced, whenever it appears."""

import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from dsv4.checkpoint import Checkpoint, write_checkpoint
from dsv4.checkpoint import target as targets
from dsv4.checkpoint.record import RECORD
from dsv4.errors import CheckpointError
from full_disk import full_disk
from tiny_checkpoint import assert_holds, listing, random_tensors, tiny_config

CONFIG = tiny_config()
TENSORS = random_tensors(CONFIG)


def write(target, during=None, overwrite=False):
    """Write a checkpoint of several files; `during` is called in the middle of the work."""

    def tensors():
        for number, item in enumerate(TENSORS.items()):
            if number == 20 and during is not None:
                during()
            yield item

    write_checkpoint(target, CONFIG, tensors(), max_shard_bytes=100_000, overwrite=overwrite)


def picture(place):
    """What is at a place and below it: bytes of files, where links lead, None for directories."""
    return {
        str(path.relative_to(place)): str(path.readlink())
        if path.is_symlink()
        else (path.read_bytes() if path.is_file() else None)
        for path in [place, *place.rglob("*")]
    }


def put_notes(target):
    target.mkdir(exist_ok=True)
    (target / "notes.txt").write_text("two years of work")


def put_repository(target):
    (target / ".git" / "objects").mkdir(parents=True)


def put_file(target):
    target.write_text("two years of work")


def put_link(target):
    target.symlink_to("elsewhere")


@pytest.mark.parametrize("put", [put_notes, put_repository, put_file, put_link])
def test_what_appears_while_a_new_target_is_written_stays(tmp_path, put):
    target, alone = tmp_path / "model", tmp_path / "alone"
    put(alone)
    with pytest.raises(CheckpointError, match=rf"^{target}: expected a (new or empty )?directory"):
        write(target, lambda: put(target))
    assert picture(target) == picture(alone)
    assert listing(tmp_path) == ["alone", "model"]


@pytest.mark.parametrize("put", [put_notes, put_repository])
def test_what_appears_in_an_empty_target_stays(tmp_path, put):
    target, alone = tmp_path / "model", tmp_path / "alone"
    target.mkdir()
    put(alone)
    with pytest.raises(CheckpointError, match=rf"^{target}: expected a new or empty directory, found "):
        write(target, lambda: put(target))
    assert picture(target) == picture(alone)
    assert listing(tmp_path) == ["alone", "model"]


def change_config(target):
    (target / "config.json").write_text("my own")


def write_weights_again(target):
    """The size stays as it is."""
    file = min(target.glob("*.safetensors"))
    file.write_bytes(bytes(file.stat().st_size))


def replace_by_link(target):
    (target / "config.json").rename(target.parent / "moved")
    (target / "config.json").symlink_to(target.parent / "moved")


def remove_record(target):
    (target / RECORD).unlink()


@pytest.mark.parametrize("when", ["before", "meanwhile"])
@pytest.mark.parametrize(
    "put", [put_notes, put_repository, change_config, write_weights_again, replace_by_link, remove_record]
)
def test_only_what_dsv4_wrote_is_overwritten(tmp_path, put, when):
    target = tmp_path / "model"
    write(target)
    seen = {}

    def change():
        put(target)
        seen.update(picture(target))

    if when == "before":
        change()
    with pytest.raises(
        CheckpointError, match=rf"^{target}: expected a new or empty directory or only files that dsv4 wrote"
    ):
        write(target, change if when == "meanwhile" else None, overwrite=True)
    assert picture(target) == seen
    assert [name for name in listing(tmp_path) if name != "moved"] == ["model"]


def test_what_appears_at_the_last_moment_stays(tmp_path, monkeypatch):
    """A file is put where the old directory goes, after it was looked at for the last time."""
    target = tmp_path / "model"
    write(target)
    remove_own = targets.remove_own

    def put_first(old):
        put_notes(old)
        remove_own(old)

    monkeypatch.setattr(targets, "remove_own", put_first)
    with pytest.raises(
        CheckpointError, match=r"written, but the old directory could not be removed: .*; the rest is in "
    ):
        write(target, overwrite=True)
    assert_holds(Checkpoint.open(target), TENSORS)
    (old,) = [path for path in tmp_path.iterdir() if path.name != "model"]
    assert listing(old) == ["notes.txt"]


def test_a_record_that_names_files_elsewhere_removes_none(tmp_path):
    target, other = tmp_path / "model", tmp_path / "other.json"
    write(target)
    other.write_text("two years of work")
    found = other.stat()
    record = (target / RECORD).read_text()
    entry = f'"files": {{"../other.json": [{found.st_size}, {found.st_mtime_ns}],'
    (target / RECORD).write_text(record.replace('"files": {', entry))
    write(target, overwrite=True)
    assert listing(tmp_path) == ["model", "other.json"]


def test_of_writers_to_one_target_one_succeeds(tmp_path):
    start = Barrier(6)

    def attempt(number):
        start.wait()
        try:
            write(tmp_path / "model")
        except CheckpointError as error:
            return str(error)
        return "written"

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(attempt, range(6)))
    assert results.count("written") == 1
    assert all(result == "written" or ": expected " in result for result in results)
    assert listing(tmp_path) == ["model"]
    assert_holds(Checkpoint.open(tmp_path / "model"), TENSORS)


def test_writers_to_neighbouring_targets_do_not_meet(tmp_path):
    write(tmp_path / "one", lambda: write(tmp_path / "two"))
    assert listing(tmp_path) == ["one", "two"]


def test_a_writer_is_refused_while_another_is_at_work(tmp_path):
    messages = []

    def second():
        with pytest.raises(CheckpointError) as caught:
            write(tmp_path / "model")
        messages.append(str(caught.value))

    write(tmp_path / "model", second)
    found = "found .model.partial of another process"
    assert messages == [f"{tmp_path / 'model'}: expected no other process to write there, {found}"]
    assert_holds(Checkpoint.open(tmp_path / "model"), TENSORS)


def test_a_hidden_directory_of_somebody_else_stays(tmp_path):
    partial = tmp_path / ".model.partial"
    put_notes(partial)
    with pytest.raises(CheckpointError, match=rf"^{partial}: expected nothing of this name, found"):
        write(tmp_path / "model")
    (partial / RECORD).touch()  # a directory that dsv4 made, with a file that it did not write
    with pytest.raises(
        CheckpointError, match=rf"^{partial}: expected only files of a killed conversion, found notes.txt"
    ):
        write(tmp_path / "model")
    assert (partial / "notes.txt").read_text() == "two years of work"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".other.partial").symlink_to("elsewhere")
    with pytest.raises(CheckpointError, match=r"\.other\.partial: expected nothing of this name, found"):
        write(tmp_path / "other")
    assert listing(tmp_path / "elsewhere") == []


def put_parts(partial):
    """What a training run that was killed in its begin leaves."""
    for name in ("states/0.safetensors", "states/.0.partial", ".model.partial/config.json"):
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).touch()


def test_what_a_killed_process_has_left_is_cleared_with_its_directories(tmp_path):
    put_parts(tmp_path / ".model.partial")
    (tmp_path / ".model.partial" / RECORD).touch()
    write(tmp_path / "model")
    assert listing(tmp_path) == ["model"]
    assert_holds(Checkpoint.open(tmp_path / "model"), TENSORS)


@pytest.mark.parametrize("name", ["states/notes.txt", "notes/state.json"])
def test_what_no_process_of_ours_can_have_left_is_not(tmp_path, name):
    partial = tmp_path / ".model.partial"
    put_parts(partial)
    (partial / RECORD).touch()
    (partial / name).parent.mkdir(exist_ok=True)
    (partial / name).touch()
    seen = picture(partial)
    with pytest.raises(
        CheckpointError, match=rf"^{partial}: expected only files of a killed conversion, found .*notes"
    ):
        write(tmp_path / "model")
    assert picture(partial) == seen


def test_a_failure_leaves_no_directories(tmp_path):
    with pytest.raises(RuntimeError), targets.built_beside(tmp_path / "run", overwrite=False) as partial:
        put_parts(partial)
        raise RuntimeError
    assert listing(tmp_path) == []


def test_directories_are_never_overwritten(tmp_path):
    """No record says what is in them."""
    target = tmp_path / "run"
    with targets.built_beside(target, overwrite=False) as partial:
        (partial / "states").mkdir()
    with pytest.raises(CheckpointError, match=rf"^{target}: expected a new or empty directory or .*, found states"):
        write(target, overwrite=True)
    assert listing(target / "states") == []


@pytest.mark.parametrize("name", [".", "../here", "../link", "sub/.."])
def test_the_current_directory_is_not_replaced(tmp_path, monkeypatch, name):
    """A shell that stands in it would stand in a directory that is gone."""
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to("here")
    monkeypatch.chdir(tmp_path / "here")
    before = Path().stat().st_ino
    with pytest.raises(
        CheckpointError, match=r"here: expected a directory that can be replaced, found the current one"
    ):
        write(name)
    assert Path().stat().st_ino == (tmp_path / "here").stat().st_ino == before
    assert listing(tmp_path) == ["here", "link"]


def test_a_mount_point_is_found_out_before_the_work_starts(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    command = ["mount", "--bind", target, target]  # which is even on the same file system
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        with pytest.raises(CheckpointError, match=r"expected a directory that can be replaced, found a mount point"):
            write(target, lambda: pytest.fail("the work has started"))
        assert listing(tmp_path) == ["model"]
    finally:
        subprocess.run(["umount", target], check=True)


def test_a_link_is_followed_and_an_empty_directory_passes_on_its_mode(tmp_path):
    place = tmp_path / "disk"
    place.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(place)
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert_holds(Checkpoint.open(place), TENSORS)
    (tmp_path / "dangling").symlink_to("new")
    write(tmp_path / "dangling")
    assert_holds(Checkpoint.open(tmp_path / "new"), TENSORS)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("n" * 300, "File name too long"),
        ("loop", "found a link that leads to itself"),
        ("loop/model", "Too many levels of symbolic links|Not a directory|File exists"),
        ("file/model", "Not a directory|File exists"),
        ("/", "the root"),
        ("/proc/model", "found: "),
    ],
)
def test_places_that_cannot_be_are_named(tmp_path, name, found):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=rf": expected .*{found}"):
        write(tmp_path / name)
    assert listing(tmp_path) == ["file", "loop"]


def test_a_full_disk_leaves_what_was_there(tmp_path):
    target = tmp_path / "model"
    write(target)
    seen = picture(target)
    with (
        full_disk(),
        pytest.raises(CheckpointError, match=rf"^{target}: expected files that can be written, found: File too large"),
    ):
        write(target, overwrite=True)
    assert picture(target) == seen
    assert listing(tmp_path) == ["model"]
