"""Single files that are written: whole or not at all, and one line where that cannot be."""

import stat

import numpy as np
import pytest

from dsv4.checkpoint.atomic import replacing
from dsv4.errors import SettingError
from dsv4.verify import write_results
from full_disk import full_disk
from tiny_checkpoint import listing

ARRAY = np.ones(100_000)


def save_array(path):
    """As `dsv4 logits` does; NumPy says how much it wrote and not why it was no more."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, ARRAY)


def save_bytes(path):
    with replacing(path) as temporary:
        temporary.write_bytes(ARRAY.tobytes())


def save_results(path):
    """As `dsv4 verify --save` does, through the safetensors library and its own error."""
    write_results(path, {"array": ARRAY})


SAVERS = [save_array, save_bytes, save_results]


@pytest.mark.parametrize("save", SAVERS)
def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path, save):
    path = tmp_path / "result"
    path.write_text("before")
    with (
        full_disk(),
        pytest.raises(SettingError, match=rf"^{path}: expected a file that can be written, found: ") as caught,
    ):
        save(path)
    assert any(
        word in str(caught.value) for word in ("File too large", "cut short, as on a full disk (100000 requested and")
    )
    assert "\n" not in str(caught.value)
    assert path.read_text() == "before"
    assert listing(tmp_path) == ["result"]


@pytest.mark.parametrize("save", SAVERS)
def test_a_new_file_appears_when_it_is_whole(tmp_path, save):
    save(tmp_path / "result")
    assert (tmp_path / "result").stat().st_size >= ARRAY.nbytes
    assert listing(tmp_path) == ["result"]
    (tmp_path / "plain").touch()
    assert (tmp_path / "result").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_that_is_replaced_passes_on_who_may_read_it(tmp_path):
    path = tmp_path / "result"
    path.touch(mode=0o600)
    save_bytes(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == ARRAY.tobytes()


def test_links_are_followed(tmp_path):
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "dangling").symlink_to("new")
    for name in ("link", "dangling"):
        save_bytes(tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_bytes() == ARRAY.tobytes()
    assert listing(tmp_path) == ["dangling", "link", "new", "target"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("n" * 300, "found: File name too long"),
        ("loop", "found a link to itself"),
        ("loop/result", "found: "),
        ("file/result", "found: Not a directory"),
        ("none/result", "found: No such file or directory"),
        ("", "found a directory"),
        ("/dev/full", "found a device or pipe"),
        ("/proc/result", "found: "),
    ],
)
def test_places_that_cannot_be_are_named(tmp_path, name, found):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match=rf": expected a file (that can be written|to write), {found}"):
        save_bytes(tmp_path / name)
    assert listing(tmp_path) == ["file", "loop"]


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127])
def test_the_longest_names_that_a_file_can_have(tmp_path, name):
    """The temporary name is no longer."""
    save_bytes(tmp_path / name)
    assert listing(tmp_path) == [name]
