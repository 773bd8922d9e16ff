"""Weights in a bounded memory: what is read, what is given back, and that results do not depend on it."""

import gc
import json
import mmap
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from dsv4 import load
from dsv4.checkpoint import Checkpoint, direct, write_checkpoint
from dsv4.checkpoint.direct import read_tensor
from dsv4.errors import CheckpointError, SettingError
from dsv4.model.model import Model
from dsv4.model.stored_experts import expert_group
from dsv4.model.stored_layers import draft_weights, outside
from dsv4.model.weight_groups import Group
from dsv4.model.weight_store import HALF_LIFE, WeightStore
from dsv4.ops import Ops
from dsv4.text.generate import generate
from tiny_checkpoint import random_tensors, tiny_config
from verdicts import exact

EXPERTS = 8
SIZE = 10
"""Bytes of a weight of the store alone, where no other size is given."""


class Reads:
    """A source of weights without a model, which counts what is read of it."""

    def __init__(self, sizes=None):
        self.read, self.sizes = [], sizes or {}

    def stored_bytes(self, name):
        return self.sizes.get(name, SIZE)

    def read_weight(self, name):
        self.read.append(name)
        return np.zeros(self.stored_bytes(name), np.uint8)


def store_for(count, source=None):
    """A store with room for so many weights of one size."""
    return WeightStore(source or Reads(), Ops(), count * SIZE)


def group(name, place=None):
    """A group of one weight, which is called as the group."""
    return Group(name, (name,), lambda weights: weights[name], place)


def groups(names):
    return [group(name) for name in names]


def use(store, names, place=None):
    """Use some groups, one after the other."""
    for name in names:
        with store.use([group(name, place)]):
            pass


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
        use(store, name)
    use(store, "C")
    assert held(store) == {"A", "C"}
    assert (store.reading.reads, store.reading.hits, store.reading.evictions) == (3, 2, 1)
    assert store.reading.nbytes == 3 * SIZE


def test_uses_of_long_ago_count_little():
    store = store_for(2)
    use(store, "AAAA")
    for _ in range(3 * HALF_LIFE):
        store.begin_pass(cache_of(0))
    use(store, "BC")
    assert held(store) == {"B", "C"}


def test_how_useful_a_group_was_is_not_forgotten_with_it():
    store = store_for(2)
    use(store, "AAAABBBBB")
    use(store, "CC")
    assert held(store) == {"B", "C"}
    use(store, "AAD")
    assert held(store) == {"A", "D"}, "A was asked for six times in all, B five times"


def test_layers_stay_before_experts_and_the_first_ones_before_the_last():
    """Layers come round and round: to drop the one that was used longest ago would drop the one that comes next."""
    source = Reads()
    store = store_for(3, source)
    for _ in range(4):
        store.begin_pass(cache_of(0))
        for number in range(5):
            use(store, [f"layer{number}"], place=number)
            use(store, ["expert"])
    store.begin_pass(cache_of(0))
    assert {"layer0", "layer1"} <= held(store)
    assert source.read.count("layer0") == source.read.count("layer1") == 1
    assert source.read.count("layer4") == 4


def test_what_is_awaited_is_not_given_back():
    source = Reads()
    store = store_for(2, source)
    store.ahead(groups("AB"))
    store.ahead(groups("C"))  # no room as long as the two are awaited
    assert held(store) == {"A", "B"}
    use(store, "AB")
    store.ahead(groups("C"))
    assert "C" in held(store)
    assert store.reading.evictions == 1
    use(store, "C")
    assert sorted(source.read) == ["A", "B", "C"]


def test_room_is_left_where_it_is_asked_for():
    store = store_for(3)
    store.ahead(groups("AB"), leave=2 * SIZE)
    assert held(store) == {"A"}


def test_what_is_computed_with_stays():
    store = store_for(2)
    with store.use(groups("AB")):
        use(store, "CD")
        assert {"A", "B"} <= held(store)
    store.begin_pass(cache_of(0))
    assert store.nbytes == 2 * SIZE


def test_what_a_failed_pass_has_asked_for_can_be_given_back():
    store = store_for(2)
    store.ahead(groups("AB"))
    store.begin_pass(cache_of(0))
    use(store, "CD")
    assert held(store) == {"C", "D"}


def test_caches_take_room_and_give_it_back():
    store = store_for(4)
    first = cache_of(2 * SIZE)
    use(store, "ABCD")
    assert store.nbytes == 4 * SIZE
    store.begin_pass(first)
    assert store.nbytes == store.room == 2 * SIZE
    del first
    assert store.room == 4 * SIZE


def test_weights_that_stay_take_room():
    store = store_for(3)
    store.keep("head")
    assert store.room == 2 * SIZE
    with pytest.raises(SettingError, match=r"^memory: expected at least 40 bytes, for more, found 30$"):
        store.require_room(3 * SIZE, "more")


@pytest.mark.parametrize("asked", ["used", "never used"])
def test_a_reader_that_fails_is_reported_where_its_weight_is_used(asked):
    source = Reads()
    store = store_for(3, source)
    source.read_weight = lambda name: 1 / 0
    store.ahead(groups("A"))
    if asked == "used":
        with pytest.raises(ZeroDivisionError):
            use(store, "A")
    else:
        store.begin_pass(cache_of(0))
    assert (held(store), store.nbytes, store._needed) == (set(), 0, 0)


def test_what_is_noted_does_not_grow_with_the_number_of_uses():
    store = store_for(3)
    use(store, 500 * "ABC")
    assert (store.reading.hits, len(held(store))) == (1497, 3)
    assert len(store._free) < 100


class Plainly:
    """What the groups of a store are worth by their definition: every number is summed up anew from all uses."""

    def __init__(self):
        self.uses, self.passes = {}, 0

    def worth(self, name):
        """(1, −place) of a layer, and (0, uses, each half as much after HALF_LIFE passes) of an expert."""
        if name.isdigit():
            return 1, -int(name)
        return 0, sum(0.5 ** ((self.passes - when) / HALF_LIFE) for when in self.uses.get(name, ()))

    def at_most(self, one, other):
        """Whether the first is worth no more, but for rounding."""
        (kind, worth), (other_kind, other_worth) = self.worth(one), self.worth(other)
        return kind < other_kind or (kind == other_kind and worth <= other_worth + 1e-9 * abs(other_worth))


NAMES = [*"ABCDEFGH", "0", "1", "2", "3"]
SIZES = st.lists(st.integers(1, 9), min_size=len(NAMES), max_size=len(NAMES))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("use"), st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)),
        st.tuples(st.just("ahead"), st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)),
        st.tuples(st.just("pass"), st.integers(1, 2 * HALF_LIFE)),
    ),
    max_size=60,
)


@given(
    steps=STEPS, sizes=st.lists(st.integers(1, 9), min_size=len(NAMES), max_size=len(NAMES)), room=st.integers(9, 60)
)
def test_a_store_does_what_its_definition_says(steps, sizes, room):
    """Its sums are those of all groups in memory; only what nobody needs goes, the least useful first, and no more."""
    sizes = dict(zip(NAMES, sizes, strict=True))
    store, plain, awaited = WeightStore(Reads(sizes), Ops(), room), Plainly(), set()
    for what, given_step in steps:
        before = held(store)
        free = before - awaited
        if what == "pass":
            for _ in range(given_step):
                store.begin_pass(cache_of(0))
            plain.passes += given_step
            awaited = set()
        else:
            wanted = [group(name, int(name) if name.isdigit() else None) for name in given_step]
            free -= set(given_step)
            if what == "ahead":
                store.ahead(wanted)
                awaited |= set(given_step) & held(store)
            else:
                with store.use(wanted):
                    assert set(given_step) <= held(store)
                    needed = awaited | set(given_step)
                    assert store._needed == sum(sizes[name] for name in needed & held(store))
                    assert store.nbytes <= max(room, store._needed)
                awaited -= set(given_step)
        used = set(given_step) if what == "use" else set()
        for name in used:
            plain.uses.setdefault(name, []).append(plain.passes)
        gone = before - held(store)
        assert gone - used <= (before if what == "pass" else free)
        assert all(plain.at_most(one, other) for one in gone - used for other in free & held(store))
        assert all(plain.at_most(one, other) for one in gone & used for other in held(store) - awaited)
        assert store.nbytes == sum(sizes[name] for name in held(store))
        assert store._needed == sum(sizes[name] for name in awaited)
        if gone and what == "ahead":
            assert store.nbytes + max(sizes[name] for name in gone) > room


# --- with a model -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A checkpoint in many shards, so that those of experts hold nothing else. Prompts ask for most of its experts."""
    config = tiny_config(True, n_routed_experts=EXPERTS)
    path = tmp_path_factory.mktemp("models") / "tiny"
    tensors = random_tensors(config)
    tensors |= {name: 0 * bias for name, bias in tensors.items() if name.endswith("gate.bias")}
    write_checkpoint(path, config, tensors.items(), max_shard_bytes=3500)
    return path


def bytes_of(directory, names):
    return sum(map(Checkpoint.open(directory).stored_bytes, names))


def sizes(directory):
    """Bytes of an expert, of the largest layer without experts, and of what stays."""
    weights = Checkpoint.open(directory).parameters
    layers = [
        bytes_of(directory, (name for name in weights if name.startswith(f"layers.{n}.") and ".experts." not in name))
        for n in range(3)
    ]
    return (
        bytes_of(directory, expert_group("layers.0.ffn.experts.0.").weights),
        layers,
        bytes_of(directory, outside(weights)),
    )


def least_memory(directory):
    """Bytes with which nothing but one layer fits, with one token's experts."""
    expert, layers, outside = sizes(directory)
    return outside + max(layers) + 2 * expert


def logits_of(model, ids, cache):
    parts = [model(part, cache) for part in np.split(ids, range(9, 14), axis=1)]
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("more", ["nothing", "two experts", "a layer", "everything"])
def test_results_do_not_depend_on_the_budget(backend, directory, more):
    """More room than the least: where not all experts of the prompt fit, they come in turns, on every backend."""
    expert, layers, _ = sizes(directory)
    added = {"nothing": 0, "two experts": 2 * expert, "a layer": max(layers), "everything": 2**30}[more]
    ids = tiny.tokens(0, 1, 14, vocab=24)
    checkpoint = Checkpoint.open(directory)
    free = Model(checkpoint, backend, fake_quant=True)
    cache = free.new_cache(max_rollback=0, drafts=False)
    expected = logits_of(free, ids, cache)
    store = WeightStore(checkpoint, backend, least_memory(directory) + cache.allocated + added)
    bounded = Model(checkpoint, backend, fake_quant=True, store=store)
    most = []
    make_room = store._make_room
    store._make_room = lambda nbytes: (make_room(nbytes), most.append(store.nbytes + nbytes))
    own = bounded.new_cache(max_rollback=0, drafts=False)
    found = logits_of(bounded, ids, own)
    exact(backend.to_numpy(found), backend.to_numpy(expected))
    assert max(most) <= store.room == store.memory - store._kept - own.allocated
    if more == "everything":
        assert (store.reading.evictions, store.reading.reads) == (0, len(held(store)))
        assert store.reading.nbytes == store.nbytes
        assert store.reading.hits > 0
    else:
        assert store.reading.evictions > 0


def test_a_token_reads_what_does_not_fit_and_its_experts_and_no_more(directory):
    """With room for all layers and one layer's experts, a token reads the experts that it asks for and nothing else."""
    expert, layers, outside = sizes(directory)
    model = load(directory, "numpy", memory=outside + sum(layers) + 2 * expert + 2**16)
    cache = model.new_cache(max_rollback=0, drafts=False)
    model.store.memory = outside + sum(layers) + 2 * expert + cache.allocated
    model([[3]], cache)
    chosen = []
    for token in (5, 3, 20):
        before = model.store.reading.nbytes
        chosen.clear()
        model([[token]], cache, observe=lambda name, value: "gate.indices" in name and chosen.extend(np.unique(value)))
        assert model.store.reading.nbytes - before <= len(chosen) * expert


def test_experts_of_a_prompt_are_read_once_each_even_in_turns(directory):
    checkpoint = Checkpoint.open(directory)
    ids = tiny.tokens(0, 1, 14, vocab=24)
    cache = Model(checkpoint, Ops(), fake_quant=True).new_cache(max_rollback=0, drafts=False)
    store = WeightStore(checkpoint, Ops(), least_memory(directory) + cache.allocated)
    model = Model(checkpoint, Ops(), fake_quant=True, store=store)
    read, begin_reading = [], store._begin_reading
    store._begin_reading = lambda group: read.append(group.name) or begin_reading(group)
    seen = set()

    def observe(name, value):
        if name.endswith("gate.indices"):
            seen.update(name.replace("gate.indices", f"experts.{number}.") for number in np.unique(value))

    model(ids, model.new_cache(max_rollback=0, drafts=False), observe=observe)
    assert sorted(read) == sorted([*seen, *(f"layers.{n}." for n in range(3))])
    assert len(seen) > 3 * 6


def test_no_file_is_mapped(directory):
    model = load(directory, "numpy", memory=2**30)
    model(tiny.tokens(0, 1, 9, vocab=24))
    model.mtp_logits(model.states([[3, 5]]), [[5, 7]])
    assert not model.checkpoint._maps


def test_what_drafts_is_read_when_something_is_drafted(directory):
    model = load(directory, "numpy", memory=2**30)
    model([[3, 5]], model.new_cache(drafts=False))
    kept = model.store._kept
    weights = list(model.checkpoint.parameters)
    assert kept == bytes_of(directory, outside(weights))
    assert model.mtp is not None
    assert model.store._kept == kept + bytes_of(directory, draft_weights(weights))


def test_a_budget_without_room_for_what_drafts_is_refused_when_it_is_needed(directory):
    least = least_memory(directory) + bytes_of(directory, draft_weights(Checkpoint.open(directory).parameters))
    model = load(directory, "numpy", memory=least - 1)
    with pytest.raises(SettingError, match=rf"^memory: expected at least {least} bytes, for the head, what drafts"):
        model.mtp_logits(model.states([[3, 5]]), [[5, 7]])


def test_a_hash_layer_has_its_experts_read_before_it_begins(directory):
    model = load(directory, "numpy", memory=2**30)
    table = Checkpoint.open(directory).tensor("layers.0.ffn.gate.tid2eid")
    expected = {f"layers.0.ffn.experts.{number}." for number in table[[3, 5]].ravel()}
    seen = []
    model([[3, 5]], observe=lambda name, value: seen.append((name, held(model.store))))
    name, before = seen[0]
    assert name.startswith("layers.0.hc_attn.")
    assert {name for name in before if ".experts." in name} == expected


def test_the_next_layer_is_read_while_one_computes(directory):
    model = load(directory, "numpy", memory=2**30)
    seen = {}
    model([[3, 5]], observe=lambda name, value: seen.setdefault(name.split(".")[1], held(model.store)))
    assert [f"layers.{int(number) + 1}." in seen[number] for number in "012"] == [True, True, False]


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
    with pytest.raises(CheckpointError, match=rf"tensor 'layers.2.ffn.*: {message}") as caught:
        model([[3, 5, 7, 9]])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["embed.weight", "layers.1.attn.wq_b.weight", "layers.2.ffn.shared_experts.w1.weight"])
def test_every_kind_of_weight_is_read_anew_and_missed_when_it_is_gone(tmp_path, directory, name):
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    model = load(tmp_path, "numpy", memory=2**30)
    model.checkpoint.entries[name].file.unlink()
    with pytest.raises(CheckpointError, match=rf"tensor '{name}': expected a readable file, found: No such file"):
        model([[3, 5, 7, 9]])
    assert not any(one.is_needed for one in model.store._held.values() if one.users)


def test_a_disk_that_fails_while_it_is_read_is_one_clear_error(monkeypatch, directory):
    model = load(directory, "numpy", memory=2**30)

    def failing(entry):
        raise CheckpointError(f"{entry}: expected a readable file, found: Input/output error")

    monkeypatch.setattr("dsv4.checkpoint.reading.read_tensor", failing)
    with pytest.raises(CheckpointError, match=r": expected a readable file, found: Input/output error$"):
        model([[3, 5, 7, 9]])


def test_values_are_checked_when_a_weight_is_read_first_and_not_again(monkeypatch, directory):
    checkpoint, checked = Checkpoint.open(directory), []
    monkeypatch.setattr("dsv4.checkpoint.reading.values.check_numbers", lambda values, entry: checked.append(entry))
    for _ in range(2):
        checkpoint.read_weight("layers.0.ffn.experts.1.w1.weight")
    assert len(checked) == 1


@pytest.mark.parametrize(("release", "size"), [("dspark_quant", 2_500_000), ("quantized", 1_200_000)])
def test_texts_with_drafts_are_the_same(release, size):
    """DSpark and MTP draft in a bounded memory, too."""
    path = Path(__file__).parents[1] / "data" / "golden" / release
    texts = []
    for memory in (None, size):
        model = load(path, "numpy", memory=memory)
        tokens = generate(model, [[5, 3, 9, 2], [8, 1]], 12, temperature=0, stop_ids=[], speculative=True)
        texts.append([(token.sequence, token.id) for token in tokens])
    assert texts[0] == texts[1]
    assert model.store.reading.evictions > 0


def test_a_large_tensor_has_pages_to_itself(directory, monkeypatch):
    """Which go back to the system with it, whatever the C library keeps of what it frees."""
    monkeypatch.setattr(direct, "LARGE", 100)
    entries = Checkpoint.open(directory).entries
    large, small = entries["layers.1.attn.wq_b.weight"], entries["layers.1.attn.attn_sink"]
    assert isinstance(read_tensor(large).base, mmap.mmap)
    assert read_tensor(small).base is None
    for entry in (large, small):
        assert read_tensor(entry).tobytes() == entry.file.read_bytes()[entry.start : entry.start + entry.size]


def test_a_checkpoint_without_what_drafts_has_none_in_a_bounded_memory(tmp_path):
    config = tiny_config(True)
    write_checkpoint(tmp_path / "m", config, random_tensors(config, include_mtp=False).items())
    model = load(tmp_path / "m", "numpy", memory=2**30)
    assert model.mtp is model.dspark is None
    assert model.new_cache().mtp.layers == []


def test_a_model_is_gone_when_nobody_has_it(directory):
    """What drafts does not keep it: its arrays would stay until Python looks for circles."""
    model = load(directory, "numpy")
    assert model.mtp is not None
    gone = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()
