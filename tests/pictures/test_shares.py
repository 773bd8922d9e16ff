"""Who reads what, against the outputs of the pass itself and against the rules of who may see what."""

import numpy as np
import pytest

import tiny
from dsv4.errors import ConfigError, PromptError
from dsv4.model.attention import layer_frequencies
from dsv4.ops import Ops
from dsv4.pictures.shares import attention_shares, first_layer

LENGTH = 270
"""Two entries of HCA, and many more of CSA than the tiny indexer chooses."""


@pytest.fixture(scope="module")
def model():
    return tiny.model(Ops())


@pytest.fixture(scope="module")
def ids():
    return tiny.tokens(3, LENGTH)


@pytest.fixture(scope="module")
def shares(model, ids):
    return {kind: attention_shares(model, ids, first_layer(model, kind)) for kind in ("SWA", "CSA", "HCA")}


@pytest.fixture(scope="module")
def seen(model, ids):
    found = {}
    model.states(ids[None], observe=lambda name, result: found.update({name: result[0]}))
    return found


@pytest.mark.parametrize("kind", ["SWA", "CSA", "HCA"])
def test_the_shares_of_each_head_sum_to_one_with_the_sink(shares, kind):
    found = shares[kind]
    total = found.window.sum(axis=-1) + found.entries.sum(axis=-1) + found.sink
    np.testing.assert_allclose(total, 1, atol=1e-12)
    assert (found.sink > 0).all()
    assert found.kind == kind


@pytest.mark.parametrize("kind", ["SWA", "CSA", "HCA"])
def test_the_shares_give_the_outputs_of_the_pass(model, seen, shares, kind):
    """Keys are the values: their sum, weighted by the shares and turned back, is what attention gave."""
    found = shares[kind]
    name = f"layers.{found.layer}.attn."
    values = found.window @ seen[f"{name}kv"]
    if kind != "SWA":
        values = values + found.entries @ seen[f"{name}compressor.out"]
    frequencies = layer_frequencies(model.config, found.ratio)
    turned_back = Ops.rope(values[None], -np.arange(LENGTH)[None], frequencies)[0]
    np.testing.assert_allclose(turned_back, seen[f"{name}o"], atol=1e-10)


@pytest.mark.parametrize("kind", ["SWA", "CSA", "HCA"])
def test_nothing_is_read_that_a_query_may_not_see(model, shares, kind):
    found = shares[kind]
    assert (found.window > 0).any(axis=1).tolist() == found.in_window.tolist()
    assert not (found.entries > 0).any(axis=1)[~found.chosen].any()
    assert not (found.chosen & ~found.visible).any()
    window = model.config.sliding_window
    for query in (0, 5, window, LENGTH - 1):
        (tokens,) = np.nonzero(found.in_window[query])
        assert tokens.tolist() == list(range(max(0, query - window + 1), query + 1))
        assert found.visible[query].sum() == ((query + 1) // found.ratio if found.ratio else 0)


def test_the_indexer_chooses_so_many_and_hca_reads_all(model, shares):
    csa, hca = shares["CSA"], shares["HCA"]
    most = np.minimum(csa.visible.sum(axis=1), model.config.index_topk)
    assert csa.chosen.sum(axis=1).tolist() == most.tolist()
    assert (csa.visible & ~csa.chosen).any()
    assert hca.chosen.sum(axis=1).max() == LENGTH // 128
    assert (hca.chosen == hca.visible).all()


def test_a_text_too_short_for_an_entry(model, ids):
    found = attention_shares(model, ids[:3], first_layer(model, "CSA"))
    assert found.entries.shape == (3, model.config.num_attention_heads, 0)
    np.testing.assert_allclose(found.window.sum(axis=-1) + found.sink, 1, atol=1e-12)


def test_what_does_not_fit_is_refused(model, ids):
    with pytest.raises(PromptError, match=r"ids: expected the tokens of one text, \[S\], found shape \(1, 270\)"):
        attention_shares(model, ids[None], 0)
    without = tiny.model(Ops(), compress_ratios=(0, 4, 0))
    with pytest.raises(ConfigError, match="compress_ratios: expected a layer of kind HCA, found none"):
        first_layer(without, "HCA")
