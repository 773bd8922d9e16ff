"""V4.1 in a bounded memory: layers and experts come and go, rows of tables are read, and results stay what they are."""

import numpy as np
import pytest

import dsv4
import tiny
from dsv4.checkpoint import open_checkpoint, reading
from dsv4.errors import CheckpointError, SettingError
from dsv4.model.stored_experts import expert_group
from dsv4.model.stored_layers import draft_weights, outside
from dsv4.model.weight_store import WeightStore
from dsv4.model41.model import Model41
from dsv4.ops import Ops
from model41.golden41 import GOLDEN, expected, prompt
from verdicts import exact

FLOAT, QUANT = "v41_float", "v41_quant"
TABLE = "engram.embed.weight"


@pytest.fixture(autouse=True)
def with_classes(monkeypatch):
    """The small models have no tokenizer: their classes are handed over where a tokenizer's would be."""
    monkeypatch.setattr("dsv4.loading.Tokenizer.from_file", lambda directory: directory.name)
    monkeypatch.setattr("dsv4.loading.token_classes", lambda name, config: expected(name)["engram.token_map"])


def load(name, memory=None):
    return dsv4.load(GOLDEN / name, backend="numpy", memory=memory)


def sizes(checkpoint):
    """Bytes of an expert, of each layer without experts and tables, and of what stays."""
    names = checkpoint.parameters

    def bytes_of(chosen):
        return sum(map(checkpoint.stored_bytes, chosen))

    layers = [
        bytes_of(
            name
            for name in names
            if name.startswith(f"layers.{n}.") and ".ffn.experts." not in name and not name.endswith(TABLE)
        )
        for n in range(checkpoint.config.num_hidden_layers)
    ]
    return bytes_of(expert_group("layers.0.ffn.experts.0.").weights), layers, bytes_of(outside(names))


def least_memory(checkpoint):
    """Bytes with which nothing but one layer fits, with one token's experts."""
    expert, layers, stays = sizes(checkpoint)
    return stays + max(layers) + checkpoint.config.num_experts_per_tok * expert


def logits_of(model, ids, cache):
    return np.concatenate(
        [model.ops.to_numpy(model(part, cache)) for part in np.split(ids, (30, 40, 41, 42), axis=1)], 1
    )


@pytest.mark.parametrize("name", [FLOAT, QUANT])
@pytest.mark.parametrize("more", ["nothing", "two experts", "a layer", "everything"])
def test_results_do_not_depend_on_the_budget(backend, name, more):
    """Where not all experts of the prompt fit, they come in turns; the tables are outside of the budget."""
    checkpoint, ids = open_checkpoint(GOLDEN / name), prompt(name, "p0")[0][None, :50]
    classes = expected(name)["engram.token_map"]
    expert, layers, _ = sizes(checkpoint)
    added = {"nothing": 0, "two experts": 2 * expert, "a layer": max(layers), "everything": 2**30}[more]
    rounds = checkpoint.config.quantised
    free = Model41(checkpoint, backend, rounds, token_classes=classes)
    cache = free.new_cache(max_rollback=0, drafts=False)
    whole = logits_of(free, ids, cache)
    store = WeightStore(checkpoint, backend, least_memory(checkpoint) + cache.allocated + added)
    bounded = Model41(checkpoint, backend, rounds, token_classes=classes, store=store)
    over, make_room = [], store._make_room
    store._make_room = lambda nbytes: (make_room(nbytes), over.append(store.nbytes + nbytes - store._room))
    own = bounded.new_cache(max_rollback=0, drafts=False)
    exact(logits_of(bounded, ids, own), whole)
    assert max(over) <= 0 and store.room == store.memory - store._kept - own.allocated
    assert (store.reading.evictions == 0) == (more == "everything")
    if more == "everything":
        assert store.reading.reads == len(store._held)
        assert store.reading.nbytes == store.nbytes < checkpoint.nbytes


def test_a_budget_that_is_too_small_is_refused():
    least = least_memory(open_checkpoint(GOLDEN / FLOAT))
    load(FLOAT, least)
    with pytest.raises(SettingError, match=rf"^memory: expected at least {least} bytes, for .*, found {least - 1}$"):
        load(FLOAT, least - 1)


@pytest.fixture
def read(monkeypatch):
    """(tensor, bytes) of everything that is read from files."""
    found, read_tensor = [], reading.read_tensor

    def noted(entry):
        found.append((entry.stored_name, entry.size))
        return read_tensor(entry)

    monkeypatch.setattr(reading, "read_tensor", noted)
    return found


def test_of_a_table_the_rows_that_tokens_name_are_read_and_no_others(read):
    model, ids = load(QUANT, 2**30), prompt(QUANT, "p0")[0][:20]
    rows = {}
    model(ids, observe=lambda name, value: name.endswith("hash_ids") and rows.__setitem__(name, np.unique(value)))
    engram = model.config.engram
    assert len(rows) == len(engram.layer_ids)
    for layer in engram.layer_ids:
        count = len(rows[f"layers.{layer}.engram.hash_ids"])
        for part, width in (("weight", engram.head_dim), ("scale", engram.head_dim // 32)):
            of_table = [size for name, size in read if name == f"layers.{layer}.engram.embed.{part}"]
            assert of_table == [width] * count
    assert not model.checkpoint._maps, "no file is mapped"


def test_a_token_reads_what_does_not_fit_and_its_experts_and_no_more():
    checkpoint = open_checkpoint(GOLDEN / QUANT)
    expert, layers, stays = sizes(checkpoint)
    model = load(QUANT, 2**30)
    cache = model.new_cache(max_rollback=0, drafts=False)
    model.store.memory = stays + sum(layers) + model.config.num_experts_per_tok * expert + cache.allocated
    model([[3]], cache)
    chosen = []
    for token in (5, 3, 20):
        before, evictions = model.store.reading.nbytes, model.store.reading.evictions
        chosen.clear()
        model([[token]], cache, observe=lambda name, value: "gate.indices" in name and chosen.extend(np.unique(value)))
        assert 0 < model.store.reading.nbytes - before <= len(chosen) * expert
        assert model.store.reading.evictions > evictions


def test_texts_with_drafts_are_the_same_in_less_than_half_of_the_memory():
    ids = [prompt(QUANT, row)[0][:length] for row, length in (("p0", 20), ("p1", 9))]
    texts = []
    checkpoint = open_checkpoint(GOLDEN / QUANT)
    drafter = sum(map(checkpoint.stored_bytes, draft_weights(checkpoint.parameters)))
    for memory in (None, least_memory(checkpoint) + drafter + 600_000):
        model = load(QUANT, memory)
        tokens = dsv4.generate(model, ids, 12, temperature=0, stop_ids=[], speculative=True)
        texts.append([(token.sequence, token.id) for token in tokens])
    assert texts[0] == texts[1]
    assert model.store.reading.evictions > 0
    assert model.store.memory < checkpoint.nbytes / 2


def test_what_drafts_is_read_when_something_is_drafted():
    model = load(FLOAT, 2**30)
    model([[3, 5]], model.new_cache(drafts=False))
    names, bytes_of = list(model.checkpoint.parameters), model.store.bytes_of
    assert model.store._kept == bytes_of(outside(names))
    assert model.dspark is not None
    assert model.store._kept == bytes_of(outside(names)) + bytes_of(draft_weights(names))
    least = least_memory(model.checkpoint) + bytes_of(draft_weights(names))
    with pytest.raises(SettingError, match=rf"^memory: expected at least {least} bytes, for the head, what drafts"):
        _ = load(FLOAT, least - 1).dspark


@pytest.mark.parametrize("name", ["layers.1.engram.wkv.weight", f"layers.1.{TABLE}", "layers.6.attn.indexer.wk.weight"])
def test_every_kind_of_weight_is_missed_when_it_is_gone(monkeypatch, name):
    model, read_tensor = load(FLOAT, 2**30), reading.read_tensor

    def gone(entry):
        if entry.stored_name == name:
            raise CheckpointError(f"{entry}: expected a readable file, found: No such file")
        return read_tensor(entry)

    monkeypatch.setattr(reading, "read_tensor", gone)
    with pytest.raises(CheckpointError, match=rf"tensor '{name}': expected a readable file, found: No such file"):
        model([[3, 5, 7, 9]])


def test_a_row_that_is_no_number_is_named(tmp_path):
    """Which a mapped table, whose values nobody looks at, would hand on."""
    source = open_checkpoint(GOLDEN / QUANT)
    entry = source.entries[f"layers.1.{TABLE}"]
    copy = tmp_path / QUANT
    copy.mkdir()
    for file in (GOLDEN / QUANT).glob("*.*"):
        if file.name in ("config.json", "model.safetensors"):
            (copy / file.name).write_bytes(file.read_bytes())
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[entry.start : entry.start + entry.size] = b"\x7f" * entry.size
    (copy / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"layers\.1\.engram\.embed\.weight' at \[0, 0\]: expected an FP8 number"):
        dsv4.load(copy, "numpy", memory=2**30)([[3, 5]])


def test_rows_are_those_of_the_table():
    checkpoint = open_checkpoint(GOLDEN / QUANT)
    table, rows = checkpoint.weight(f"layers.1.{TABLE}"), np.array([0, 5, 303])
    found = checkpoint.read_rows(f"layers.1.{TABLE}", rows)
    np.testing.assert_array_equal(found.codes, table.codes[rows])
    np.testing.assert_array_equal(found.scales, table.scales[rows])
    assert found.block == table.block
    np.testing.assert_array_equal(
        WeightStore(checkpoint, Ops(), 2**30).table_rows(f"layers.1.{TABLE}", np.array([[5, 0], [5, 303]])),
        dsv4.ops.dequantise(table)[[[5, 0], [5, 303]]],
    )


def test_a_layer_by_itself(backend):
    ids = tiny.tokens(0, 1, 5)
    models = [load(FLOAT, memory) for memory in (None, 2**30)]
    outs = []
    for model in models:
        streams = model.first_streams(ids)
        pre = np.eye(4, dtype=np.float32)[0] + np.zeros((1, 5, 1), np.float32)
        outs.append(model.layer(1, streams, pre, ids, dsv4.model41.source.Published())[0])
    exact(*outs)
