"""Packed rows: what their bytes stand for, and operations on them, which are those on the rows they stand for."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4.ops import chunks
from dsv4.ops.packed_rows import Fp4Format, Fp8Format, Nvfp4Format, PackedRows, unpacked
from dsv4.ops.quantise import fake_quant_fp4
from strategies import generators, laid_out, sizes
from verdicts import close, exact

ENTRIES = {
    "v4": Fp8Format(96, 64, 16),
    "v4-partial": Fp8Format(70, 64, 4),
    "v41-window": Fp8Format(45, 32),
    "v41": Nvfp4Format(64),
    "v41-partial": Nvfp4Format(22),
}
"""Rows of whole blocks and vectors and of partial ones: V4's entries, V4.1's window keys, V4.1's entries."""

KEYS = {str(width): Fp4Format(width) for width in (2, 30, 32, 34, 128, 144)}

every_entry = pytest.mark.parametrize("form", ENTRIES.values(), ids=ENTRIES)
every_key = pytest.mark.parametrize("form", KEYS.values(), ids=KEYS)


def any_bytes(generator, batch, count, form) -> PackedRows:
    """Rows of any bytes, which numbers that are not finite are among."""
    return PackedRows(generator.integers(0, 256, (batch, count, form.width), np.uint8), form)


def tame(generator, batch, count, form) -> PackedRows:
    """Rows of numbers around 1."""
    numbers = generator.standard_normal((batch, count, form.channels)).astype(np.float32)
    return PackedRows(form.pack(numbers), form)


def floats(rows, dtype=np.float32):
    with np.errstate(all="ignore"):
        return unpacked(rows, dtype)


def test_a_key_by_hand():
    """34 channels: 17 bytes of codes, low nibble first, then a scale for 32 channels and one for the last two."""
    stored = np.zeros(19, np.uint8)
    stored[0] = 0x1A  # −1 in channel 0, 0.5 in channel 1
    stored[15] = 0x82  # 1 in channel 30, −0 in channel 31
    stored[16] = 0x7F  # −6 in channel 32, 6 in channel 33
    stored[17:] = 128, 126  # 2 and 1/2
    expected = np.zeros(34, np.float32)
    expected[[0, 1, 30, 31, 32, 33]] = -2, 1, 2, -0.0, -3, 3
    found = unpacked(PackedRows(stored, Fp4Format(34)), np.float32)
    exact(found, expected)
    assert np.signbit(found[31]) and not np.signbit(found[2])


def test_an_entry_by_hand():
    """66 codes in blocks of 64, two channels of bfloat16, two scales."""
    stored = np.zeros(72, np.uint8)
    stored[[0, 63, 64, 65]] = 0x38, 0xB8, 0x38, 0x80  # 1, −1, 1, −0
    stored[66:70] = np.array([3, -0.5], ml_dtypes.bfloat16).view(np.uint8)
    stored[70:] = 129, 125  # 4 and 1/4
    expected = np.zeros(68, np.float32)
    expected[[0, 63, 64, 65, 66, 67]] = 4, -4, 0.25, -0.0, 3, -0.5
    found = unpacked(PackedRows(stored, Fp8Format(68, 64, 2)), np.float32)
    exact(found, expected)
    assert np.signbit(found[65])


def test_an_entry_of_v41_by_hand():
    """18 channels: nine bytes of codes, a scale for 16 channels, which is no power of two, and one for the others."""
    stored = np.zeros(11, np.uint8)
    stored[[0, 7, 8]] = 0x42, 0xA0, 0x2B  # 1, 2; 0, −1; −1.5, 1
    stored[9:] = 0x3C, 0x30  # 1.5 and 1/2
    expected = np.zeros(18, np.float32)
    expected[[0, 1, 15, 16, 17]] = 1.5, 3, -1.5, -0.75, 0.5
    exact(unpacked(PackedRows(stored, Nvfp4Format(18)), np.float32), expected)


@pytest.mark.parametrize("form", [*ENTRIES.values(), *KEYS.values()], ids=str)
def test_what_was_packed_is_packed_again_to_the_same_numbers(form):
    rows = tame(np.random.default_rng(0), 2, 5, form)
    numbers = unpacked(rows, np.float32)
    assert rows.shape == numbers.shape == (2, 5, form.channels)
    exact(unpacked(PackedRows(form.pack(numbers), form), np.float32), numbers)


def selected(generator, form, batch, length, heads, count):
    queries = generator.standard_normal((batch, length, heads, form.channels)).astype(np.float32)
    weights = generator.standard_normal((batch, length, heads)).astype(np.float32)
    return queries, any_bytes(generator, batch, count, form), weights, generator.integers(0, count + 1, (batch, length))


@every_key
@settings(max_examples=10)
@given(generator=generators, batch=sizes(0, 2), length=sizes(0, 3), count=st.sampled_from([0, 1, 5, 6, 7, 70]))
def test_keys_are_scored_and_chosen_as_their_numbers_are(ops, form, generator, batch, length, count):
    queries, keys, weights, visible = selected(generator, form, batch, length, 3, count)
    with np.errstate(all="ignore"):
        for dtype in (np.float32, np.float64):
            given_queries, given_weights = queries.astype(dtype), weights.astype(dtype)
            numbers = floats(keys, dtype)
            exact(
                ops.index_scores(given_queries, keys, given_weights),
                ops.index_scores(given_queries, numbers, given_weights),
            )
            exact(
                ops.index_top_k(given_queries, keys, given_weights, visible, 4),
                ops.index_top_k(given_queries, numbers, given_weights, visible, 4),
            )


@pytest.mark.parametrize("heads", [1, 17, 64])
@pytest.mark.parametrize("count", [191, 193, 800])
def test_many_keys(ops, heads, count):
    """Sizes at which a backend works in blocks and in threads; a part of a longer cache."""
    generator = np.random.default_rng([heads, count])
    form = Fp4Format(128)
    rows = tame(generator, 2, count + 9, form)[:, :count]
    queries, weights = (generator.standard_normal(s).astype(np.float32) for s in ((2, 3, heads, 128), (2, 3, heads)))
    visible = np.array([[count, count // 2, 1], [0, count, count - 1]])
    numbers = unpacked(rows, np.float32)
    exact(ops.index_top_k(queries, rows, weights, visible, 64), ops.index_top_k(queries, numbers, weights, visible, 64))


def scaled_blocks(generator, rows, least, most) -> np.ndarray:
    """Rows [..., D] whose blocks of 32 are rounded to FP4, and times powers of two from 2^least to 2^most."""
    powers = generator.integers(least, most + 1, (*rows.shape[:-1], rows.shape[-1] // 32))
    return fake_quant_fp4(rows) * np.exp2(powers).repeat(32, axis=-1).astype(np.float32)


@pytest.mark.parametrize("heads", [1, 16, 70])
@pytest.mark.parametrize("width", [64, 128, 192])
@pytest.mark.parametrize("steps", [0, 1, 3, 6, 60])
def test_rounded_queries(ops, heads, width, steps):
    """Products of small whole numbers, which a backend may form as such; and some that go beyond, among them."""
    generator = np.random.default_rng([heads, width, steps])
    queries = scaled_blocks(generator, generator.standard_normal((1, 2, heads, width)), -(steps // 2), steps // 2)
    keys = tame(generator, 1, 99, Fp4Format(width))
    scales = keys.stored[..., width // 2 :]
    scales += generator.integers(0, steps + 1, scales.shape).astype(np.uint8)
    scales[0, [5, 20, 40, 41], 0] = 0, 255, 86, 168
    keys.stored[0, 60], keys.stored[0, 61, : width // 2] = 0, 0x88  # a row that nobody wrote, and zeros with a sign
    weights = generator.standard_normal((1, 2, heads)).astype(np.float32)
    queries[0, 1, 0, 0] *= np.float32(1 + 2.0**-20)  # this one is not rounded
    numbers = unpacked(keys, np.float32)
    with np.errstate(all="ignore"):
        scores = ops.index_scores(queries.astype(np.float32), numbers, weights)
        found = ops.index_top_k(queries.astype(np.float32), keys, weights, np.array([[99, 99]]), 99)
        exact(found, ops.top_k(scores, np.array([[99, 99]]), 99))


@every_key
@given(data=st.data())
def test_the_layout_of_keys_does_not_matter(ops, form, data):
    queries, keys, weights, visible = selected(np.random.default_rng(0), form, 2, 3, 3, 9)
    moved = PackedRows(data.draw(laid_out(keys.stored)), form)
    with np.errstate(all="ignore"):
        exact(ops.index_top_k(queries, moved, weights, visible, 5), ops.index_top_k(queries, keys, weights, visible, 5))


def test_keys_in_runs_of_queries(ops, monkeypatch):
    arguments = *selected(np.random.default_rng(2), Fp4Format(32), 2, 7, 3, 40), 6
    with np.errstate(all="ignore"):
        expected = ops.index_top_k(*arguments)
        monkeypatch.setattr(chunks, "MAX_NUMBERS", 1)
        exact(ops.index_top_k(*arguments), expected)


def test_candidates_of_packed_keys(ops):
    """V4.1's pool, and the choice in it."""
    generator = np.random.default_rng(3)
    queries, _, weights, visible = selected(generator, Fp4Format(32), 2, 3, 4, 20)
    keys = tame(generator, 2, 20, Fp4Format(32))
    numbers = unpacked(keys, np.float32)
    pool = ops.index_candidates(queries, numbers, weights, visible, 3, 4)
    exact(ops.index_candidates(queries, keys, weights, visible, 3, 4), pool)
    exact(
        ops.index_top_k_among(queries, keys, weights, visible, pool, 3, 5),
        ops.index_top_k_among(queries, numbers, weights, visible, pool, 3, 5),
    )


def attended(generator, form, of_entries, batch=2, length=3, named=(4, 5), make=any_bytes):
    """Arguments of attention with packed window and entries: fewer are named than there are, or more."""
    window, entries = make(generator, batch, 9, form), make(generator, batch, 17, of_entries)
    indices = (
        generator.integers(-1, rows.shape[1], (batch, length, count))
        for rows, count in zip((window, entries), named, strict=True)
    )
    window_index, entry_index = indices
    queries = generator.standard_normal((batch, length, 3, form.channels)).astype(np.float32)
    return queries, window, window_index, entries, entry_index, np.zeros(3, np.float32)


def in_numbers(arguments, dtype=np.float32):
    """The same call with the numbers of the rows."""
    return [floats(one, dtype) if isinstance(one, PackedRows) else one for one in arguments]


CACHES = {
    "v4": (Fp8Format(96, 64, 16), Fp8Format(96, 64, 16)),
    "v4-partial": (Fp8Format(70, 64, 4), Fp8Format(70, 64, 4)),
    "v41": (Fp8Format(64, 32), Nvfp4Format(64)),
    "v41-partial": (Fp8Format(22, 32), Nvfp4Format(22)),
}
"""The formats of window keys and entries."""


@pytest.mark.parametrize(("form", "of_entries"), CACHES.values(), ids=CACHES)
@pytest.mark.parametrize("make", [any_bytes, tame], ids=["any", "tame"])
@pytest.mark.parametrize("named", [(2, 3), (9, 20), (0, 3), (2, 0)], ids=["few", "many", "entries", "window"])
@pytest.mark.parametrize("length", [1, 3])
def test_attention_reads_rows_as_their_numbers(ops, form, of_entries, make, named, length):
    generator = np.random.default_rng([length, *named])
    arguments = attended(generator, form, of_entries, length=length, named=named, make=make)
    with np.errstate(all="ignore"):
        exact(ops.sparse_attention(*arguments), ops.sparse_attention(*in_numbers(arguments)))
        wide = [one.astype(np.float64) if place in (0, 5) else one for place, one in enumerate(arguments)]
        exact(ops.sparse_attention(*wide), ops.sparse_attention(*in_numbers(wide, np.float64)))


@every_entry
def test_one_key_is_read_number_by_number(ops, form):
    """A query of zeros gives half of the only key to the sink, and so half of each number, of any bytes."""
    rows = any_bytes(np.random.default_rng(4), 1, 30, form)
    queries = np.zeros((1, 30, 1, form.channels), np.float32)
    index, none = np.arange(30).reshape(1, 30, 1), np.zeros((1, 30, 0), np.int64)
    with np.errstate(all="ignore"):
        finite = np.isfinite(floats(rows)).all(axis=-1)[0]
        assert finite.any()
        found = ops.sparse_attention(queries, rows, index, rows[:, :0], none, np.zeros(1, np.float32))[0, :, 0]
        exact(found[finite] + 0, floats(rows)[0, finite] / 2 + 0)  # a sum has no −0
        found = ops.sparse_attention(queries, rows[:, :0], none, rows, index, np.zeros(1, np.float32))[0, :, 0]
        exact(found[finite] + 0, floats(rows)[0, finite] / 2 + 0)  # a sum has no −0


def test_a_code_that_is_nan_stays_visible(ops):
    form = Fp8Format(70, 64, 4)
    *arguments, sink = attended(np.random.default_rng(10), form, form, 1, 1, (1, 1), make=tame)
    window = arguments[1].stored.copy()
    window[:, :, 3] = 0xFF
    arguments[1], arguments[2] = PackedRows(window, form), np.zeros((1, 1, 1), np.int64)
    assert np.isnan(ops.sparse_attention(*arguments, sink)).all()


@pytest.mark.parametrize(("batch", "length"), [(0, 3), (2, 0), (0, 0), (1, 1)])
def test_attention_of_empty_and_single_rows(ops, batch, length):
    form = Fp8Format(70, 64, 4)
    arguments = attended(np.random.default_rng(5), form, form, batch, length, make=tame)
    exact(ops.sparse_attention(*arguments), ops.sparse_attention(*in_numbers(arguments)))


@pytest.mark.parametrize("chosen", [slice(0, 1), slice(1, 2), slice(None, None, -1)])
def test_sequences_do_not_see_each_other(ops, chosen):
    """A part of a batch, in any order, whose rows then have gaps between them or run backwards."""
    form = Fp8Format(96, 64, 16)
    *arguments, sink = attended(np.random.default_rng(6), form, form, make=tame)
    expected = ops.sparse_attention(*arguments, sink)[chosen]
    close(ops.sparse_attention(*(one[chosen] for one in arguments), sink), expected.astype(np.float64))


@pytest.mark.parametrize("place", [2, 4])
def test_an_index_beyond_packed_rows_is_an_error(ops, place):
    form = Fp8Format(70, 64, 4)
    arguments = list(attended(np.random.default_rng(7), form, form, make=tame))
    name, count = {2: ("window", 9), 4: ("entries", 17)}[place]
    arguments[place] = arguments[place].copy()
    arguments[place][1, 2, 0] = count
    with pytest.raises(ValueError, match=f"sparse_attention: {name} index {count} is beyond the {count} rows"):
        ops.sparse_attention(*arguments)


def test_rows_of_another_width_are_an_error(ops):
    form = Fp4Format(32)
    queries, keys, weights, visible = selected(np.random.default_rng(8), form, 1, 2, 3, 5)
    short = PackedRows(keys.stored[..., 1:], form)
    with pytest.raises(ValueError, match=r"packed rows: expected 17 bytes for 32 channels, found uint8 \(1, 5, 16\)"):
        ops.index_top_k(queries, short, weights, visible, 2)
    with pytest.raises(ValueError, match="packed rows: expected 17 bytes"):
        ops.index_scores(queries, short, weights)


def test_packed_keys_need_fitting_shapes(ops):
    queries, keys, weights, visible = selected(np.random.default_rng(9), Fp4Format(32), 2, 3, 3, 5)
    with pytest.raises(ValueError, match=r"index_top_k: .* do not fit"):
        ops.index_top_k(queries[:1], keys, weights[:1], visible[:1], 2)
    with pytest.raises(ValueError, match=r"index_top_k: .* do not fit"):
        ops.index_top_k(queries[..., :30], keys, weights, visible, 2)
