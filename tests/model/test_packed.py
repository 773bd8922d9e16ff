"""The packed cache: its bytes hold what a rounding model makes, and its logits are those of a float cache.

Exactly: of a float cache whose entries have their rotated channels rounded to bfloat16 when they are made.
"""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies
import tiny
from cuda.model_ops import ModelOps
from dsv4.cost.memory import cache_bytes
from dsv4.errors import SettingError
from dsv4.model.packed_cache import EntryCoding, KeyCoding
from dsv4.model.rounding import KV_BLOCK, Rounding
from dsv4.model.rows import AsComputed, Entries, RecentRows
from dsv4.model.span import Span
from dsv4.ops import Ops
from dsv4.ops.packed_rows import unpacked
from dsv4.ops.quantise import fake_quant_fp4, fake_quant_fp8
from model.test_cost import configs

FLOAT32 = np.dtype(np.float32)


class Bf16Rounding(Rounding):
    """Rounds the rotated channels as well, to bfloat16, as the official code has them."""

    def entry(self, kv):
        entry = np.array(self.ops.to_numpy(super().entry(kv)))
        rotated = entry[..., -self.rotated :]
        entry[..., -self.rotated :] = rotated.astype(ml_dtypes.bfloat16).astype(entry.dtype)
        return self.ops.asarray(entry)


def same_bits(found, expected):
    """Equal numbers and NaNs in the same places, zeros with the same sign."""
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


@given(data=st.data(), content=strategies.sizes(0, 140), rotated=st.sampled_from([2, 8, 64]))
def test_an_entry_is_read_back_as_it_was_rounded(data, content, rotated):
    coding = EntryCoding(Ops(), content + rotated, FLOAT32, rotated)
    rows = data.draw(strategies.extreme(2, 3, content + rotated))
    rounded = fake_quant_fp8(rows[..., :content], KV_BLOCK)
    packed = coding.pack(np.concatenate([rounded, rows[..., content:]], axis=-1))
    assert packed.shape == (2, 3, coding.width)
    assert packed.dtype == np.uint8
    found = coding.unpack(packed)
    same_bits(found[..., :content], rounded)
    same_bits(found[..., content:], rows[..., content:].astype(ml_dtypes.bfloat16).astype(np.float32))


@given(data=st.data(), width=st.sampled_from([2, 8, 32, 64, 128]))
def test_an_indexer_key_is_read_back_as_it_was_rounded(data, width):
    coding = KeyCoding(Ops(), width, FLOAT32)
    rounded = fake_quant_fp4(data.draw(strategies.extreme(2, 3, width)))
    packed = coding.pack(rounded)
    assert packed.shape == (2, 3, coding.width)
    assert packed.dtype == np.uint8
    same_bits(coding.unpack(packed), rounded)


def test_a_block_that_rounds_down_to_half_its_range_keeps_its_numbers():
    """The scale is half of what it was the first time, and each code twice."""
    coding = EntryCoding(Ops(), 66, FLOAT32, 2)
    rows = np.full((1, 1, 66), 2.0**-6, np.float32)  # a subnormal of FP8 at scale 1
    rows[..., 0] = 225  # rounds to 224, which scale 1/2 can hold as well
    rounded = fake_quant_fp8(rows, 64)
    assert rounded[0, 0, 0] == 224
    packed = coding.pack(rounded)
    assert packed[0, 0, -1] == 126  # 2^−1
    same_bits(coding.unpack(packed), rounded)


def test_numbers_that_are_not_finite_stay_visible():
    entry, key = EntryCoding(Ops(), 130, FLOAT32, 2), KeyCoding(Ops(), 64, FLOAT32)
    rows = np.ones((1, 2, 130), np.float32)
    rows[0, 0, 3], rows[0, 0, 129] = np.inf, np.nan
    found = entry.unpack(entry.pack(rows))
    assert np.isnan(found[0, 0, :64]).all()
    assert np.isnan(found[0, 0, 129])
    assert np.isfinite(found[0, 0, 64:129]).all()
    assert np.isfinite(found[0, 1]).all()
    assert np.isnan(key.unpack(key.pack(np.full((1, 1, 64), np.nan, np.float32)))).all()


def test_rows_have_the_sizes_of_the_released_model():
    assert EntryCoding(Ops(), 512, FLOAT32, 64).width == 448 + 2 * 64 + 7
    assert KeyCoding(Ops(), 128, FLOAT32).width == 64 + 4


@settings(max_examples=20)
@given(parts=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_bytes_go_where_floats_go(parts, seed):
    """Two sequences in parts of any lengths: the window's rows and the entries are the float ones, read back."""
    generator, coding = np.random.default_rng(seed), EntryCoding(Ops(), 70, FLOAT32, 4)
    floats, packed = (
        (RecentRows(Ops(), 2, 6, 3, each), Entries(Ops(), 2, each)) for each in (AsComputed(70, FLOAT32), coding)
    )
    lengths = np.zeros(2, np.int64)
    for counts in map(np.array, parts):
        rows = generator.standard_normal((2, counts.max(), 70), np.float32)
        read_back = coding.unpack(coding.pack(rows))
        span = Span(lengths, counts, counts.max())
        same_bits(unpacked(packed[0].extend(rows, span), FLOAT32), floats[0].extend(read_back, span))
        behind = Span(lengths + counts, 0 * counts, 1)
        same_bits(packed[0].newest(behind), floats[0].newest(behind))
        for entries, given_rows in zip((floats[1], packed[1]), (read_back, rows), strict=True):
            entries.write(given_rows, span.completed(1))
        lengths = lengths + counts
        same_bits(unpacked(packed[1].first(lengths.max()), FLOAT32), floats[1].first(lengths.max()))


def passes(model, packed: bool) -> list[np.ndarray]:
    """All logits of prefill, chunks, decode steps, a rollback, a fork and the MTP layer."""
    cache = model.new_cache(2, max_rollback=9, packed=packed)
    ids = tiny.tokens(5, 2, 290)
    logits = []
    for part in np.split(ids[:, :270], [130, 131, 132, 261], axis=1):
        states = model.states(part, cache)
        logits.append(model.head(states))
        logits.append(model.mtp_logits(states, np.roll(part, -1, axis=1), cache))
    cache.rollback(7)
    fork = cache.fork()
    for one in (cache, fork):
        logits.append(model(ids[:, 263:275], one))
    logits.append(model(ids[:, 275:], fork))
    logits.append(model(ids[:, :9], cache))
    return [model.ops.to_numpy(each) for each in logits]


@pytest.mark.parametrize("sizes", [tiny.WIDE, {}], ids=["wide", "narrow"])
def test_logits_are_bit_for_bit_those_of_a_float_cache_with_bf16_rotated_channels(backend, sizes, monkeypatch):
    source = tiny.checkpoint(**sizes, num_nextn_predict_layers=1)
    found = passes(tiny.model(backend, source, fake_quant=True), packed=True)
    unlike = passes(tiny.model(backend, source, fake_quant=True), packed=False)
    monkeypatch.setattr("dsv4.model.model.Rounding", Bf16Rounding)
    expected = passes(tiny.model(backend, source, fake_quant=True), packed=False)
    for one, other in zip(found, expected, strict=True):
        same_bits(one, other)
    assert any((one != other).any() for one, other in zip(found, unlike, strict=True))


def test_bytes_on_a_device_give_the_same_bits():
    """Arrays that do not turn into NumPy's by themselves."""
    source = tiny.checkpoint(**tiny.WIDE, num_nextn_predict_layers=1)
    found, expected = (
        passes(tiny.model(ops, source, fake_quant=True, dtype=np.float32), packed=True) for ops in (ModelOps(), Ops())
    )
    for one, other in zip(found, expected, strict=True):
        same_bits(one, other)


@settings(max_examples=12)
@given(config=configs(), length=st.integers(1, 300), drafted=st.integers(1, 300))
def test_a_packed_cache_has_the_predicted_bytes_at_every_length(config, length, drafted):
    drafted = min(length, drafted)
    model = tiny.model(Ops(), tiny.checkpoint_of(config), fake_quant=True, dtype=np.float32)
    cache = model.new_cache(packed=True)
    ids = tiny.tokens(3, length + 1, vocab=config.vocab_size)
    states = model.states(ids[:-1], cache)
    assert cache.nbytes() == cache_bytes(config, length, "packed")
    model.mtp_logits(states[:, :drafted], ids[1 : drafted + 1], cache)
    assert cache.nbytes() == cache_bytes(config, length, "packed", drafted)


def test_a_model_that_does_not_round_has_no_packed_cache(backend):
    model = tiny.model(backend, fake_quant=False)
    with pytest.raises(SettingError, match='packed cache: expected a model with fake_quant "on", found one that does'):
        model.new_cache(packed=True)
