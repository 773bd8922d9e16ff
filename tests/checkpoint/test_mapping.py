"""Tensors mapped from files: no file stays open, and one that has become too short is said to be so."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dsv4.checkpoint import Checkpoint, write_checkpoint
from dsv4.checkpoint.header import read_header
from dsv4.checkpoint.mapping import MappedFile
from dsv4.checkpoint.writing import write_safetensors
from dsv4.errors import CheckpointError
from tiny_checkpoint import FILE, random_tensors, tiny_config, write_released

DESCRIPTORS = Path("/proc/self/fd")
MAPS = Path("/proc/self/maps")
needs_proc = pytest.mark.skipif(not DESCRIPTORS.exists(), reason="needs /proc, where Linux lists what is open")

FEW_DESCRIPTORS = """
import resource, sys
from dsv4 import load
resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
model = load(sys.argv[1], "numpy")
print(len({entry.file for entry in model.checkpoint.entries.values()}), model([1, 2, 3]).shape)
"""


@pytest.fixture
def model(tmp_path):
    return write_released(tmp_path / "model")


@needs_proc
def test_no_file_stays_open(tmp_path):
    config = tiny_config()
    tensors = random_tensors(config)
    write_checkpoint(tmp_path / "model", config, tensors.items(), max_shard_bytes=1)
    before = len(list(DESCRIPTORS.iterdir()))
    checkpoint = Checkpoint.open(tmp_path / "model")
    weights = {name: checkpoint.weight(name) for name in tensors}
    assert len({entry.file for entry in checkpoint.entries.values()}) > 100
    assert len(list(DESCRIPTORS.iterdir())) <= before
    for name, weight in weights.items():
        np.testing.assert_array_equal(weight, tensors[name])


@needs_proc
def test_a_mapping_lives_as_long_as_an_array_of_it(model):
    file = MappedFile(model / FILE)
    tensor = file.tensor(read_header(model / FILE)["norm.weight"])
    part = tensor[3:5]
    expected = part.tobytes()
    del file, tensor
    gc.collect()
    assert str(model / FILE) in MAPS.read_text()
    assert part.tobytes() == expected
    del part
    gc.collect()
    assert str(model / FILE) not in MAPS.read_text()


@needs_proc
def test_a_model_of_many_shards_needs_few_descriptors(tmp_path):
    config = tiny_config()
    write_checkpoint(tmp_path / "model", config, random_tensors(config).items(), max_shard_bytes=1)
    command = [sys.executable, "-c", FEW_DESCRIPTORS, str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == f"{len(list((tmp_path / 'model').glob('*.safetensors')))} (1, 3, 24)\n"


def test_a_file_that_was_cut_after_it_was_opened(model):
    """Before its first tensor is read, and after, when the tensors that are still whole can be read."""
    checkpoint = Checkpoint.open(model)
    names = sorted(checkpoint.names, key=lambda name: checkpoint.entries[name].start)
    first, last = names[0], names[-1]
    end = checkpoint.entries[last].start + checkpoint.entries[last].size
    expected = checkpoint.tensor(first).tobytes()
    os.truncate(model / FILE, end - 1)
    for opened in (checkpoint, Checkpoint(model, checkpoint.config, checkpoint.entries)):
        message = rf"model\.safetensors: tensor '{last}': truncated after it was opened: expected {end} bytes of file, "
        with pytest.raises(CheckpointError, match=message + f"found {end - 1}"):
            opened.tensor(last)
    assert checkpoint.tensor(first).tobytes() == expected
    os.truncate(model / FILE, 0)
    with pytest.raises(CheckpointError, match=r"truncated after it was opened: .* found 0"):
        Checkpoint(model, checkpoint.config, checkpoint.entries).weight(first)


def test_a_file_that_was_replaced_or_removed_stays_whole(model):
    checkpoint = Checkpoint.open(model)
    name = "norm.weight"
    expected = checkpoint.tensor(name).tobytes()
    (model / "other").write_bytes(b"short")
    (model / "other").replace(model / FILE)
    assert checkpoint.tensor(name).tobytes() == expected
    (model / FILE).unlink()
    assert checkpoint.tensor(name).tobytes() == expected
    with pytest.raises(CheckpointError, match=r"model\.safetensors: expected a readable file, found: No such file"):
        Checkpoint(model, checkpoint.config, checkpoint.entries).tensor(name)


@pytest.mark.parametrize("change", ["replaced", "written to"])
def test_a_file_that_was_changed_before_it_was_first_read(model, change):
    """Its header may be another one, so that what lies at a place is another tensor."""
    os.utime(model / FILE, ns=(1, 1))  # long before, as the clock of files ticks slowly
    checkpoint = Checkpoint.open(model)
    content = (model / FILE).read_bytes()
    if change == "replaced":
        (model / "other").write_bytes(content)
        (model / "other").replace(model / FILE)
    else:
        with (model / FILE).open("r+b") as stream:
            stream.write(content[:8])
    with pytest.raises(CheckpointError, match=r"'norm.weight': expected the file as it was when it was opened, found"):
        checkpoint.tensor("norm.weight")
    assert Checkpoint.open(model).tensor("norm.weight").shape == (64,)


def test_a_file_without_numbers_is_mapped_too(tmp_path):
    write_safetensors(tmp_path / FILE, {"empty": ("F32", np.zeros((0, 4), np.float32))})
    checkpoint = Checkpoint(tmp_path, tiny_config(), read_header(tmp_path / FILE))
    assert checkpoint.tensor("empty").shape == (0, 4)


@needs_proc
def test_too_little_room_for_a_mapping_is_one_line(tmp_path):
    """The system's reason, as with `ulimit -v`."""
    import resource

    write_safetensors(tmp_path / FILE, {"large": ("U8", np.zeros(1, np.uint8))})
    os.truncate(tmp_path / FILE, 1 << 40)
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 36, before[1]))
    try:
        with pytest.raises(CheckpointError, match=r"expected a readable file, found: Cannot allocate memory"):
            MappedFile(tmp_path / FILE)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
