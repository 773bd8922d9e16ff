"""FP4 weights times rounded inputs: pairs of bfloat16 give the bits that float32 products give, whatever x holds."""

import numpy as np
import pytest

from accel.calls import bits
from accel.processes import report_of, run_python
from dsv4.ops import Expert, Fp4Weight, Routing
from dsv4.ops.formats import fp4_decode, fp8_decode

pytest.importorskip("numba")
import numba

from dsv4_accel.numba import NumbaOps, cpu, memory, pairs, prepared, vectors
from dsv4_accel.numba.products import FEW_TOKENS

TOKENS = [1, 2, FEW_TOKENS["FP4 in pairs"], FEW_TOKENS["FP4 in pairs"] + 1, 7, 33, 64, 65, 70]
SHAPES = [(37, 352), (5, 1408), (130, 128)]


def weight(g, rows, columns, least=0, most=254):
    """Any codes, and scale bytes from `least` to `most`."""
    packed = g.integers(0, 256, (rows, columns // 2), dtype=np.uint8)
    return Fp4Weight(packed, g.integers(least, most + 1, (rows, columns // 32), dtype=np.uint8))


def normal(g, shape):
    return g.standard_normal(shape)


def of_any_size(g, shape):
    """A magnitude a token, and zeros of both signs among its numbers."""
    x = g.standard_normal(shape) * 10.0 ** g.uniform(-30, 30, (shape[0], 1))
    return np.where(g.random(shape) < 0.3, -0.0, x) * (g.random(shape) < 0.8)


def largest_codes(g, shape):
    return 448.0 * g.choice([-1, 1], shape)


def smallest_codes(g, shape):
    """Codes below 2^−6, whose last place is 2^−9, beside one of 448."""
    x = g.integers(-8, 9, shape) * 2.0**-9
    x[:, ::128] = 448
    return x


def all_codes(g, shape):
    return fp8_decode(g.choice(np.setdiff1d(np.arange(256), [127, 255]).astype(np.uint8), shape))


def zeros(g, shape):
    return g.choice([0.0, -0.0], shape)


def subnormal(g, shape):
    return g.standard_normal(shape) * 1e-40


def near_the_end(g, shape):
    """Magnitudes about the largest that goes in pairs, and about the largest float32."""
    return g.choice([-1, 1], shape) * 2.0 ** g.choice([99, 100, 101, 113, 120, 127], (shape[0], 1))


def not_finite(g, shape):
    x = g.standard_normal(shape)
    x[:: max(1, shape[0] // 3), g.integers(shape[1])] = g.choice([np.nan, np.inf, -np.inf])
    return x


INPUTS = [normal, of_any_size, largest_codes, smallest_codes, all_codes, zeros, subnormal, near_the_end, not_finite]


def results(inputs) -> dict:
    """Of products and experts with such inputs, by what was multiplied."""
    found, g = {}, np.random.default_rng(INPUTS.index(inputs))
    for rows, columns in SHAPES:
        for bytes_of_scales in ((0, 254), (110, 144)):
            given = weight(g, rows, columns, *bytes_of_scales)
            for tokens in TOKENS:
                x = inputs(g, (tokens, columns)).astype(np.float32)
                found[f"{given.shape} {bytes_of_scales} {tokens}"] = NumbaOps.linear(x, given, True)
    for bytes_of_scales in ((0, 254), (112, 122)):
        shapes = (384, 256), (256, 384), (384, 256)
        matrices = [Expert(*(weight(g, *shape, *bytes_of_scales) for shape in shapes)) for _ in range(3)]
        for tokens in TOKENS:
            x = inputs(g, (tokens, 256)).astype(np.float32)
            routing = Routing(normal(g, (tokens, 2)).astype(np.float32), g.choice([0, 2, 2, 2, 2], (tokens, 2)))
            for limit in (10.0, np.inf):
                for name in ("experts", "mx_experts"):  # inputs in blocks of 128, and of 32
                    experts = getattr(NumbaOps, name)(x, routing, matrices, limit, True)
                    found[f"{name} {bytes_of_scales} {tokens} {limit}"] = experts
    return found


def differing(found: dict, expected: dict) -> list[str]:
    assert list(found) == list(expected)
    return [name for name in found if not np.array_equal(bits(found[name]), bits(expected[name]))]


@pytest.mark.parametrize("inputs", INPUTS)
def test_pairs_give_the_bits_of_float32(inputs, monkeypatch):
    """On any processor: without the instruction, pairs are multiplied one by one."""
    monkeypatch.setattr(prepared, "MULTIPLIES_BFLOATS", False)
    expected = results(inputs)
    monkeypatch.setattr(prepared, "MULTIPLIES_BFLOATS", True)
    assert differing(results(inputs), expected) == []
    finite = np.mean([np.isfinite(result).mean() for result in expected.values()])
    assert finite > 0.2


WRITE = """
import json
import numpy as np
from accel.test_numba_pairs import INPUTS, results
from dsv4_accel.numba import cpu
found = {f"{inputs.__name__} {name}": result for inputs in INPUTS for name, result in results(inputs).items()}
np.savez(FILE, **found)
print(json.dumps(cpu.PORTABLE))
"""


def test_the_portable_path_gives_the_same_bits(tmp_path):
    code = WRITE.replace("FILE", repr(str(tmp_path / "results.npz")))
    assert report_of(run_python(code, DSV4_NUMBA_PORTABLE="0" if cpu.PORTABLE else "1")) != cpu.PORTABLE
    ours = {f"{inputs.__name__} {name}": result for inputs in INPUTS for name, result in results(inputs).items()}
    assert differing(ours, dict(np.load(tmp_path / "results.npz"))) == []


@pytest.mark.parametrize("inputs", INPUTS)
def test_a_token_does_not_depend_on_the_number_of_tokens(inputs):
    """Also where a neighbour is too large for pairs."""
    g = np.random.default_rng(7)
    given = weight(g, 70, 352, 100, 150)
    x = inputs(g, (70, 352)).astype(np.float32)
    x[-1] = 1e38
    together = NumbaOps.linear(x, given, True)
    for token in range(0, 70, 3):
        alone = NumbaOps.linear(x[token : token + 1], given, True)
        np.testing.assert_array_equal(bits(alone[0]), bits(together[token]))
    for count in range(1, 70):
        np.testing.assert_array_equal(bits(NumbaOps.linear(x[:count], given, True)), bits(together[:count]))


@pytest.mark.parametrize("largest", [2.0**100, np.nextafter(np.float32(2.0**100), np.float32(np.inf)), np.nan])
def test_what_is_too_large_does_not_go_in_pairs(largest):
    order = prepared.OF_FP4

    @numba.njit
    def goes(x):
        return prepared.prepare_rows(x, 2, order, 128, True)[2]

    x = np.ones((3, 256), np.float32)
    x[1, 200] = largest
    assert goes(x) == (largest <= 2.0**100 * 1.001)


def test_a_sum_of_two_products():
    """In each lane, exactly, whichever half of it is zero and whichever sign zero has."""
    pair, add_pairs = pairs.pair, pairs.add_pairs
    load, store, splat = memory.load, memory.store, vectors.splat

    @numba.njit
    def products(a, b, start, out):
        for place in range(0, out.size, 16):
            one = pair(load(a, 2 * place), load(a, 2 * place + 16))
            other = pair(load(b, 2 * place), load(b, 2 * place + 16))
            store(out, place, add_pairs(one, other, splat(start)))

    g = np.random.default_rng(3)
    a = all_codes(g, 16 * 2000).astype(np.float32)
    b = fp4_decode(g.integers(0, 16, 16 * 2000, dtype=np.uint8))
    a[: a.size // 2] *= g.choice([0, 1], a.size // 2)
    for start in (-0.0, 0.0, 7.25):
        out = np.empty(a.size // 2, np.float32)
        products(a, b, np.float32(start), out)
        terms = (a.astype(float) * b).reshape(-1, 2, 16)
        expected = np.float32(start) + (terms[:, 0] + terms[:, 1])
        np.testing.assert_array_equal(bits(out), bits(expected.astype(np.float32).ravel()))
