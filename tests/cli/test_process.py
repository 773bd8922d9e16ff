"""The command as a process: its streams, its encoding, its memory, how it loads, and Ctrl-C at any time."""

import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from command import is_one_line
from dsv4.backends import VARIABLE

COMMAND = [sys.executable, "-c", "from dsv4_command import main; main()"]
LINUX = pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="needs signals that can be held back")


@pytest.fixture(autouse=True)
def reference(monkeypatch):
    monkeypatch.setenv(VARIABLE, "numpy")


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
    assert done.stderr.startswith("dsv4: not enough memory: Unable to allocate")


def start(directory: Path, cli: str, package: str = "") -> subprocess.Popen:
    """The command with another package in the place of dsv4."""
    (directory / "dsv4" / "cli").mkdir(parents=True)
    (directory / "dsv4" / "__init__.py").write_text(package)
    (directory / "dsv4" / "cli" / "__init__.py").write_text(cli)
    pipe, environment = subprocess.PIPE, os.environ | {"PYTHONPATH": str(directory)}
    return subprocess.Popen(COMMAND, stdout=pipe, stderr=pipe, text=True, env=environment)


LOADING = {
    "a library that is not there": ("import no_such_library", 2, "dsv4: its modules cannot be loaded: Module"),
    "pages of advice": ("raise ImportError('\\n\\nREAD THIS') from OSError('cannot map it')", 2, "OSError: cannot map"),
    "no memory": ("raise MemoryError", 2, "its modules cannot be loaded: MemoryError\n"),
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


LOST = {
    "in a finaliser": "class Kept:\n    def __del__(self): raise_signal(SIGINT)\nKept()",
    "in a callback": "kept = set()\nreference = ref(kept, lambda _: raise_signal(SIGINT))\ndel kept",
    "two times": "class Kept:\n    def __del__(self): raise_signal(SIGINT)\nKept()\nKept()",
}


@LINUX
@pytest.mark.parametrize("case", LOST)
def test_ctrl_c_is_not_lost_where_python_drops_errors(tmp_path, case) -> None:
    """Where it comes in a finaliser or in the callback of a weak reference, as the import of a module has them."""
    code = f"from signal import SIGINT, raise_signal\nfrom time import sleep\nfrom weakref import ref\n{LOST[case]}\n"
    body = textwrap.indent(f"{code}sleep(50)\nprint('ran')", "    ")
    process = start(tmp_path, f"def main():\n{body}")
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out, err) == (130, "", "")


@LINUX
def test_any_other_error_that_python_drops_is_shown(tmp_path) -> None:
    process = start(tmp_path, "class Kept:\n    def __del__(self): 1 / 0\ndef main(): Kept(); print('ran')")
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out) == (0, "ran\n")
    assert "ZeroDivisionError" in err


@LINUX
@pytest.mark.parametrize("delay", [1e-3, 0.2, 0.6])
def test_ctrl_c_ends_without_a_word_whenever_it_comes(delay) -> None:
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # also where the tests ignore it
    code = f"{heard}; import dsv4_command; print('started', flush=True); dsv4_command.main()"
    arguments = [sys.executable, "-c", code, "generate", "ROMEO.", "-n", "2000"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(arguments, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout.readline() == "started\n"
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(delay)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (130, "")
