"""The table of shapes, against a real pass and against the table of parameters."""

import re
from functools import cache

import numpy as np
import pytest

import tiny
from dsv4.checkpoint import read_config
from dsv4.config import CSA_RATIO, HCA_RATIO
from dsv4.ops import Ops
from dsv4.parameters import parameters
from dsv4.pictures.shapes import MEANINGS, TABLES, dimensions
from dsv4.pictures.shapes_page import find_weight, shapes_page
from pictures.stored import ROOT

LENGTH = 270
ROWS = [(table, row) for table in TABLES for row in table.rows]
NAMED = [pytest.param(table, row, id=f"{table.title}: {row.name}") for table, row in ROWS]
CONFIGS = {size: read_config(ROOT / f"tests/data/configs/deepseek-v4-{size}.json") for size in ("flash", "pro")}

parameters_of = cache(parameters)
"""The same ones are asked for in many tests, and the table of Pro's is long."""

PLACES = {"any": (0, 1, 2, 3), "CSA": (1, 3), "HCA": (2,)}
"""The layers of the tiny model that a table is about."""


@pytest.fixture(scope="module")
def seen():
    """The observer's results of a pass over one text, with the logits and the streams."""
    model, found = tiny.model(Ops()), {}
    ids = tiny.tokens(3, LENGTH)
    states = model.states(ids[None], observe=lambda name, result: found.update({name: result}))
    found["logits"] = model.head(states)
    return found


@pytest.mark.parametrize(("table", "row"), NAMED)
def test_every_axis_has_a_size_and_every_weight_exists(table, row):
    sizes = dimensions(tiny.CONFIG, LENGTH)
    known = parameters(tiny.CONFIG)
    assert all(sizes[axis] > 0 for axis in row.shape)
    for name in row.weights:
        assert find_weight(table, name, known).name.endswith(name)


@pytest.mark.parametrize(("table", "row"), [case for case in NAMED if case.values[1].observed])
def test_the_shapes_are_those_of_a_real_pass(seen, table, row):
    sizes = dimensions(tiny.CONFIG, LENGTH)
    expected = tuple(sizes[axis] for axis in row.shape)
    for layer in PLACES[table.place]:
        found = seen[f"layers.{layer}.{row.observed}"].shape
        batch = () if row.observed.startswith("ffn.gate") else (1,)  # the gate takes all tokens of a batch in a row
        assert found == (*batch, *expected)


def test_the_shapes_of_what_nobody_observes(seen):
    """The logits, the window and the sizes that only the operations see."""
    config, sizes = tiny.CONFIG, dimensions(tiny.CONFIG, LENGTH)
    assert seen["logits"].shape == (1, sizes["S"], sizes["V"])
    assert (sizes["T"], sizes["T′"]) == (LENGTH // 4, LENGTH // 128)
    assert sizes["w+k"] == config.sliding_window + seen["layers.1.attn.indexer.topk"].shape[-1]
    assert sizes["w+T′"] == config.sliding_window + seen["layers.2.attn.compressor.out"].shape[1]
    blocks = np.zeros((1, sizes["T"] + 1, sizes["m"], sizes["2c"]))
    assert Ops.overlap(blocks).shape == (1, sizes["T"], sizes["2m"], sizes["c"])
    assert (sizes["m"], sizes["m′"]) == (CSA_RATIO, HCA_RATIO)


@pytest.mark.parametrize(("table", "row"), [case for case in NAMED if case.values[1].weights])
@pytest.mark.parametrize("size", CONFIGS)
def test_a_product_gives_as_many_channels_as_its_weight_has_rows(table, row, size):
    config = CONFIGS[size]
    sizes, known = dimensions(config, 1000), parameters_of(config)
    for name in row.weights:
        weight = find_weight(table, name, known)
        per_token = np.prod([sizes[axis] for axis in row.shape[1:]])
        per_row = sizes[row.shape[-1]]
        if name == "embed.weight":
            assert weight.shape == (sizes["V"], per_row)
        elif name == "attn.attn_sink":
            assert weight.shape == (sizes["H"],)
        elif name.endswith("gate.bias"):
            assert weight.shape == (sizes["E"],)
        elif name.endswith(".ape"):
            assert weight.shape == ({"CSA": sizes["m"], "HCA": sizes["m′"]}[table.place], per_row)
        elif len(weight.shape) == 2:
            assert weight.shape[0] in (per_token, per_row)
        elif not name.endswith("scale"):
            assert weight.shape in ((per_row,), (sizes["d"],))


def test_every_parameter_of_a_model_is_in_the_table():
    """Less those shaped like others: of the second hyper-connection, of other experts, of the MTP's block."""
    known = parameters(tiny.CONFIG)
    listed = {
        re.sub(r"^layers\.\d+\.", "", find_weight(table, name, known).name)
        for table, row in ROWS
        for name in row.weights
    }
    for name in known:
        short = re.sub(r"^layers\.\d+\.", "", name)
        short = (
            re.sub(r"\.experts\.\d+\.", ".experts.0.", short).replace("hc_ffn", "hc_attn").replace("tid2eid", "bias")
        )
        inside_mtp = short.removeprefix("mtp.0.")
        assert short in listed or inside_mtp in listed, name


def test_the_page_gives_each_letter_and_each_row_with_the_sizes_of_both_models():
    configs = {"small": tiny.CONFIG, "wide": tiny.config(hidden_size=48)}
    page = shapes_page(configs, 270)
    lines = page.splitlines()
    assert "| `d` | hidden_size | 16 | 48 |" in lines
    assert "| `T` | CSA entries, ⌊S/m⌋ | 67 | 67 |" in lines
    assert "| embedding | `[S, d]` | [270, 16] | [270, 48] | `embed.weight` | [40, 16] | [40, 48] | bf16 |" in lines
    assert sum(line.startswith("| `") for line in lines) == len(MEANINGS)
    for table, row in ROWS:
        assert f"## {table.title}" in lines
        assert any(line.startswith(f"| {row.name} | `[{', '.join(row.shape)}]` |") for line in lines)


def test_a_model_without_a_kind_of_layer_or_mtp_has_none_of_their_weights():
    config = tiny.config(compress_ratios=(0, 4), num_nextn_predict_layers=0)
    known = parameters(config)
    places = {table.place: table for table in TABLES}
    assert find_weight(places["HCA"], "attn.compressor.ape", known) is None
    assert find_weight(places["mtp"], "e_proj.weight", known) is None
    assert find_weight(places["CSA"], "attn.compressor.ape", known).name == "layers.1.attn.compressor.ape"
    assert "none" in shapes_page({"small": config}, 30)
