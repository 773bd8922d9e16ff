"""What V4.1's goldens do not tell apart: taps behind an Engram, experts of stages, the first share, unused parts."""

from dataclasses import replace

import numpy as np
import pytest

import tiny
import tiny41
from dsv4.model41.block import first_pre
from model41.golden41 import Seen

IDS = tiny.tokens(42, 2, 20)


@pytest.fixture(scope="module")
def model(backend):
    return tiny41.model(backend)


@pytest.fixture(scope="module")
def seen(model):
    """All that a pass shows, with its logits."""
    observed = Seen(model.ops)
    observed["logits"] = model.ops.to_numpy(model(IDS, model.new_cache(2), observe=observed))
    return observed


def test_the_drafter_reads_the_streams_behind_a_layers_engram_and_before_the_layer(seen):
    """Of its two target layers the first one has an Engram."""
    d = tiny41.CONFIG.hidden_size
    tiny.close(seen["main_hidden"][..., :d], seen["layers.3.engram.out"].mean(axis=2))
    tiny.close(seen["main_hidden"][..., d:], seen["layers.4.out"].mean(axis=2))


def test_stages_have_experts_of_their_own_number(model):
    cache, observed = model.new_cache(2), Seen(model.ops)
    model(IDS[:, :9], cache)
    model.draft_block(IDS[:, 9], cache, observed)
    assert observed["mtp.1.ffn.gate.indices"].shape == (2 * 4, 1)
    assert set(observed["mtp.1.ffn.gate.indices"].ravel()) <= {0, 1, 2}
    assert len(model.dspark.stages[1].ffn.experts) == 3


def test_the_first_layer_reads_the_first_stream(backend):
    streams = np.zeros((1, 2, 4, 3))
    np.testing.assert_array_equal(backend.to_numpy(first_pre(backend, streams)), [[[1, 0, 0, 0]] * 2])


def test_the_bias_for_image_tokens_is_not_used(backend, seen):
    other = tiny41.checkpoint().changed(gate__bias_vl=lambda bias: bias + 3)
    tiny.close(tiny41.model(backend, other)(IDS), seen["logits"])
    moved = tiny41.checkpoint().changed(gate__bias=lambda bias: bias * np.arange(len(bias)))
    assert not np.allclose(backend.to_numpy(tiny41.model(backend, moved)(IDS)), seen["logits"])


def test_readers_follow_the_latest_source(seen):
    """Layer 2 chooses among the entries of layer 1, of which there are half as many; layers 4 and 5 read layer 3's."""
    assert seen["layers.1.attn.compressor.out"].shape == (2, 10, 12)
    assert seen["layers.3.attn.compressor.out"].shape == (2, 20, 12)
    assert "layers.2.attn.compressor.out" not in seen and "layers.4.attn.indexer.topk" not in seen
    assert seen["layers.2.attn.indexer.topk"].max() < 10 <= seen["layers.5.attn.indexer.topk"].max()


def test_later_choices_stay_in_the_pool(seen):
    """Layer 5 takes entries of the two blocks of three that layer 3 found; layer 3 itself is not bound to them."""
    names = "3.attn.indexer.candidates", "3.attn.indexer.topk", "5.attn.indexer.topk"
    pool, own, later = (seen[f"layers.{name}"] for name in names)

    def inside(chosen):
        return (chosen[..., None] // 3 == pool[..., None, :]).any(axis=-1) | (chosen < 0)

    assert inside(later).all() and not inside(own).all()
    assert (own >= 0).sum(axis=-1).max() == 3 and pool.shape[-1] == 2


def test_how_large_the_streams_are_does_not_matter_to_an_engrams_gate(backend):
    """The released epsilon is 1e-20: what an Engram adds to streams of 2⁻¹³ is what it adds to streams of 1."""

    def added(size):
        observed, source = Seen(backend), tiny41.checkpoint()
        embed = source.weights["embed.weight"] * np.float32(size)
        model = tiny41.model(backend, replace(source, weights=source.weights | {"embed.weight": embed}))
        model(IDS, observe=observed)
        return observed["layers.0.engram.out"] - embed[IDS][:, :, None]

    tiny.close(added(2.0**-13), added(1))
