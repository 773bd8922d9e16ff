"""Machine code is compiled with the options that the tests check, once, and is never taken from a damaged file."""

import types

import pytest

from dsv4.errors import BackendError
from dsv4_accel.cuda import compiler, device, source

FILE = "norm.cu"


class FakeNvrtc:
    """As CuPy's module, for a compiler whose machine code is a count of what it has compiled."""

    NVRTCError = type("NVRTCError", (RuntimeError,), {})

    def __init__(self):
        self.options, self.version, self.fails, self.open = [], (12, 9), False, 0

    def getVersion(self):  # noqa: N802
        return self.version

    def getSupportedArchs(self):  # noqa: N802
        return [80, 86, 90, 100]

    def createProgram(self, text, name, headers, include_names):  # noqa: N802
        self.open += 1
        return (text, name)

    def compileProgram(self, program, options):  # noqa: N802
        if self.fails:
            raise self.NVRTCError("NVRTC_ERROR_COMPILATION (6)")
        self.options.append(options)

    def getCUBIN(self, program):  # noqa: N802
        return b"code %d" % len(self.options)

    def getProgramLog(self, program):  # noqa: N802
        return f"{program[1]}(7): error: no"

    def destroyProgram(self, program):  # noqa: N802
        self.open -= 1


@pytest.fixture
def nvrtc(monkeypatch, tmp_path):
    monkeypatch.setenv(compiler.CACHE_VARIABLE, str(tmp_path / "kept" / "here"))
    fake = FakeNvrtc()
    yield fake
    assert fake.open == 0


def code(nvrtc, architecture="sm_90"):
    return compiler.machine_code(nvrtc, FILE, architecture).read_bytes()


def test_it_is_compiled_once(nvrtc):
    assert [code(nvrtc), code(nvrtc)] == [b"code 1", b"code 1"]
    assert nvrtc.options == [("--gpu-architecture=sm_90", *compiler.OPTIONS)]
    assert [path.suffix for path in compiler.cache_directory().iterdir()] == [".cubin"]


def test_it_is_compiled_anew_for_another_gpu_compiler_option_or_source(nvrtc, monkeypatch):
    assert code(nvrtc) == b"code 1"
    assert code(nvrtc, "sm_80") == b"code 2"
    nvrtc.version = (13, 0)
    assert code(nvrtc) == b"code 3"
    monkeypatch.setattr(compiler, "OPTIONS", (*compiler.OPTIONS, "-G"))
    assert code(nvrtc) == b"code 4"
    monkeypatch.setattr(source, "text", lambda file: "another")
    assert code(nvrtc) == b"code 5"


@pytest.mark.parametrize("damage", [b"", b"code", b"code 1 and more", b"Code 1"])
def test_a_damaged_file_is_compiled_anew(nvrtc, damage):
    compiler.machine_code(nvrtc, FILE, "sm_90").write_bytes(damage)
    assert code(nvrtc) == b"code 2"
    assert code(nvrtc) == b"code 2"


def test_a_place_that_cannot_be_written_is_no_error(nvrtc, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv(compiler.CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    assert code(nvrtc) == b"code 1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_what_the_compiler_says_is_the_error(nvrtc):
    nvrtc.fails = True
    with pytest.raises(RuntimeError, match=r"^norm\.cu: NVRTC_ERROR_COMPILATION \(6\): norm\.cu\(7\): error: no$"):
        code(nvrtc)


@pytest.mark.parametrize(
    ("capability", "architecture"),
    [("80", "sm_80"), ("86", "sm_86"), ("89", "sm_86"), ("90", "sm_90"), ("103", "sm_100")],
)
def test_the_newest_that_the_gpu_runs(nvrtc, capability, architecture):
    assert compiler.architecture_for(nvrtc, capability) == architecture


def test_a_gpu_that_the_compiler_does_not_know(nvrtc):
    with pytest.raises(BackendError, match=r"^expected NVRTC that compiles for .* 12\.0, found 10\.0 as"):
        compiler.architecture_for(nvrtc, "120")


def test_a_device_runs_what_was_compiled_so(nvrtc, monkeypatch):
    """And does not ask CuPy to compile, which would add an option of its own."""
    loaded = []

    def raw_module(*, path):
        loaded.append(path)
        return types.SimpleNamespace(get_function=raw_kernel)

    def raw_kernel(name):
        function = types.SimpleNamespace(ptr=sorted(source.kernels(FILE)).index(name))
        return types.SimpleNamespace(name=name, kernel=function, max_dynamic_shared_size_bytes=49152)

    gpu = types.SimpleNamespace(attributes={"MultiProcessorCount": 132}, compute_capability="90")
    driver = types.SimpleNamespace(launchKernel=lambda *launch: started.append(launch[0]))
    stream, started = types.SimpleNamespace(ptr=0), []
    cuda = types.SimpleNamespace(nvrtc=nvrtc, Device=lambda: gpu, driver=driver, get_current_stream=lambda: stream)
    cupy = types.SimpleNamespace(cuda=cuda, RawModule=raw_module, zeros=lambda shape, dtype: None)
    monkeypatch.setattr(device, "require_gpu", lambda: cupy)
    gpus = device.CupyDevice()
    for name in sorted(source.kernels(FILE)):
        kernel = source.kernels(FILE)[name]
        gpus.launch(kernel, (1,), 32, [None if one.is_pointer else 1 for one in kernel.parameters])
    assert started == list(range(len(source.kernels(FILE))))
    assert loaded == [str(compiler.machine_code(nvrtc, FILE, "sm_90"))]
    assert nvrtc.options == [("--gpu-architecture=sm_90", *compiler.OPTIONS)]


def test_cupys_compiler_makes_machine_code(monkeypatch, tmp_path):
    """The real one, which needs no GPU."""
    cuda = pytest.importorskip("cupy").cuda
    try:
        cuda.nvrtc.getVersion()
    except RuntimeError as error:
        pytest.skip(f"CuPy has no NVRTC: {error}")
    monkeypatch.setenv(compiler.CACHE_VARIABLE, str(tmp_path))
    assert code(cuda.nvrtc, compiler.architecture_for(cuda.nvrtc, "90")).startswith(b"\x7fELF")
    monkeypatch.setattr(source, "text", lambda file: "no kernel")
    with pytest.raises(RuntimeError, match="error: "):
        code(cuda.nvrtc)
