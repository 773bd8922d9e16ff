"""The operations on rows, at shapes at which each of their kernels takes all of its ways."""

from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest

from cuda.host_build import compiler
from cuda.host_device import HostDevice
from dsv4.ops import Ops, formats
from dsv4_accel.cuda import CudaOps, source
from verdicts import as_good, exact, in_dtype

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler is installed")

FILES = ("quantise.cu", "norm.cu", "rope.cu", "hadamard.cu", "compressor.cu", "mhc.cu", "mhc_streams.cu")


class Case(NamedTuple):
    """A call for a batch of some size: the arguments of the operation, the first of which have a row for each."""

    operation: str
    kernels: tuple[str, ...]
    """What is launched for the whole batch."""
    arguments: tuple
    per_row: int


def numbers(g, *shape):
    return g.standard_normal(shape).astype(np.float32)


def rounding(number_format, kernel, batch, width, *block):
    def make(g):
        x = numbers(g, batch, 2, width) * np.exp2(np.round(9 * numbers(g, batch, 2, width)))
        return Case(f"fake_quant_{number_format}", (kernel,), (np.where(np.abs(x) < 1e-6, -0.0 * x, x), *block), 1)

    return make


def norm(kernel, batch, *shape, weight=np.float32):
    def make(g):
        x = numbers(g, batch, *shape)
        if weight is None:
            return Case("rms_scale", (kernel,), (x, 1e-6), 1)
        return Case("rms_norm", (kernel,), (x, numbers(g, shape[-1]).astype(weight), 1e-6), 1)

    return make


def rope(kernel, batch, length, heads, channels, pairs, positions=np.int64, frequencies=np.float64):
    def make(g):
        at = g.integers(-(2**20), 2**20, (batch, length)).astype(positions)
        turns = np.exp(-np.abs(numbers(g, pairs))).astype(frequencies)
        return Case("rope", (kernel,), (numbers(g, batch, length, *heads, channels), at, turns), 2)

    return make


def hadamard(kernel, batch, width):
    return lambda g: Case("hadamard", (kernel,), (numbers(g, batch, 3, width),), 1)


def compress(batch, slots, channels):
    def make(g):
        score = 3 * numbers(g, batch, 2, slots, channels)
        score[:, :, 3::8] = -np.inf  # all that one of eight warps sees
        return Case("compress", ("compress",), (numbers(g, batch, 2, slots, channels), score), 2)

    return make


def weights(kernels, tokens, n, channels):
    def make(g):
        rows = (2 + n) * n
        fn = numbers(g, rows, n * channels) / np.float32((n * channels) ** 0.5)
        rest = numbers(g, rows), numbers(g, 3), 20, 1e-6, 1e-6
        return Case("mhc_weights", kernels, (numbers(g, tokens, 1, n, channels), fn, *rest), 1)

    return make


def head_weights(project, tokens, n, channels):
    def make(g):
        fn = numbers(g, n, n * channels) / np.float32((n * channels) ** 0.5)
        given = numbers(g, tokens, 1, n, channels), fn, numbers(g, n), numbers(g, 1), 1e-6, 1e-6
        return Case("mhc_head_weights", (project, "mhc_head_weights"), given, 1)

    return make


def collapse(kernel, tokens, n, channels):
    return lambda g: Case("mhc_collapse", (kernel,), (numbers(g, tokens, 1, n, channels), numbers(g, tokens, 1, n)), 2)


def mix(kernel, tokens, n, channels):
    def make(g):
        streams, output = numbers(g, tokens, 1, n, channels), numbers(g, tokens, 1, channels)
        return Case("mhc_mix", (kernel,), (streams, output, numbers(g, tokens, 1, n), numbers(g, tokens, 1, n, n)), 4)

    return make


CASES = {
    "fp8 of an entry": rounding("fp8", "fake_quant_fp8_whole", 5, 448, 64),
    "fp8 in blocks of a warp": rounding("fp8", "fake_quant_fp8_whole", 3, 384, 128),
    "fp8 in blocks of a thread": rounding("fp8", "fake_quant_fp8_whole", 3, 12, 4),
    "fp8 in a block beyond the row": rounding("fp8", "fake_quant_fp8_whole", 3, 32, 128),
    "fp8 with a rest": rounding("fp8", "fake_quant_fp8", 3, 459, 64),
    "fp8 in odd blocks": rounding("fp8", "fake_quant_fp8", 5, 96, 12),
    "fp8 in blocks wider than a warp's": rounding("fp8", "fake_quant_fp8", 3, 700, 300),
    "fp4 of an index": rounding("fp4", "fake_quant_fp4_whole", 7, 128),
    "fp4 with a rest": rounding("fp4", "fake_quant_fp4", 3, 103),
    "norm of heads": norm("rms_norm_short", 3, 5, 512, weight=None),
    "norm of a warp's most": norm("rms_norm_short", 9, 1024),
    "norm of four": norm("rms_norm_short", 9, 4, weight=ml_dtypes.bfloat16),
    "norm of a block": norm("rms_norm_long", 9, 1028, weight=ml_dtypes.bfloat16),
    "norm of a block's most": norm("rms_norm_long", 9, 8192),
    "norm of few rows": norm("rms_norm_prepared", 2, 3, 260),
    "norm of few long rows": norm("rms_norm_prepared", 2, 4096, weight=ml_dtypes.bfloat16),
    "norm of more": norm("rms_norm", 2, 8196, weight=None),
    "norm of an odd width": norm("rms_norm", 3, 777),
    "norm of an odd width in bfloat16": norm("rms_norm", 3, 301, weight=ml_dtypes.bfloat16),
    "rope of one head": rope("rope_vectors", 3, 7, (), 512, 32),
    "rope of three heads": rope("rope_vectors", 2, 4, (3,), 64, 32, np.int32),
    "rope of many heads": rope("rope_vectors", 2, 2, (35,), 136, 32),
    "rope of an odd number of pairs": rope("rope", 3, 7, (2,), 20, 9, frequencies=np.float32),
    "rope of odd heads": rope("rope", 2, 2, (17,), 75, 37),
    "hadamard of an index": hadamard("hadamard_of_128", 7, 128),
    "hadamard of one": hadamard("hadamard", 3, 1),
    "hadamard of few": hadamard("hadamard", 100, 16),
    "hadamard of 1024": hadamard("hadamard", 3, 1024),
    "hadamard of 2048": hadamard("hadamard", 2, 2048),
    "compress of CSA": compress(3, 8, 300),
    "compress of HCA": compress(2, 128, 40),
    "compress of few for eight warps": compress(3, 32, 72),
    "compress of many for one warp": compress(3, 31, 33),
    "weights of a token": weights(("mhc_weights_few",), 1, 4, 1030),
    "weights of few": weights(("mhc_weights_few",), 31, 4, 33),
    "weights of many": weights(("mhc_project", "mhc_weights_of_four"), 43, 4, 300),
    "weights of many in three parts": weights(("mhc_project", "mhc_weights_of_four"), 32, 4, 515),
    "weights of one stream": weights(("mhc_project", "mhc_weights"), 33, 1, 36),
    "weights of three streams": weights(("mhc_project_odd", "mhc_weights"), 34, 3, 345),
    "weights of eight streams": weights(("mhc_project", "mhc_weights"), 35, 8, 20),
    "head's weights of few": head_weights("mhc_project_few", 3, 4, 300),
    "head's weights of many": head_weights("mhc_project", 33, 4, 300),
    "head's weights of five streams": head_weights("mhc_project_odd", 9, 5, 7),
    "collapse four": collapse("mhc_collapse_four", 3, 4, 1040),
    "collapse four of odd widths": collapse("mhc_collapse", 3, 4, 259),
    "collapse eight": collapse("mhc_collapse", 3, 8, 24),
    "mix four": mix("mhc_mix_four", 3, 4, 1040),
    "mix four of odd widths": mix("mhc_mix", 3, 4, 259),
    "mix seven": mix("mhc_mix", 3, 7, 24),
}
every_case = pytest.mark.parametrize("name", CASES)


@pytest.fixture(scope="module")
def backend():
    return CudaOps(HostDevice())


def case(name) -> Case:
    return CASES[name](np.random.default_rng(7))


def run(backend, operation, arguments) -> tuple:
    """The results as NumPy arrays, a tuple even of one."""
    placed = [backend.asarray(one) if isinstance(one, np.ndarray) else one for one in arguments]
    result = getattr(backend, operation)(*placed)
    return tuple(map(backend.to_numpy, result if isinstance(result, tuple) else (result,)))


def bits(arrays) -> list[bytes]:
    return [array.tobytes() for array in arrays]


def test_there_is_a_case_for_every_kernel():
    used = {kernel for name in CASES for kernel in case(name).kernels}
    elsewhere = {"compress_blocks"}  # takes positions: ops/test_compressor.py
    elsewhere |= {"norm_rope", "collapse_norm_prepared", "fake_quant_fp8_content"}  # ops/test_together.py
    assert used == {kernel for file in FILES for kernel in source.kernels(file)} - elsewhere


@every_case
def test_as_good_as_numpy(backend, name):
    operation, kernels, given, _ = case(name)
    backend.device.launched.clear()
    found = run(backend, operation, given)
    assert backend.device.launched == list(kernels)
    baseline = run(Ops(), operation, given)
    truth = run(Ops(), operation, in_dtype(given, np.float64))
    for one, wide, numpys in zip(found, truth, baseline, strict=True):
        assert one.dtype == np.float32
        if operation.startswith("fake_quant"):
            exact(one, numpys)
        else:
            as_good(one, wide, numpys)


@every_case
def test_a_row_has_the_same_bits_alone_and_among_others(backend, name):
    operation, _, given, per_row = case(name)
    whole = run(backend, operation, given)
    batch = len(given[0])
    for chosen in ([0], [batch - 1], range(batch // 2, batch), range(batch - 1, -1, -1)):
        rows = list(chosen)
        some = run(backend, operation, [one[rows] if at < per_row else one for at, one in enumerate(given)])
        assert bits(some) == bits(part[rows] for part in whole)


@pytest.mark.parametrize("name", [name for name in CASES if len(case(name).arguments[0]) > 1])
def test_a_row_of_nan_spoils_no_other(backend, name):
    operation, _, given, _ = case(name)
    whole = run(backend, operation, given)
    spoilt = given[0].copy()
    spoilt[1] = np.nan
    found = run(backend, operation, (spoilt, *given[1:]))
    others = [row for row in range(len(spoilt)) if row != 1]
    assert bits(part[others] for part in found) == bits(part[others] for part in whole)
    assert all(np.isnan(part[1]).all() for part in found)


@pytest.mark.parametrize("skipped", [1, 3, 4])
@every_case
def test_memory_with_gaps_or_off_a_vectors_bounds(backend, name, skipped):
    """A view of a wider array from some channel on, and numbers that begin between two vectors."""
    operation, _, given, _ = case(name)
    first = given[0]
    wider = np.concatenate([np.full((*first.shape[:-1], skipped), np.nan, np.float32), first], axis=-1)
    shifted = np.concatenate([np.full(skipped, np.nan, np.float32), first.reshape(-1)])
    expected = bits(run(backend, operation, given))
    rest = [backend.asarray(one) if isinstance(one, np.ndarray) else one for one in given[1:]]
    views = backend.asarray(wider)[..., skipped:], backend.asarray(shifted)[skipped:].reshape(first.shape)
    for view in views:
        result = getattr(backend, operation)(view, *rest)
        found = map(backend.to_numpy, result if isinstance(result, tuple) else (result,))
        assert bits(found) == expected


@pytest.mark.parametrize(
    ("operation", "magnitudes", "powers"),
    [
        ("fake_quant_fp8", formats.FP8_MAGNITUDES, (-22, -3, 0, 1, 60, 119)),
        ("fake_quant_fp4", formats.FP4_MAGNITUDES, (-126, -3, 0, 1, 60, 125)),
    ],
)
def test_every_number_of_a_format_and_every_tie(backend, operation, magnitudes, powers):
    """At scales from the smallest to the largest: the numbers, the middles between them, and what is next to both."""
    largest = magnitudes[-1]
    exactly = np.concatenate([magnitudes, (magnitudes[:-1] + magnitudes[1:]) / 2]).astype(np.float32)
    x = np.concatenate([exactly, np.nextafter(exactly, np.float32(0)), np.nextafter(exactly, np.float32(largest))])
    x = np.concatenate([x, -x])
    x = np.concatenate([x, np.zeros(-len(x) % 31, np.float32)]).reshape(-1, 31)
    x = np.concatenate([x, np.full((len(x), 1), largest, np.float32)], axis=-1)  # 32 numbers, the last sets the scale
    x = np.concatenate([x * np.float32(2.0**power) for power in powers])
    [found], [expected] = (run(one, operation, (x, 32)) for one in (backend, Ops()))
    exact(found, expected)
    [ragged] = run(backend, operation, (np.concatenate([x, x[:, :1]], axis=-1), 32))  # by the kernel for any block
    exact(ragged[:, :32], expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("width", [192, 200])
def test_a_bad_number_spoils_its_block(backend, bad, width):
    x = numbers(np.random.default_rng(0), 3, width)
    x[1, 100] = bad
    [found] = run(backend, "fake_quant_fp8", (x, 64))
    assert np.isnan(found[1, 64:128]).all() and np.isnan(found).sum() == 64
    exact(found, Ops.fake_quant_fp8(x, 64))


def test_what_has_no_kernel_is_the_references(backend, monkeypatch):
    monkeypatch.setattr("dsv4_accel.cuda.hadamard.MAX_WIDTH", 32)  # beyond the true one the reference is slow
    cases = hadamard("", 1, 64), rope("", 1, 1, (), 12290, 6145), collapse("", 1, 9, 3), mix("", 1, 9, 3)
    cases += weights((), 1, 9, 3), head_weights("", 1, 9, 3)
    backend.device.launched.clear()
    for operation, _, given, _ in (make(np.random.default_rng(0)) for make in cases):
        for one, expected in zip(run(backend, operation, given), run(Ops(), operation, given), strict=True):
            exact(one, expected)
    assert backend.device.launched == []
