"""What stands on a page of V4.1 is what was recorded, within the steps that the page states."""

import numpy as np
import pytest

import dsv4
import tiny
import tiny41
from dsv4.cost import v41
from dsv4.explain import record
from dsv4.explain.data import NOBODY
from dsv4.explain.page import page
from dsv4.explain.room import Room
from dsv4.model41.model import Model41
from dsv4.ops import Ops
from explain.reading import read

LENGTH, VOCAB = 60, 1024
SIXTEEN = 1 / (2**16 - 1)
"""A step of 16 bits."""


@pytest.fixture(scope="module")
def model():
    return Model41(tiny41.checkpoint(vocab_size=VOCAB), Ops(), False, np.float64, np.arange(VOCAB) % 15)


@pytest.fixture(scope="module")
def recorded(model):
    return record(model, tiny.tokens(3, LENGTH, vocab=1000))


@pytest.fixture(scope="module")
def shown(model, recorded):
    return read(page(model, dsv4.Tokenizer.from_file(dsv4.bundled_model()), recorded))


def test_the_plan_and_the_sizes(model, shown):
    assert (shown["model"]["version"], shown["model"]["drafter"]) == ("V4.1", "DSpark")
    assert shown["model"]["engram"] == {"longest": 3, "heads": 2, "width": 8}
    assert shown["model"]["candidates"] == {"source": 3, "blocks": 2, "size": 3}
    assert shown["model"]["parameters"] == sum(
        weight.size for name, weight in model.checkpoint.weights.items() if not name.startswith("mtp.")
    )
    places = [(layer["kind"], layer["source"], layer["chooser"]) for layer in shown["layers"]]
    assert places[2:5] == [("Reindex", 1, 2), ("Full", 3, 3), ("Reuse", 3, 3)]


@pytest.mark.parametrize("layer", [1, 2, 3, 5])
def test_choices_and_what_the_pool_allows(model, recorded, shown, layer):
    found, choice = shown["layers"][layer]["choice"], recorded.layers[layer].choice
    ratio = model.config.compress_ratios[layer]
    for token in (0, 5, 20, LENGTH - 1):
        visible = (token + 1) // ratio
        chosen = [entry for entry in choice.chosen[token] if entry >= 0]
        count = int(found["chosen"][token])
        entries = [int(entry) for entry in found["entries"][token] if entry != NOBODY]
        assert (count, found["visible"][token], sorted(entries)) == (len(chosen), visible, list(range(visible)))
        assert set(entries[:count]) == set(chosen)
        if choice.allowed is not None:
            np.testing.assert_array_equal(found["allowed"]["entries"][token, :visible], choice.allowed[token, entries])
            assert found["allowed"]["count"][token] == choice.allowed[token, :visible].sum()
    assert (found["allowed"] is None) == (choice.allowed is None)


def test_pools_lookups_and_blocks_of_drafts(recorded, shown):
    pool = recorded.layers[3].pool
    np.testing.assert_array_equal(shown["layers"][3]["pool"], np.where(pool < 0, NOBODY, pool))
    assert [layer["pool"] is None for layer in shown["layers"]].count(False) == 1
    for layer in (0, 3):
        np.testing.assert_array_equal(shown["layers"][layer]["lookup"]["rows"], recorded.layers[layer].lookup.rows)
        np.testing.assert_allclose(
            shown["layers"][layer]["lookup"]["gates"], recorded.layers[layer].lookup.gates, atol=SIXTEEN
        )
    np.testing.assert_array_equal(shown["drafts"]["blocks"], recorded.drafts.blocks)
    np.testing.assert_allclose(shown["drafts"]["confidence"], recorded.drafts.confidence, atol=SIXTEEN)
    assert {str(one) for one in recorded.drafts.blocks.ravel()} <= shown["words"].keys()


def test_bytes_of_the_cache_are_those_of_the_cost(model, shown):
    cache = shown["cache"]
    for tokens in (1, 5, LENGTH):
        found = sum(cache["kinds"][kind][tokens - 1] for kind in cache["of_layer"])
        assert dict(zip(cache["parts"], found, strict=True)) == v41.cache_bytes(model.config, tokens, "packed")
    assert cache["row"] == v41.window_bytes(model.config, "packed")


def test_a_text_without_entries_is_a_page(model):
    tokenizer = dsv4.Tokenizer.from_file(dsv4.bundled_model())
    assert read(page(model, tokenizer, record(model, [5])))["layers"][1]["choice"] is None


def test_the_room_for_scores_is_that_of_the_densest_entries():
    assert Room.of(tiny41.CONFIG, 12).scores == 12
    without = tiny41.config(
        compress_ratios=(0,) * 8, kv_source_layer_ids=(), index_source_layer_ids=(), candidate_source_layer_id=None
    )
    assert Room.of(without, 12).scores == 1
