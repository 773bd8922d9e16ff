"""The released checkpoint of V4.1 as far as its headers go: the official table of tensors, checked without a weight."""

import json
import re
from collections import Counter
from math import prod
from pathlib import Path

import numpy as np
import pytest

from command import runner
from dsv4.checkpoint import Checkpoint41, open_checkpoint, read_config41
from dsv4.checkpoint.header import DTYPES
from dsv4.cli.quantities import size_of
from dsv4.errors import CheckpointError
from dsv4.parameters41 import parameters41
from released_headers import stored_tensors, write_headers

CONFIGS = Path(__file__).parents[1] / "data" / "configs"
CONFIG = CONFIGS / "deepseek-v4.1-flash.json"
TABLE = CONFIGS / "deepseek-v4.1-flash.tensors.txt"
"""Lines of a count, a name with N for layers and J for experts, a dtype and a shape; from the released headers."""

BYTES = 510_286_023_000
"""All tensors together, vision included; as the released index says."""

VISION = ("vision.", "aligner.", "image_")


def official() -> Counter:
    """How many tensors there are of each name, dtype and shape."""
    rows = (line.split(maxsplit=3) for line in TABLE.read_text(encoding="utf-8").splitlines())
    table = Counter()
    for count, name, dtype, shape in rows:
        table[name, dtype, tuple(json.loads(shape))] += int(count)
    return table


def pattern_of(name: str) -> str:
    """A name with N for the number of the layer and J for that of the expert."""
    return re.sub(r"experts\.\d+\.", "experts.J.", re.sub(r"^(layers|mtp|vision\.blocks)\.\d+\.", r"\1.N.", name))


def text_tensors():
    return stored_tensors(parameters41(read_config41(CONFIG)).values())


def vision_tensors():
    """Each of them, numbered where the table has several."""
    tensors = {}
    for (name, dtype, shape), count in official().items():
        if name.startswith(VISION):
            tensors |= {name.replace(".N.", f".{number}."): (dtype, list(shape)) for number in range(count)}
    return tensors


def test_names_dtypes_and_shapes_are_the_official_ones():
    ours = Counter(
        (pattern_of(name), dtype, tuple(shape)) for name, (dtype, shape) in (text_tensors() | vision_tensors()).items()
    )
    assert ours == official()
    assert ours.total() == 96_085
    sizes = (count * prod(shape) * np.dtype(DTYPES[dtype]).itemsize for (_, dtype, shape), count in ours.items())
    assert sum(sizes) == BYTES


@pytest.fixture
def dsv4(monkeypatch, capfd):
    """Run the command in this process: arguments -> exit status, standard output, standard error."""
    return runner(monkeypatch, capfd)


def test_all_tensors_are_checked_by_their_headers_and_those_of_vision_are_left_out(tmp_path, dsv4):
    vision = vision_tensors()
    write_headers(tmp_path, CONFIG, text_tensors() | vision)
    checkpoint = open_checkpoint(tmp_path)
    checkpoint.validate()
    assert isinstance(checkpoint, Checkpoint41)
    assert len(checkpoint.entries) == 96_085 - len(vision)
    assert {entry.stored_name for entry in checkpoint.left_out.values()} == vision.keys()
    assert not any(name.startswith(VISION) for name in checkpoint.names)
    size = sum(entry.size for entry in checkpoint.entries.values())
    left_out = sum(entry.size for entry in checkpoint.left_out.values())
    assert size + left_out == BYTES
    status, out, _ = dsv4("inspect", tmp_path)
    assert status == 0
    told = f"not read: {len(vision)} tensors of the vision encoder, {size_of(left_out)}; this is the text path"
    assert told in out
    assert "748B parameters, 16.1B active" in out
    assert [line.split()[0] for line in out.splitlines() if line.endswith(", with Engram")] == ["layers.1", "layers.14"]


@pytest.mark.parametrize(
    ("tensor", "change", "message"),
    [
        ("layers.0.attn.wq_a.scale", ("F8_E8M0", [10, 40]), r"expected shape \[40, 160\], found \[10, 40\]"),
        ("layers.14.engram.embed.scale", ("F8_E8M0", [384016682, 2]), r"expected shape \[384016682, 8\], found"),
        ("layers.20.attn.compressor.wgate.weight", ("BF16", [512, 5120]), "found 'layers.20.attn.compressor.wgate.w"),
        ("layers.24.attn.indexer.wk.weight", ("BF16", [128, 512]), "found 'layers.24.attn.indexer.wk.weight'"),
        ("layers.39.ffn.gate.bias_vl", None, "found none named layers.39.ffn.gate.bias_vl"),
        ("mtp.2.hc_head_fn", ("F32", [4, 20480]), "found 'mtp.2.hc_head_fn'"),
    ],
)
def test_one_wrong_tensor_is_named(tmp_path, tensor, change, message):
    """The released sizes, but for the number of experts, so that there are fewer tensors."""
    raw = json.loads(CONFIG.read_text(encoding="utf-8"))
    raw["text_config"] |= {"n_routed_experts": 1, "num_experts_per_tok": 1}
    raw["text_config"] |= {"dspark_n_routed_experts": 1, "dspark_num_experts_per_tok": 1}
    config = tmp_path / "few.json"
    config.write_text(json.dumps(raw), encoding="utf-8")
    tensors = stored_tensors(parameters41(read_config41(config)).values()) | {tensor: change}
    write_headers(tmp_path, config, {name: stored for name, stored in tensors.items() if stored is not None})
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path).validate()
