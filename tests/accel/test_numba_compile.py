"""Kernels are compiled once: kept on disk, compiled anew after any change, and each time where no disk keeps them."""

import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from accel.kernels import all_kernels
from accel.processes import SOURCES, report_of, run_python
from dsv4.ops import formats

pytest.importorskip("numba")

CALLS = """
import json, sys, warnings
from numba.core import event

def compiled(recorder):
    names = [e.data["dispatcher"].py_func.__name__ for _, e in recorder.buffer if e.is_start]
    return sorted({name for name in names if name in ("_normalise_rows", "_round_rows")})

with event.install_recorder("numba:compile") as recorder, warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import numpy as np
    from dsv4_accel.numba import NumbaOps
    BEFORE_CALLS
    x = np.sin(np.arange(512 * 512)).astype(np.float32).reshape(512, 512)
    results = [NumbaOps.rms_norm(x[:2], x[0], 1e-6), NumbaOps.fake_quant_fp8(x[:2], 64), NumbaOps.rms_scale(x, 1e-6)]
from dsv4.ops import Ops
assert np.allclose(results[0], Ops.rms_norm(x[:2], x[0], 1e-6), rtol=1e-5, atol=0)
assert np.array_equal(results[1], Ops.fake_quant_fp8(x[:2], 64))
assert np.allclose(results[2], Ops.rms_scale(x, 1e-6), rtol=1e-5, atol=0)
print(json.dumps({"compiled": compiled(recorder), "events": len(recorder.buffer),
                  "warnings": [[one.category.__name__, str(one.message)] for one in caught]}))
"""
"""Two kernels in three forms; results that are wrong are an error. `caught` holds all warnings."""

FORMATS = Path(formats.__file__)

BOTH = ["_normalise_rows", "_round_rows"]
ANNOUNCEMENT = "dsv4: compiling the Numba kernels, once for this machine …\n"
NOT_KEPT = "dsv4: found no directory to keep compiled kernels in"


def run(before_calls="", sources=SOURCES, **variables):
    """What the calls reported, and what was said on standard error. before_calls: code behind the import"""
    process = run_python(CALLS.replace("BEFORE_CALLS", before_calls), sources, **variables)
    return report_of(process), process.stderr


@pytest.fixture
def copied(tmp_path):
    """Source roots with a copy of the accelerated package, which may be changed."""
    package = SOURCES[1] / "dsv4_accel"
    shutil.copytree(package, tmp_path / "accel" / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    return [tmp_path / "accel", *SOURCES]


@pytest.fixture
def nowhere(tmp_path, copied):
    """Variables and source roots with which no directory can be written, not even by root: each is below a file."""
    file = tmp_path / "file"
    file.touch()
    (copied[0] / "dsv4_accel" / "numba" / "__pycache__").touch()
    places = dict.fromkeys(
        ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME", "LOCALAPPDATA", "IPYTHONDIR"), str(file / "below")
    )
    return places | {"sources": copied, "PYTHONDONTWRITEBYTECODE": "1"}


def test_the_second_process_compiles_nothing(tmp_path):
    """A directory that is not there yet is made, and holds all that the second process needs."""
    place = str(tmp_path / "not" / "there" / "yet")
    first, said = run(NUMBA_CACHE_DIR=place)
    assert (first["compiled"], first["warnings"], said) == (BOTH, [], ANNOUNCEMENT)
    second, said = run(NUMBA_CACHE_DIR=place)
    assert (second["events"], second["warnings"], said) == (0, [], "")


def test_settings_have_machine_code_of_their_own(tmp_path):
    place = {"NUMBA_CACHE_DIR": str(tmp_path)}
    settings = [{}, {"DSV4_NUMBA_PORTABLE": "1"}, {"NUMBA_BOUNDSCHECK": "1"}]
    assert [run(**place, **setting)[0]["compiled"] for setting in settings] == [BOTH] * 3
    assert [run(**place, **setting)[0]["events"] for setting in settings] == [0] * 3


def test_a_change_of_a_source_compiles_its_kernels_anew(tmp_path, copied):
    """Also of a file that the kernel's own file only imports, and of no file that it does not."""
    place = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "sources": copied, "PYTHONDONTWRITEBYTECODE": "1"}
    assert run(**place)[0]["compiled"] == BOTH
    assert run(**place)[0]["events"] == 0
    changed = copied[0] / "dsv4_accel" / "numba" / "vectors.py"
    source = changed.read_text(encoding="utf-8")
    assert "a · b + c, rounded once" in source
    changed.write_text(source.replace("a · b + c, rounded once", "a · b + c"), encoding="utf-8")
    assert run(**place)[0]["compiled"] == BOTH
    assert run(**place)[0]["events"] == 0
    for name, compiled in (("selection.py", []), ("norm.py", ["_normalise_rows"])):
        with (copied[0] / "dsv4_accel" / "numba" / name).open("a", encoding="utf-8") as file:
            file.write("# changed\n")
        assert run(**place)[0]["compiled"] == compiled


def test_constants_of_the_operations_belong_to_a_kernels_sources():
    """They are compiled in; a change of them must not leave the old kernel in use."""
    from dsv4_accel.numba import kernel_files, packed

    assert FORMATS in kernel_files._imported(Path(packed.__file__))


def test_without_a_place_to_keep_them_kernels_work_and_one_warning_says_so(nowhere):
    for _ in range(2):
        report, said = run(**nowhere)
        [[category, message]] = report["warnings"]
        assert category == "RuntimeWarning"
        assert message.startswith(NOT_KEPT)
        assert "NUMBA_CACHE_DIR" in message
        assert (report["compiled"], said) == (BOTH, ANNOUNCEMENT)


def test_a_place_that_is_lost_after_the_import_is_one_warning(tmp_path):
    replace = f"""
    import pathlib, shutil
    shutil.rmtree({str(tmp_path / "cache")!r})
    pathlib.Path({str(tmp_path / "cache")!r}).touch()
    """
    report, _ = run(replace, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    [[category, message]] = report["warnings"]
    assert (category, message.startswith(NOT_KEPT)) == ("RuntimeWarning", True)
    assert report["compiled"] == BOTH


DAMAGES = {
    "begins_with_zeros": lambda kept, _: bytes(4096) + kept[4096:],
    "has_zeros_inside": lambda kept, _: kept[:8192] + bytes(4096) + kept[12288:],
    "ends_with_zeros": lambda kept, _: kept[:-4096] + bytes(4096),
    "is_all_zeros": lambda kept, _: bytes(len(kept)),
    "is_cut": lambda kept, _: kept[: len(kept) // 2],
    "is_cut_within_the_digest": lambda kept, _: kept[:5],
    "is_empty": lambda kept, _: b"",
    "has_one_bit_changed": lambda kept, _: kept[:9000] + bytes([kept[9000] ^ 1]) + kept[9001:],
    "has_more_behind": lambda kept, _: kept + b"more",
    "is_another_kernel": lambda _, whole: whole,
}
"""What becomes of a kernel's file, by the name of the kernel; `whole` is the file of one that stays as it is."""

SMALL_KERNEL = """
@kernel(reads(types.float32, 1), writes(types.float32, 1))
def {name}(x, product):
    for i in range(x.size):
        product[i] = {factor} * x[i]
"""

SMALL_CALLS = """
import json
import numpy as np
from numba.core import event
import small_kernels

x, results = np.arange(1, 4, dtype=np.float32), {}
with event.install_recorder("numba:compile") as recorder:
    for name in NAMES:
        results[name] = np.empty_like(x)
        getattr(small_kernels, name)(1, x, results[name])
print(json.dumps({"compiled": [e.data["dispatcher"].py_func.__name__ for _, e in recorder.buffer if e.is_start],
                  "factors": {name: (result / x).tolist() for name, result in results.items()}}))
"""


def run_small(tmp_path):
    """What a process says of these kernels, each of which multiplies by the number of its place."""
    names = [*DAMAGES, "stays_whole"]
    kernels = [SMALL_KERNEL.format(name=name, factor=factor) for factor, name in enumerate(names, 2)]
    head = "from numba import types\nfrom dsv4_accel.numba.compile import kernel, reads, writes\n"
    (tmp_path / "small_kernels.py").write_text(head + "".join(kernels), encoding="utf-8")
    code = SMALL_CALLS.replace("NAMES", repr(names))
    process = run_python(code, [tmp_path, *SOURCES], NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    report = report_of(process)
    assert report["factors"] == {name: [factor] * 3 for factor, name in enumerate(names, 2)}
    return report["compiled"], process.stderr


def test_damaged_files_are_made_anew(tmp_path):
    """As a loss of power, a full disk or a copy that went wrong may leave them. Kernels that are whole are used."""
    assert run_small(tmp_path) == ([*DAMAGES, "stays_whole"], ANNOUNCEMENT)
    paths = {(path.name.split("-")[0].split(".")[1], path.suffix): path for path in (tmp_path / "cache").glob("*/*")}
    whole = [*DAMAGES, "stays_whole"]
    assert set(paths) == {(name, suffix) for name in whole for suffix in (".kernel", ".lock")}, (
        "nothing else lies there"
    )
    files = {name: paths[name, ".kernel"] for name in whole}
    for name, damage in DAMAGES.items():
        kept = files[name].read_bytes()
        damaged = damage(kept, files["stays_whole"].read_bytes())
        assert damaged != kept
        files[name].write_bytes(damaged)
    assert run_small(tmp_path) == (list(DAMAGES), ANNOUNCEMENT)
    assert run_small(tmp_path) == ([], "")


def test_two_processes_at_once_compile_each_kernel_once(tmp_path):
    with ThreadPoolExecutor() as pool:
        (first, _), (second, _) = pool.map(run_small, [tmp_path] * 2)
    assert sorted(first + second) == sorted([*DAMAGES, "stays_whole"])


def test_the_wait_for_another_process_has_an_end(tmp_path, monkeypatch):
    """It may have been stopped by its user."""
    import fcntl

    from dsv4_accel.numba import kernel_files

    files, waited = kernel_files.KernelFiles(tmp_path / "new", "kernel", "sources"), []
    with files.turn(lambda: waited.append(1)):
        assert not waited
    with (tmp_path / "new" / "kernel.lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        monkeypatch.setattr(kernel_files, "PATIENCE", 0.3)
        with files.turn(lambda: waited.append(1)):
            assert not waited  # nobody is told of a moment
        monkeypatch.setattr(kernel_files, "MOMENT", 0.1)
        with files.turn(lambda: waited.append(1)):
            assert waited


def test_a_file_that_could_not_be_finished_is_removed(tmp_path, monkeypatch):
    from dsv4_accel.numba.kernel_files import KernelFiles

    def full(path, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    files = KernelFiles(tmp_path, "kernel", "sources")
    with pytest.raises(OSError, match="No space left"):
        files.save("key", [1, 2])
    assert list(tmp_path.iterdir()) == []
    assert files.load("key") is None


def test_kernels_of_others_are_not_announced(tmp_path):
    own = """
    import numba
    NumbaOps.rms_norm(np.ones((1, 4), np.float32), np.ones(4, np.float32), 1e-6)
    numba.njit(lambda x: x + 1)(1)
    """
    run(own, NUMBA_CACHE_DIR=str(tmp_path))
    report, said = run(own, NUMBA_CACHE_DIR=str(tmp_path))
    assert (report["compiled"], said) == ([], "")
    assert report["events"] > 0, "of the other function"


def test_every_kernel_can_be_kept():
    """None warns when it is compiled, and the next process finds all of them on disk."""
    kernels = all_kernels()
    assert {"norm._normalise_rows", "mhc._mix", "rope._rope", "quantise._round_rows"} <= set(kernels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kernel in kernels.values():
            kernel.prepare()
    process = run_python(
        "import json\n"
        "from numba.core import event\n"
        "from accel.kernels import all_kernels\n"
        "with event.install_recorder('numba:compile') as recorder:\n"
        "    for kernel in all_kernels().values():\n"
        "        kernel.prepare()\n"
        "names = {one.data['dispatcher'].py_func.__name__ for _, one in recorder.buffer}\n"
        "print(json.dumps({'kernels': list(all_kernels()), 'compiled': sorted(names)}))"
    )
    assert report_of(process) == {"kernels": list(kernels), "compiled": []}
    assert process.stderr == ""
