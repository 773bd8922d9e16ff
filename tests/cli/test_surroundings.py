"""What the command says about its surroundings: errors of the system, files that are none, and its own mistakes."""

import errno
import json
import os
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from command import is_one_line, runner
from dsv4 import TokenizerError, backends, bundled_model
from dsv4.backends import VARIABLE
from dsv4.cli import files
from dsv4.cli.ending import end
from dsv4.text.tokenizer import Tokenizer

SMALL = Path(__file__).parents[1] / "data" / "golden" / "small"


@pytest.fixture
def dsv4(monkeypatch, capfd):
    monkeypatch.setenv(VARIABLE, "numpy")
    return runner(monkeypatch, capfd)


def test_a_warning_is_one_line(dsv4, monkeypatch) -> None:
    def fail():
        raise ImportError("Numba needs another NumPy")

    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(backends, "_has_numba", lambda: True)
    monkeypatch.setitem(sys.modules, "dsv4_accel.numba", SimpleNamespace(NumbaOps=fail))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        status, out, err = dsv4("generate", "ROMEO.", "-n", 2)
    assert status == 0
    assert out.startswith("ROMEO.")
    assert is_one_line(err)
    assert err.endswith("found ImportError: Numba needs another NumPy; using numpy instead\n")


class PanicException(BaseException):
    """As libraries in Rust raise it."""


REPORTED = "the operating system reported an error"
ENDINGS = {
    "no memory": (MemoryError(), "not enough memory: an allocation failed"),
    "no memory for an array": (MemoryError("Unable to allocate 7 GiB"), "not enough memory: Unable to allocate 7 GiB"),
    "no file name": (OSError(errno.ENOMEM, "Cannot allocate memory"), f"{REPORTED}: Cannot allocate memory"),
    "no reason": (OSError(), f"{REPORTED}: OSError"),
    "only words": (OSError("cut short"), f"{REPORTED}: cut short"),
    "a file": (OSError(errno.EIO, "Input/output error", "some/file"), "some/file: Input/output error"),
    "no thread": (RuntimeError("can't start new thread"), "the operating system allows no further threads"),
    "nesting": (RecursionError("maximum recursion depth"), "the input is nested too deeply: maximum recursion depth"),
    "a panic": (PanicException("index out of\nbounds"), "a library failed on this input: index out of bounds"),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_what_the_surroundings_refuse_is_one_line_and_exit_status_2(case, capsys) -> None:
    error, expected = ENDINGS[case]
    assert end(error) == 2
    err = capsys.readouterr().err
    assert is_one_line(err)
    assert err.startswith(f"dsv4: {expected}")


@pytest.mark.parametrize("terminal", [True, False])
def test_ctrl_c_ends_with_a_new_line_on_a_terminal(capsys, monkeypatch, terminal) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert end(KeyboardInterrupt()) == 130
    assert capsys.readouterr() == ("", "\n" if terminal else "")


@pytest.mark.parametrize("mistake", [ZeroDivisionError("division"), RuntimeError("odd"), KeyError("gone")])
def test_a_mistake_of_ours_has_a_traceback_and_a_status_of_its_own(dsv4, monkeypatch, mistake) -> None:
    def fail():
        raise mistake

    monkeypatch.setattr(files, "bundled_model", fail)
    status, out, err = dsv4("inspect")
    assert (status, out) == (70, "")
    assert err.startswith("dsv4: this is a bug in dsv4; please report it")
    assert "in fail" in err
    assert err.rstrip().endswith(f"{type(mistake).__name__}: {mistake}")


def test_help_lists_the_exit_statuses(dsv4) -> None:
    status, out, _ = dsv4("--help")
    assert status == 0
    words = " ".join(out.split())
    assert "Exit status: 0 on success, 1 if verify found a difference that is too large or bench" in words
    assert "70 after a bug" in words
    assert "130 after Ctrl-C" in words


@pytest.mark.parametrize("columns", ["0", "1", "-3", "wide"])
def test_help_fits_whatever_the_terminal_says_of_itself(dsv4, monkeypatch, columns) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "dumb")
    for command in ([], ["verify"], ["generate"]):
        status, out, err = dsv4(*command, "--help")
        assert (status, err) == (0, "")
        assert "--help" in out
        assert "\x1b" not in out


KINDS = ("missing", "directory", "file", "empty", "loop", "below a file", "a name too long")


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_says_in_one_line_what_it_cannot_read_or_write(dsv4, kind, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("directory").mkdir()
    Path("file").write_text("{no json")
    Path("empty").touch()
    Path("loop").symlink_to("loop")
    Path("ids.json").write_text("[1, 2]")
    before = sorted(tmp_path.iterdir())
    path = {"below a file": "file/x", "a name too long": "n" * 300}.get(kind, kind)
    reads = [
        ["inspect", path],
        ["cost", path],
        ["cost", "--baseline", path],
        ["generate", "x", "-m", path],
        ["chat", path],
        ["convert", path, "out"],
        ["logits", path, "--ids", "ids.json", "--out", "o.npy"],
        ["logits", "--ids", path, "--out", "o.npy"],
        ["verify", path, "--against", "numpy"],
        ["verify", SMALL, "--expected", path],
        ["verify", SMALL, "--save", "s", "--ids", path],
    ]
    writes = [["logits", "--ids", "ids.json", "--out", path], ["verify", SMALL, "--length", "2", "--save", path]]
    writable = kind in ("missing", "file", "empty")
    for arguments in reads if writable else reads + writes:
        status, out, err = dsv4(*arguments)
        assert (status, out) == (2, ""), arguments
        assert is_one_line(err), (arguments, err)
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_may_not_be_read_is_one_line(dsv4, tmp_path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    locked = tmp_path / "locked.json"
    locked.write_text("[1]")
    locked.chmod(0)
    for arguments in (["inspect", locked], ["logits", "--ids", locked, "--out", tmp_path / "o"]):
        status, _, err = dsv4(*arguments)
        assert status == 2
        assert is_one_line(err)
        assert "Permission denied" in err


def test_json_is_whole_or_not_there(dsv4) -> None:
    """A prompt that cannot be continued leaves no half of the others' report."""
    status, out, err = dsv4("generate", "ROMEO.", "", "JULIET.", "-n", 2, "--json")
    assert (status, out) == (2, "")
    assert is_one_line(err)


def with_tokenizer(directory: Path, **changes) -> Path:
    """The bundled model with another tokenizer.json; entries of its model are given by "model"."""
    for file in bundled_model().iterdir():
        if file.suffix in (".json", ".safetensors"):
            (directory / file.name).symlink_to(file)
    data = json.loads((bundled_model() / "tokenizer.json").read_text(encoding="utf-8"))
    data |= changes | {"model": data["model"] | changes.get("model", {})}
    (directory / "tokenizer.json").unlink()
    (directory / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    return directory


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
BACKTRACKING = {"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": False}
PANICS = {
    "a prefix that is in no token": {"model": {"continuing_subword_prefix": "##########"}},
    "a map of characters that is none": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "pieces without length": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "a pattern that backtracks": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BACKTRACKING, BYTES]}},
}


@pytest.mark.parametrize("case", PANICS)
def test_a_tokenizer_over_which_its_library_panics_is_one_line(dsv4, tmp_path, case) -> None:
    directory = with_tokenizer(tmp_path, **PANICS[case])
    with pytest.raises(TokenizerError, match="expected a tokenizer that can"):
        Tokenizer.from_file(directory).encode("x" * 60)
    status, out, err = dsv4("generate", "x" * 60, "-m", directory, "-n", 1)
    assert (status, out) == (2, "")
    assert is_one_line(err)
    assert err.startswith(f"dsv4: {directory / 'tokenizer.json'}: expected a tokenizer that can")
