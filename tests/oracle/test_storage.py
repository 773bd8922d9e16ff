"""The ways in which either side stores a model: shards, bfloat16, internal names, and the released FP4 and FP8."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from dsv4.checkpoint import write_checkpoint
from dsv4.checkpoint.convert import convert
from dsv4.parameters import parameters
from oracle import ours
from oracle.cases import case_config, random_tensors
from oracle.comparison import LONGEST, SHORTEST, assert_close, assert_worth_comparing

pytestmark = pytest.mark.oracle

NAME = "SSCHC-3"
SHARD = 200_000


def assert_same_logits(theirs, directory, seed: int, **settings) -> None:
    """Both sides open the directory and agree."""
    ids = ours.prompts(directory, SHORTEST, LONGEST, np.random.default_rng(seed))
    expected = theirs.logits(theirs.open_directory(directory, **settings), ids)
    assert_worth_comparing(expected)
    assert_close(ours.open_directory(directory)(ids), expected)


@pytest.mark.parametrize("how", [{"max_shard_size": SHARD}, {"save_original_format": False}], ids=str)
def test_their_ways_of_saving(theirs, tmp_path, how) -> None:
    model = theirs.random_model(case_config(NAME), np.random.default_rng(11))
    theirs.save(model, tmp_path, **how)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == ("max_shard_size" in how)
    assert_same_logits(theirs, tmp_path, 12)


def test_their_bfloat16_here(theirs, tmp_path) -> None:
    model = theirs.random_model(case_config(NAME), np.random.default_rng(13))
    theirs.save(model.bfloat16(), tmp_path)
    assert_same_logits(theirs, tmp_path, 14)


def test_our_shards_there(theirs, tmp_path) -> None:
    config = case_config(NAME)
    tensors = random_tensors(config, np.random.default_rng(15))
    write_checkpoint(tmp_path, config, tensors.items(), max_shard_bytes=SHARD)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert_same_logits(theirs, tmp_path, 16)


def test_our_bfloat16_there(theirs, tmp_path) -> None:
    """All that released files do not hold in float32 is stored in bfloat16; both sides compute in float32."""
    config = replace(case_config(NAME), torch_dtype="bfloat16")
    table, tensors = parameters(config), random_tensors(config, np.random.default_rng(17))
    for name in tensors:
        if table[name].format not in ("f32", "i64"):
            tensors[name] = tensors[name].astype(ml_dtypes.bfloat16)
    write_checkpoint(tmp_path, config, tensors.items())
    assert_same_logits(theirs, tmp_path, 18)


def test_our_released_formats_there(theirs, tmp_path) -> None:
    """FP4 experts and FP8 matrices, which transformers turns into floats as `fake_quant="off"` does here.

    Sizes up to 128 or multiples of it: transformers infers the block from the grid of scales, and so gets partial
    blocks of larger matrices wrong.
    """
    pytest.importorskip("accelerate", reason="transformers needs accelerate to read FP8: pip install accelerate")
    config = replace(
        case_config(NAME), hidden_size=256, moe_intermediate_size=96, num_attention_heads=8, head_dim=64,
        o_groups=2, o_lora_rank=32, q_lora_rank=64, index_n_heads=16, index_head_dim=32,
    )  # fmt: skip
    tensors = random_tensors(config, np.random.default_rng(19))
    write_checkpoint(tmp_path / "float32", config, tensors.items())
    convert(tmp_path / "float32", tmp_path / "released", to="released")
    assert_same_logits(theirs, tmp_path / "released", 20, quantization_config=theirs.dequantising())
