"""The released checkpoints of 0731 and 0813, as far as their headers go: all tensors checked without a weight."""

from pathlib import Path

import pytest

from dsv4 import Checkpoint
from dsv4.checkpoint import read_config
from dsv4.errors import CheckpointError
from dsv4.parameters import parameters
from released_headers import stored_tensors, write_headers

CONFIGS = Path(__file__).parents[1] / "data" / "configs"
FLASH, PRO = (CONFIGS / f"deepseek-v4-{name}.json" for name in ("flash-0731", "pro-0813"))


@pytest.mark.parametrize(("file", "count"), [(FLASH, 72317), (PRO, 149782)], ids=["flash-0731", "pro-0813"])
def test_all_tensors_are_checked_by_their_headers(tmp_path, file, count):
    """The counts are those of the official index."""
    write_headers(tmp_path, file, stored_tensors(parameters(read_config(file)).values()))
    checkpoint = Checkpoint.open(tmp_path)
    checkpoint.validate()
    assert (len(checkpoint.names), checkpoint.has_mtp, checkpoint.config.draft_layers) == (count, True, 3)


@pytest.mark.parametrize(
    ("tensor", "change", "message"),
    [
        ("mtp.0.main_proj.scale", ("F32", [32, 95]), r"expected shape \[32, 96\], found \[32, 95\]"),
        ("mtp.2.confidence_head.proj.weight", None, "found none named mtp.2.confidence_head.proj.weight"),
        ("mtp.1.main_norm.weight", ("BF16", [4096]), "expected only tensors of .*, found 'mtp.1.main_norm.weight'"),
    ],
)
def test_one_wrong_tensor_among_all_is_named(tmp_path, tensor, change, message):
    tensors = stored_tensors(parameters(read_config(FLASH)).values()) | {tensor: change}
    write_headers(tmp_path, FLASH, {name: stored for name, stored in tensors.items() if stored is not None})
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(tmp_path).validate()
