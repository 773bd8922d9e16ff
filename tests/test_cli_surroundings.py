"""The command and what is around it: streams, signals, memory, encodings, files that are none, and its own mistakes."""

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import warnings
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dsv4 import SettingError, TokenizerError, backends, bundled_model, load
from dsv4.backends import GROUP, VARIABLE
from dsv4.bench.stage import NUMPY, OURS, Stage
from dsv4.cli import files, main
from dsv4.cli.ending import end
from dsv4.ops import Ops
from dsv4.tokenizer import Tokenizer
from dsv4.verify import compare

SMALL = Path(__file__).parent / "data" / "golden" / "small"
COMMAND = [sys.executable, "-c", "from dsv4_command import main; main()"]
LINUX = pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="needs signals that can be held back")


@pytest.fixture
def dsv4(monkeypatch, capfd):
    """Run the command in this process: arguments -> exit status, and what it and its libraries wrote to 1 and 2."""

    def run(*arguments):
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["dsv4", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capfd.readouterr()
        return stopped.value.code, printed.out, printed.err

    return run


@pytest.fixture(autouse=True)
def reference(monkeypatch):
    monkeypatch.setenv(VARIABLE, "numpy")


def is_one_line(err: str) -> bool:
    return err.startswith("dsv4: ") and err.count("\n") == 1 and err.endswith("\n")


class SlightlyWrong(Ops):
    """A backend that forgot its name, too."""

    @staticmethod
    def rms_norm(x, weight, eps):
        return Ops.rms_norm(x, weight, eps) * np.float32(1.01)


@pytest.fixture
def more_backends(monkeypatch):
    """Two more: NumPy's by another name, and one that computes something else."""
    values = {"alias": "dsv4.ops:Ops", "wrong": f"{__name__}:SlightlyWrong"}
    points = {name: EntryPoint(name, value, GROUP) for name, value in values.items()}
    known = backends._installed()
    monkeypatch.setattr(backends, "_installed", lambda: known | points)


@pytest.mark.parametrize(
    "arguments",
    [
        "--against numpy",
        "--against auto",
        "--against alias",
        "--backend numpy --against numpy",
        "--backend auto --against numpy",
        "--backend alias --against auto",
    ],
)
def test_verify_compares_no_backend_with_itself(dsv4, more_backends, arguments) -> None:
    status, out, err = dsv4("verify", SMALL, "--length", 3, *arguments.split())
    assert (status, out) == (2, "")
    assert err == "dsv4: verify: expected two different backends to compare, found numpy on both sides\n"


def test_verify_compares_with_the_reference_where_no_other_backend_is_named(dsv4, more_backends, monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, "wrong")
    status, out, _ = dsv4("verify", SMALL, "--length", 3, "--against", "wrong")
    assert status == 1
    assert "too far" in out
    assert dsv4("verify", SMALL, "--length", 3, "--against", "auto", "-b", "wrong")[0] == 2
    assert dsv4("verify", SMALL, "--length", 3, "--against", "auto")[0] == 1


def test_models_that_cannot_differ_are_not_compared() -> None:
    ids = np.arange(6)[None]
    model, twin = load(SMALL, "numpy"), load(SMALL, "numpy")
    with pytest.raises(SettingError, match="found numpy on both sides"):
        compare(model, twin, ids, 4)
    found = compare(model, load(SMALL, "numpy", dtype=np.float64), ids, 4)
    assert 0 < max(difference.relative for difference in found) < 1e-5


def test_bench_compares_a_backend_without_a_name_with_the_reference() -> None:
    def contestants(ops):
        return [name for name, _ in Stage.all_ops.fget(SimpleNamespace(ops=ops)).items()]

    assert contestants(SlightlyWrong()) == [OURS, NUMPY]
    assert contestants(Ops()) == [NUMPY]


@pytest.mark.parametrize("tolerance", ["nan", "inf", "-1"])
def test_verify_refuses_a_tolerance_that_everything_or_nothing_meets(dsv4, tolerance) -> None:
    status, _, err = dsv4("verify", SMALL, "--against", "numpy", f"--tolerance={tolerance}")
    assert (status, err) == (
        2,
        f"dsv4: --tolerance: expected a finite number of at least 0, found {float(tolerance)}\n",
    )


def test_verify_writes_json_also_of_what_is_no_number(dsv4, tmp_path) -> None:
    saved = tmp_path / "saved.safetensors"
    assert dsv4("verify", SMALL, "--save", saved, "--length", 30)[0] == 0
    results = load_file(saved)
    results["mtp.logits"][0, 0, 0] = np.inf
    save_file(results, saved)
    status, out, _ = dsv4("verify", SMALL, "--expected", saved, "--json")
    assert status == 1
    rows = {row["name"]: row for row in json.loads(out, parse_constant=pytest.fail)}
    assert rows["mtp.logits"]["relative"] is None
    assert rows["prefill.logits"]["relative"] < 1e-5


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


ENDINGS = {
    "no memory": (MemoryError(), "expected enough memory, found: no more"),
    "no memory for an array": (MemoryError("Unable to allocate 7 GiB"), "expected enough memory, found: Unable to al"),
    "no file name": (OSError(errno.ENOMEM, "Cannot allocate memory"), "the system refused: Cannot allocate memory"),
    "no reason": (OSError(), "the system refused: OSError"),
    "only words": (OSError("cut short"), "the system refused: cut short"),
    "a file": (OSError(errno.EIO, "Input/output error", "some/file"), "some/file: Input/output error"),
    "no thread": (RuntimeError("can't start new thread"), "expected to start another thread, found that the system"),
    "nesting": (RecursionError("maximum recursion depth"), "expected input that is not nested so deep, found: maximum"),
    "a panic": (
        PanicException("index out of\nbounds"),
        "expected input that a library can read, found: index out of b",
    ),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_what_the_surroundings_refuse_is_one_line_and_exit_status_2(case, capsys) -> None:
    error, expected = ENDINGS[case]
    assert end(error) == 2
    err = capsys.readouterr().err
    assert is_one_line(err)
    assert err.startswith(f"dsv4: {expected}")


@pytest.mark.parametrize("mistake", [ZeroDivisionError("division"), RuntimeError("odd"), KeyError("gone")])
def test_a_mistake_of_ours_has_a_traceback_and_a_status_of_its_own(dsv4, monkeypatch, mistake) -> None:
    def fail():
        raise mistake

    monkeypatch.setattr(files, "bundled_model", fail)
    status, out, err = dsv4("inspect")
    assert (status, out) == (70, "")
    assert err.startswith("dsv4: this is a mistake of dsv4 itself; please report it")
    assert "in fail" in err
    assert err.rstrip().endswith(f"{type(mistake).__name__}: {mistake}")


def test_help_lists_the_exit_statuses(dsv4) -> None:
    status, out, _ = dsv4("--help")
    assert status == 0
    words = " ".join(out.split())
    assert "Exit status: 0 if all went well, 1 if verify found a result too far off, 2 if" in words
    assert "70 after a mistake" in words
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


def shell(line: str, **variables: str) -> subprocess.Popen:
    """A process of its own that runs a line of the shell, in which `$dsv4` is the command."""
    environment = os.environ | {"dsv4": shlex.join(COMMAND), "PYTHONUNBUFFERED": ""} | variables
    pipe = subprocess.PIPE
    return subprocess.Popen(["bash", "-c", line], stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment)


FULL = "dsv4: standard output: No space left on device\n"
CLOSED = "dsv4: standard output: expected to write to it, found it closed\n"
STREAMS = {
    "no input": ("eval $dsv4 chat <&-", 2, "", "dsv4: standard input: expected a line for each message, found it clo"),
    "no output": ("eval $dsv4 inspect >&-", 2, "", CLOSED),
    "no errors": ("eval $dsv4 inspect /no/such/place 2>&-", 2, "", ""),
    "nothing at all": ("eval $dsv4 <&- >&- 2>&-", 2, "", ""),
    "a full disk": ("eval $dsv4 inspect >/dev/full", 2, "", FULL),
    "a full disk, text in pieces": ("eval $dsv4 generate ROMEO. -n 2 >/dev/full", 2, "", FULL),
    "a full disk for errors": ("eval $dsv4 inspect /no/such/place 2>/dev/full", 2, "", ""),
    "a reader that has gone": ("eval $dsv4 inspect | true; exit ${PIPESTATUS[0]}", 128 + signal.SIGPIPE, "", ""),
    "another way to start": (f"'{sys.executable}' -m dsv4 --version", 0, "dsv4 ", ""),
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_streams_that_are_closed_full_or_left_alone() -> None:
    running = {case: shell(line) for case, (line, *_) in STREAMS.items()}
    for case, process in running.items():
        out, err = (text.decode() for text in process.communicate(timeout=100))
        _, status, expected_out, expected_err = STREAMS[case]
        assert process.returncode == status, (case, err)
        assert out.startswith(expected_out), case
        assert err.startswith(expected_err), case
        assert bool(err) == bool(expected_err), (case, err)
        assert bool(out) == bool(expected_out), (case, out)


def test_text_survives_every_locale_and_encoding() -> None:
    """In ASCII, what it lacks is escaped as in JSON; where only the locale is ASCII, all is UTF-8."""
    text = "Größe🙂"
    generate = f"eval $dsv4 generate '{text}' -n 1 -t 0 --json"
    running = {
        "ascii": shell(generate, PYTHONIOENCODING="ascii"),
        "utf-8": shell(generate, LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING=""),
    }
    for encoding, process in running.items():
        out, err = process.communicate(timeout=100)
        assert (process.returncode, err) == (0, b"")
        assert json.loads(out.decode(encoding))["results"][0]["prompt"] == text


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs to know how much memory it has")
def test_too_little_memory_is_one_line() -> None:
    code = """if True:
        import resource, pathlib, numpy as np, dsv4_command, dsv4.cli
        np.ones((600, 600), np.float32) @ np.ones((600, 600), np.float32)  # OpenBLAS takes its memory
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**26,) * 2)
        dsv4_command.main()
    """
    arguments = ["verify", "--save", "/nowhere/at/all", "--length", "2048"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert is_one_line(done.stderr)
    assert done.stderr.startswith("dsv4: expected enough memory, found: Unable to allocate")


def start(directory: Path, cli: str, package: str = "") -> subprocess.Popen:
    """The command with another package in the place of dsv4."""
    (directory / "dsv4" / "cli").mkdir(parents=True)
    (directory / "dsv4" / "__init__.py").write_text(package)
    (directory / "dsv4" / "cli" / "__init__.py").write_text(cli)
    pipe, environment = subprocess.PIPE, os.environ | {"PYTHONPATH": str(directory)}
    return subprocess.Popen(COMMAND, stdout=pipe, stderr=pipe, text=True, env=environment)


LOADING = {
    "a library that is not there": ("import no_such_library", 2, "dsv4: expected to load its modules, found Module"),
    "pages of advice": ("raise ImportError('\\n\\nREAD THIS') from OSError('cannot map it')", 2, "OSError: cannot map"),
    "no memory": ("raise MemoryError", 2, "found MemoryError"),
    "a mistake": ("1 / 0", 70, "ZeroDivisionError"),
}


@pytest.mark.parametrize("case", LOADING)
def test_what_hinders_loading_is_one_line(tmp_path, case) -> None:
    package, status, expected = LOADING[case]
    process = start(tmp_path, "", package)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out) == (status, "")
    assert expected in err
    assert is_one_line(err) == (status == 2)


@LINUX
def test_openblas_without_threads_is_refused(tmp_path) -> None:
    """It raises SIGINT where the system gives it no thread, and its products would wait for ever."""
    process = start(tmp_path, "def main(): print('ran')", "import signal; signal.raise_signal(signal.SIGINT)")
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out) == (2, "")
    assert is_one_line(err)
    assert "OpenBLAS" in err


@LINUX
def test_ctrl_c_while_loading_ends_without_a_word(tmp_path) -> None:
    waits = "import time; print('loading', flush=True); time.sleep(1); print('loaded', flush=True)"
    process = start(tmp_path, "def main(): print('ran')", waits)
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out, err) == (130, "loaded\n", "")


@LINUX
def test_ctrl_c_ends_without_a_word_whenever_it_comes() -> None:
    code = "import dsv4_command; print('started', flush=True); dsv4_command.main()"
    arguments = [sys.executable, "-c", code, "generate", "ROMEO.", "-n", "2000"]
    pipe = subprocess.PIPE
    running = [subprocess.Popen(arguments, stdout=pipe, stderr=pipe, text=True) for _ in range(3)]
    for process in running:
        assert process.stdout.readline() == "started\n"
    for process, delay in zip(running, (0, 0.2, 0.6), strict=True):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(delay or 1e-3)
        process.send_signal(signal.SIGINT)
    for process in running:
        _, err = process.communicate(timeout=100)
        assert (process.returncode, err) == (130, "")
