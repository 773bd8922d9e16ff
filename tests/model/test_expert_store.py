"""Routed experts in a bounded memory: what is read, what is given back, and that results do not depend on it."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import tiny
from dsv4 import load
from dsv4.checkpoint import Checkpoint, write_checkpoint
from dsv4.checkpoint.direct import read_tensor
from dsv4.errors import CheckpointError, SettingError
from dsv4.model.expert_store import HALF_LIFE, ExpertStore
from dsv4.ops import Ops
from tiny_checkpoint import random_tensors, tiny_config
from verdicts import exact

EXPERTS = 8
SIZE = 30
"""Bytes of an expert of the store alone: ten of each matrix."""


class Reads:
    """A source of experts without a model, which counts what is read of it."""

    nbytes, routed_nbytes, has_mtp, names = 1000, 800, False, ()
    config = SimpleNamespace(num_experts_per_tok=2)

    def __init__(self):
        self.read = []

    def stored_bytes(self, name):
        return 10

    def read_weight(self, name):
        self.read.append(name.removesuffix(".weight"))
        return np.zeros(10, np.uint8)


def store_for(experts, source=None):
    """A store with room for so many experts."""
    return ExpertStore(source or Reads(), Ops(), 200 + experts * SIZE)


def cache_of(nbytes):
    class Cache:
        allocated = nbytes

    return Cache()


def held(store):
    return set(store._held)


def test_what_is_asked_for_again_and_again_stays():
    store = store_for(2)
    for name in "AAAB":
        store.begin_pass(cache_of(0))
        store.take(name)
    store.take("C")
    assert held(store) == {"A", "C"}
    assert (store.reading.reads, store.reading.hits, store.reading.evictions) == (3, 2, 1)
    assert store.reading.nbytes == 3 * SIZE


def test_uses_of_long_ago_count_little():
    store = store_for(2)
    for name in "AAAA":
        store.take(name)
    for _ in range(3 * HALF_LIFE):
        store.begin_pass(cache_of(0))
    store.take("B")
    store.take("C")
    assert held(store) == {"B", "C"}


def test_experts_that_are_awaited_are_not_given_back():
    source = Reads()
    store = store_for(2, source)
    store.ahead(["A", "B"])
    store.ahead(["C"])  # no room as long as the two are awaited
    assert held(store) == {"A", "B"}
    store.take("C")  # read, and not kept
    assert held(store) == {"A", "B"}
    for name in "AB":
        store.take(name)
    assert sorted(source.read) == sorted(f"{name}{matrix}" for name in "ABC" for matrix in ("w1", "w2", "w3"))
    store.ahead(["C"])
    assert "C" in held(store)
    assert store.reading.evictions == 1


def test_what_a_failed_pass_has_asked_for_can_be_given_back():
    store = store_for(2)
    store.ahead(["A", "B"])
    store.begin_pass(cache_of(0))
    for name in "CD":
        store.take(name)
    assert held(store) == {"C", "D"}


def test_caches_take_room_from_experts_and_give_it_back():
    store = store_for(4)
    first = cache_of(2 * SIZE)
    for name in "ABCD":
        store.take(name)
    assert store.nbytes == 4 * SIZE
    store.begin_pass(first)
    assert store.nbytes == store.room == 2 * SIZE
    del first
    assert store.room == 4 * SIZE


def test_a_reader_that_fails_is_reported_where_its_expert_is_taken():
    source = Reads()
    store = store_for(3, source)
    source.read_weight = lambda name: 1 / 0
    store.ahead(["A"])
    with pytest.raises(ZeroDivisionError):
        store.take("A")
    assert held(store) == set()


# --- with a model -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A checkpoint in many shards, so that those of experts hold nothing else."""
    config = tiny_config(True, n_routed_experts=EXPERTS)
    path = tmp_path_factory.mktemp("models") / "tiny"
    write_checkpoint(path, config, random_tensors(config).items(), max_shard_bytes=3500)
    return path


def least_memory(directory):
    """Bytes with which nothing but one token's experts of one layer fit."""
    checkpoint = Checkpoint.open(directory)
    experts = 4 * EXPERTS
    return checkpoint.nbytes - checkpoint.routed_nbytes + 2 * (checkpoint.routed_nbytes // experts)


def logits_of(model, ids, cache):
    parts = [model(part, cache) for part in np.split(ids, range(9, 14), axis=1)]
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("more", [1, 6, 1000])
def test_results_do_not_depend_on_the_budget(directory, more):
    """So many more experts fit than a token needs in a layer."""
    ids = tiny.tokens(0, 1, 14, vocab=24)
    free = load(directory, "numpy")
    cache = free.new_cache(max_rollback=0, drafts=False)
    size = free.checkpoint.routed_nbytes // (4 * EXPERTS)
    bounded = load(directory, "numpy", memory=least_memory(directory) + cache.allocated + more * size)
    caches = cache, bounded.new_cache(max_rollback=0, drafts=False)
    expected, found = logits_of(free, ids, caches[0]), logits_of(bounded, ids, caches[1])
    exact(found, expected)
    store, reading = bounded.store, bounded.store.reading
    assert store.nbytes <= store.room
    assert reading.nbytes == reading.reads * size
    if more == 1000:
        assert (reading.evictions, reading.reads) == (0, len(held(store)))
        assert reading.hits > 0
    else:
        assert reading.evictions > 0
        assert len(held(store)) <= more + 2


def test_no_file_of_an_expert_is_mapped(directory):
    model = load(directory, "numpy", memory=2**30)
    model(tiny.tokens(0, 1, 9, vocab=24))
    checkpoint = model.checkpoint
    mapped = set(checkpoint._maps)
    experts = {entry.file for name, entry in checkpoint.entries.items() if ".ffn.experts.1.w2.weight" in name}
    assert mapped
    assert not mapped & experts


def test_a_hash_layer_has_its_experts_read_before_it_begins(directory):
    model = load(directory, "numpy", memory=2**30)
    expected = {f"layers.0.ffn.experts.{number}." for number in model.layers[0].ffn.gate.tid2eid[[3, 5]].ravel()}
    seen = []
    model([[3, 5]], observe=lambda name, value: seen.append((name, held(model.store))))
    name, before = seen[0]
    assert name.startswith("layers.0.hc_attn.")
    assert before == expected


def test_a_budget_that_is_too_small_is_refused(directory):
    least = least_memory(directory)
    load(directory, "numpy", memory=least)
    with pytest.raises(SettingError, match=rf"^memory: expected at least {least} bytes, for .*, found {least - 1}$"):
        load(directory, "numpy", memory=least - 1)


def test_a_tensor_that_the_file_has_no_longer_is_called_truncated(tmp_path, directory):
    name = "layers.2.ffn.experts.3.w2.weight"
    entry = Checkpoint.open(directory).entries[name]
    content = entry.file.read_bytes()
    end = entry.start + entry.size
    (tmp_path / "cut").write_bytes(content[: end - 1])
    with pytest.raises(CheckpointError, match=f"truncated .*: expected {end} bytes of file, found {end - 1}$"):
        read_tensor(replace(entry, file=tmp_path / "cut"))
    assert read_tensor(entry).tobytes() == content[entry.start : end]


@pytest.mark.parametrize("change", ["truncate", "unlink"])
def test_a_file_that_is_cut_short_or_vanishes_is_one_clear_error(tmp_path, directory, change):
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    model = load(tmp_path, "numpy", memory=2**30)
    weight_map = json.loads((tmp_path / "model.safetensors.index.json").read_text(encoding="utf-8"))["weight_map"]
    alone = {weight_map[f"layers.2.ffn.experts.{number}.w3.weight"] for number in range(EXPERTS)}
    for name in alone:
        if change == "unlink":
            (tmp_path / name).unlink()
        else:
            (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-1])
    message = "expected the file as it was" if change == "truncate" else "expected a readable file, found"
    with pytest.raises(CheckpointError, match=rf"tensor 'layers.2.ffn.experts.*: {message}") as caught:
        model([[3, 5, 7, 9]])
    assert "\n" not in str(caught.value)
