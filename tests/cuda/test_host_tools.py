"""What stands for a GPU in the tests finds what it is there to find: each kernel here has one mistake."""

import numpy as np
import pytest

from cuda.host_array import HostArray
from cuda.host_build import compiler
from cuda.host_device import HostDevice
from dsv4_accel.cuda import compiler as compiler_for_gpus
from dsv4_accel.cuda import source

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler is installed")

PROGRAM = """
extern "C" __global__ void reverse(const float* x, float* out) {
    __shared__ float numbers[64];
    numbers[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = numbers[63 - threadIdx.x];
}
extern "C" __global__ void reverse_without_a_barrier(const float* x, float* out) {
    __shared__ float numbers[64];
    numbers[threadIdx.x] = x[threadIdx.x];
    out[threadIdx.x] = numbers[63 - threadIdx.x];
}
extern "C" __global__ void overwrite_without_a_barrier(const float* x, float* out) {
    __shared__ float numbers[64];
    numbers[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = numbers[63 - threadIdx.x];
    __syncwarp();
    numbers[threadIdx.x] = 0;
}
extern "C" __global__ void sum_in_any_order(const float* x, float* out) { *out += x[threadIdx.x]; }
extern "C" __global__ void last_block_wins(float* out) { *out = blockIdx.x; }
extern "C" __global__ void write_behind(const float* x, float* out) { out[threadIdx.x + 1] = x[threadIdx.x]; }
extern "C" __global__ void read_behind(const float* x, float* out) { out[threadIdx.x] = x[threadIdx.x + 1]; }
extern "C" __global__ void barrier_for_some(float* out) {
    if (threadIdx.x < 3) __syncthreads();
    else __syncwarp();
    *out = 0;
}
extern "C" __global__ void shuffle(const float* x, float* out, int distance) {
    out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], distance);
}
extern "C" __global__ void shuffle_after_some_left(const float* x, float* out) {
    if (threadIdx.x == 5) return;
    out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);
}
extern "C" __global__ void halve(const float* x, float* out) { out[threadIdx.x] = x[threadIdx.x] / 2; }
extern "C" __global__ void multiply(const float* numbers, float* out) {
    // a and b full of one bfloat16 each
    const unsigned left = __float_as_uint(numbers[0]) >> 16, right = __float_as_uint(numbers[1]) >> 16;
    const unsigned a[4] = {left * 0x10001u, left * 0x10001u, left * 0x10001u, left * 0x10001u};
    float sum[4] = {numbers[2], numbers[2], numbers[2], numbers[2]};
    host::multiply_add(sum, a, right * 0x10001u, right * 0x10001u);
    out[threadIdx.x] = sum[threadIdx.x / 8 % 4];
}
extern "C" __global__ void forget_the_last(float* out, bool all) {
    if (all || threadIdx.x + 1 < blockDim.x) out[threadIdx.x] = 1;
}
"""


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a kernel of the program with 64 threads per block, on arrays and numbers; gives the device back."""
    (tmp_path / "program.cu").write_text(PROGRAM, encoding="utf-8")
    monkeypatch.setattr(source, "DIRECTORY", tmp_path)
    device = HostDevice()

    def launch(name, *arguments, blocks=1):
        device.launch(source.kernels("program.cu")[name], (blocks,), 64, arguments)

    yield launch
    source.text.cache_clear()
    source.kernels.cache_clear()


def numbers(count=64) -> HostArray:
    return HostArray(np.arange(count, dtype=np.float32))


def nothing(count=64) -> HostArray:
    return HostArray(np.zeros(count, np.float32))


@needs_compiler
def test_threads_share_memory_and_wait(run):
    out = nothing()
    run("reverse", numbers(), out)
    np.testing.assert_array_equal(out.get(), np.arange(64)[::-1])


@needs_compiler
@pytest.mark.parametrize("distance", [1, 16, 31])
def test_lanes_exchange_numbers(run, distance):
    out = nothing()
    run("shuffle", numbers(), out, distance)
    np.testing.assert_array_equal(out.get(), np.arange(64) ^ distance)


@needs_compiler
def test_a_forgotten_barrier_is_found(run):
    with pytest.raises(AssertionError, match="reverse_without_a_barrier: out depends on the order"):
        run("reverse_without_a_barrier", numbers(), nothing())


@needs_compiler
def test_a_warp_that_is_ahead_is_found(run):
    """Its own lanes have waited for each other, but the other warp has not read yet."""
    with pytest.raises(AssertionError, match="overwrite_without_a_barrier: out depends on the order"):
        run("overwrite_without_a_barrier", numbers(), nothing())


@needs_compiler
def test_a_sum_in_the_order_of_threads_is_found(run):
    x = HostArray(np.array([1e8, *[1.0] * 63], np.float32))
    with pytest.raises(AssertionError, match="depends on the order"):
        run("sum_in_any_order", x, nothing(1))


@needs_compiler
def test_blocks_that_write_to_one_place_are_found(run):
    with pytest.raises(AssertionError, match="depends on the order"):
        run("last_block_wins", nothing(1), blocks=3)


@needs_compiler
def test_writing_behind_an_array_is_found(run):
    with pytest.raises(AssertionError, match="wrote before or behind out"):
        run("write_behind", numbers(), nothing())


@needs_compiler
def test_what_is_read_behind_an_array_is_nan(run):
    out = nothing()
    run("read_behind", numbers(), out)
    assert np.isnan(out.get()[-1])
    assert not np.isnan(out.get()[:-1]).any()


@needs_compiler
@pytest.mark.parametrize("name", ["barrier_for_some", "shuffle_after_some_left"])
def test_threads_that_wait_for_ever_are_found(run, name):
    arguments = (nothing(),) if name == "barrier_for_some" else (numbers(), nothing())
    with pytest.raises(AssertionError, match="wait for each other at different places"):
        run(name, *arguments)
    test_threads_share_memory_and_wait(run)  # and the next launch starts anew


@needs_compiler
@pytest.mark.parametrize("all_of_them", [True, False])
def test_a_number_that_is_not_written_is_nan(run, all_of_them):
    out = HostDevice().empty((64,), np.float32)
    run("forget_the_last", out, all_of_them)
    assert np.isnan(out.get()[-1]) != all_of_them


@needs_compiler
@pytest.mark.parametrize("blocks", [0, (1, 65536)])
def test_a_grid_that_no_gpu_runs_is_an_error(run, blocks):
    with pytest.raises(AssertionError, match="a grid has blocks on every axis, and not too many"):
        HostDevice().launch(
            source.kernels("program.cu")["last_block_wins"],
            blocks if isinstance(blocks, tuple) else (blocks,),
            1,
            [nothing(1)],
        )


@needs_compiler
@pytest.mark.parametrize("option", ["--ftz=false", "--ftz=true"])
def test_subnormal_numbers_are_zeros_where_the_options_ask_for_it(run, monkeypatch, option):
    smallest = np.finfo(np.float32).smallest_normal
    monkeypatch.setattr(compiler_for_gpus, "OPTIONS", (*compiler_for_gpus.OPTIONS, option))
    out = nothing()
    run("halve", HostArray(np.full(64, smallest)), out)
    assert out.get().tolist() == [0.0 if option == "--ftz=true" else float(smallest / 2)] * 64
    assert smallest / 2 > 0  # and here it is as it was


@needs_compiler
@pytest.mark.parametrize(
    ("left", "right", "sum_before", "expected"),
    [
        (1, 1, 0, 16),
        (1, 2.0**-25, 1, 1 + 2.0**-21),  # two bits below the last of 1, which is 2^−23: each of the 16 counts
        (1, 2.0**-26, 1, 1),  # a bit further: none does, though together they are 2^−22
        (1, 1.5 * 2.0**-25, 1, 1 + 2.0**-21),  # of each a half is cut
        (-1, 2.0**-26, 1, 1),
        (-1, 2.0**-25, 1, 1 - 2.0**-21),
        (1, 0.25, 2.0**24 - 1, 2.0**24 + 2),  # 2^24 + 3: the total is cut as well, not rounded
        (np.inf, 1, 5, np.inf),
        (np.inf, 0, 5, np.nan),
    ],
)
def test_a_tensor_core_cuts_what_it_adds(run, left, right, sum_before, expected):
    out = nothing()
    run("multiply", HostArray(np.array([left, right, sum_before], np.float32)), out)
    np.testing.assert_array_equal(out.get(), np.full(64, expected, np.float32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((numbers(),), "expected 3 arguments, found 1"),
        ((numbers(), HostArray(np.zeros(64)), 1), "expected out of float32, found float64"),
        ((numbers(128)[::2], nothing(), 1), "expected x without gaps"),
    ],
)
@needs_compiler
def test_arguments_that_do_not_fit_are_an_error(run, arguments, message):
    with pytest.raises(TypeError, match=f"shuffle: {message}"):
        run("shuffle", *arguments)


class TestHostArray:
    """The manners of CuPy."""

    def test_numpy_arrays_are_not_mixed_in(self):
        for mixed in (
            lambda: numbers() + np.ones(64, np.float32),
            lambda: np.where(np.ones(64, bool), numbers(), 0),
            lambda: np.concatenate([numbers(), np.ones(3, np.float32)]),
        ):
            with pytest.raises(TypeError, match=r"Unsupported type|numpy\.ndarray"):
                mixed()

    def test_nothing_becomes_a_numpy_array_unasked(self):
        with pytest.raises(TypeError, match="Implicit conversion"):
            np.asarray(numbers())

    def test_an_element_is_an_array_of_no_axes(self):
        assert isinstance(numbers()[3], HostArray)
        assert isinstance(numbers().sum(), HostArray)
        assert numbers()[3].shape == ()

    def test_what_comes_to_the_host_is_counted(self):
        HostArray.fetched = 0
        x = numbers()
        assert HostArray.fetched == 0
        assert float(x[3] + x[4]) == 7
        assert bool((x >= 0).all())
        assert HostArray.fetched == 2
        x.get()
        assert HostArray.fetched == 66

    def test_a_view_shares_memory_and_a_copy_does_not(self):
        x = numbers()
        x[2:4] = 0
        x.reshape(8, 8)[1] = -1
        assert x.get()[[2, 3, 8, 15, 16]].tolist() == [0, 0, -1, -1, 16]
        copy = x[2:4].copy()
        copy[...] = 5
        assert x.get()[2] == 0

    def test_functions_that_cupy_lacks_are_refused(self):
        pytest.importorskip("cupy")
        with pytest.raises(TypeError, match="CuPy has no function"):
            np.spacing(numbers())
        with pytest.raises(TypeError, match="initial"):
            np.max(numbers(), initial=0)
