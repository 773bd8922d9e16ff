"""Where activations are rounded: key-value entries but for their RoPE channels, indexer vectors, inputs of products."""

import numpy as np
import pytest

import tiny
from dsv4.ops.quantise import is_quantised
from model.naive import FP4, FP8, round_blocks

IDS = tiny.tokens(2, 1, 140)
ROTATED = tiny.CONFIG.qk_rope_head_dim


def layer_caches(backend, ratio):
    """The caches of a one-layer model without rounding and with it; both layers get the same input."""
    source = tiny.checkpoint(**(tiny.WIDE | {"compress_ratios": (ratio, 0)}))
    source = source.changed(kv_norm__weight=uneven, **({"attn__compressor__norm__weight": uneven} if ratio else {}))
    caches = []
    for fake_quant in (False, True):
        model = tiny.model(backend, source, fake_quant)
        cache = model.new_cache(max_rollback=IDS.size)
        model(IDS, cache)
        caches.append(cache.main.layers[0])
    return caches


def uneven(norm):
    """Blocks of channels so far apart that the scale of one is too coarse for the other."""
    return norm * np.where(np.arange(len(norm)) < 64, np.float32(2**12), np.float32(2**-5))


def rounded_rows(rows, block, number_format):
    return np.stack([round_blocks(row, block, number_format) for row in rows])


@pytest.mark.parametrize("ratio", [0, 4, 128])
def test_window_entries_are_fp8_but_for_the_rotated_channels(backend, ratio):
    off, on = (backend.to_numpy(cache.window.rows)[0, : IDS.size] for cache in layer_caches(backend, ratio))
    check_entries(off, on)


@pytest.mark.parametrize("ratio", [4, 128])
def test_compressed_entries_are_fp8_but_for_the_rotated_channels(backend, ratio):
    count = IDS.size // ratio
    caches = layer_caches(backend, ratio)
    check_entries(*(backend.to_numpy(cache.compressor.entries.first(count))[0] for cache in caches))


def check_entries(off, on):
    """Content channels are rounded in blocks of 64, the last one partial; RoPE channels are as they were."""
    np.testing.assert_array_equal(on[:, -ROTATED:], off[:, -ROTATED:])
    np.testing.assert_allclose(on[:, :-ROTATED], rounded_rows(off[:, :-ROTATED], 64, FP8), rtol=1e-12)
    assert (on[:, :-ROTATED] != off[:, :-ROTATED]).mean() > 0.9
    assert (round_blocks(off[0, -ROTATED:], 64, FP8) != off[0, -ROTATED:]).any()


@pytest.mark.parametrize("ratio", [0, 4, 128])
def test_blocks_of_64_channels_have_scales_of_their_own(backend, ratio):
    """The first 64 channels are so large that the ones behind them would lose their digits at the same scale."""

    def grow(weight):
        return weight * np.where(np.arange(len(weight)) < 64, np.float32(2**14), np.float32(1))

    caches = []
    for fake_quant in (False, True):
        source = tiny.checkpoint(**tiny.WIDE, compress_ratios=(ratio, 0)).changed(kv_norm__weight=grow)
        if ratio:
            source = source.changed(attn__compressor__norm__weight=grow)
        model = tiny.model(backend, source, fake_quant)
        cache = model.new_cache(max_rollback=IDS.size)
        model(IDS, cache)
        caches.append(cache.main.layers[0])
    check_entries(*(backend.to_numpy(cache.window.rows)[0, : IDS.size] for cache in caches))
    if ratio:
        check_entries(*(backend.to_numpy(cache.compressor.entries.first(IDS.size // ratio))[0] for cache in caches))


def test_indexer_keys_are_fp4_in_every_channel(backend):
    off, on = (
        backend.to_numpy(cache.indexer.entries.first(IDS.size // 4))[0] for cache in layer_caches(backend, ratio=4)
    )
    tiny.close(on, rounded_rows(off, 32, FP4), 1e-12)
    assert (on != off).mean() > 0.9


def test_indexer_queries_are_fp4_in_every_channel(backend):
    queries = {}

    class Recorder(type(backend)):
        def index_top_k(self, q, keys, weights, visible, k):
            queries[recording] = self.to_numpy(q)
            return super().index_top_k(q, keys, weights, visible, k)

    source = tiny.checkpoint(**(tiny.WIDE | {"compress_ratios": (4, 0)}))
    for recording in (False, True):
        tiny.model(Recorder(), source, fake_quant=recording)(IDS)
    off, on = (queries[recording].reshape(-1, tiny.WIDE["index_head_dim"]) for recording in (False, True))
    tiny.close(on, rounded_rows(off, 32, FP4), 1e-12)
    assert (on != off).mean() > 0.9


def test_hadamard_turns_queries_and_keys_alike(backend):
    """Without rounding the rotation cancels in the scores, so a model without it chooses the same entries."""

    class Unrotated(type(backend)):
        def hadamard(self, x):
            return x

    source = tiny.checkpoint(compress_ratios=(4, 0))
    chosen = []
    for ops in (backend, Unrotated()):
        seen = {}
        tiny.model(ops, source)(IDS, observe=seen.__setitem__)
        chosen.append(np.sort(backend.to_numpy(seen["layers.0.attn.indexer.topk"])))
    np.testing.assert_array_equal(chosen[0], chosen[1])


@pytest.mark.parametrize("fake_quant", [False, True])
def test_which_products_round_their_input(backend, fake_quant):
    """The products with quantised weights, but for wo_a; none where rounding is off or the weight is dense."""
    widths = set()

    class Recorder(type(backend)):
        def linear(self, x, weight, round_inputs=False):
            if round_inputs and is_quantised(weight):
                widths.add(weight.shape)
            return super().linear(x, weight, round_inputs)

        def linears(self, x, weights, round_inputs=False):
            return tuple(self.linear(x, weight, round_inputs) for weight in weights)

        def experts(self, x, routing, expert_list, limit, round_inputs):
            assert round_inputs == fake_quant  # of products with matrices that are stored in FP8 or FP4
            return super().experts(x, routing, expert_list, limit, round_inputs)

    dense = tiny.checkpoint(**tiny.WIDE, q_lora_rank=11, o_lora_rank=9)
    for stored, source in ((False, dense), (True, tiny.quantised(dense))):
        tiny.model(Recorder(), source, fake_quant)(IDS[:, :9])
        inputs_of = ("wq_a", "wq_b", "wkv", "wo_b", "indexer.wq_b")
        expected = {source.weights[f"layers.1.attn.{name}.weight"].shape for name in inputs_of}
        shared = {source.weights[f"layers.1.ffn.shared_experts.{name}.weight"].shape for name in ("w1", "w2")}
        assert widths - shared == (expected if fake_quant and stored else set())
