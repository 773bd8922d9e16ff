"""Writing checkpoints: complete ones only, and whole or not at all."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from dsv4.checkpoint import Checkpoint, write_checkpoint
from dsv4.checkpoint.record import RECORD
from dsv4.errors import CheckpointError
from dsv4.ops.quantise import Fp8Weight
from tiny_checkpoint import FILE, assert_holds, listing, random_tensors, tiny_config

FP4 = "layers.0.ffn.experts.1.w1.weight"
TABLE = "layers.0.ffn.gate.tid2eid"


@pytest.fixture(params=[False, True], ids=["float32", "released"])
def config(request):
    return tiny_config(quantised=request.param)


def test_writer_demands_the_parameters_of_the_configuration(tmp_path, config):
    tensors = random_tensors(config)
    one_dimensional = np.ones(3, np.float32)
    half = dict(list(tensors.items())[:-1])
    for wrong, message in (
        ({name: value for name, value in tensors.items() if name != "norm.weight"}, "'norm.weight': expected every"),
        (half, "expected every parameter"),
        (tensors | {"spare.weight": one_dimensional}, "'spare.weight': expected each parameter .* an unknown one"),
        (tensors | {"norm.weight": one_dimensional}, r"'norm.weight': expected shape \[64\], found \[3\]"),
        (tensors | {"norm.weight": np.ones(64)}, "'norm.weight': expected values that can be stored .* found float64"),
        (tensors | {TABLE: np.ones((24, 2), np.float32)}, "for format i64, found float32"),
        (tensors | {"norm.weight": np.ones(64, np.int64)}, "for format bf16, found int64"),
    ):
        with pytest.raises(CheckpointError, match=message):
            write_checkpoint(tmp_path / "model", config, wrong.items())
        assert listing(tmp_path) == []
    with pytest.raises(CheckpointError, match="a second one"):
        write_checkpoint(tmp_path / "model", config, [*tensors.items(), ("norm.weight", tensors["norm.weight"])])
    with pytest.raises(CheckpointError, match="quantised tensors: expected"):
        write_checkpoint(tmp_path / "model", replace(config, quantised=not config.quantised), tensors.items())
    assert listing(tmp_path) == []


def test_quantised_weight_in_the_wrong_place(tmp_path):
    config = tiny_config(quantised=True)
    tensors = random_tensors(config)
    swapped = tensors | {FP4: Fp8Weight(np.zeros((32, 64), np.uint8), np.zeros((1, 1), np.uint8))}
    with pytest.raises(CheckpointError, match="for format fp4, found Fp8Weight"):
        write_checkpoint(tmp_path / "model", config, swapped.items())


def test_existing_directories_are_kept(tmp_path):
    config = tiny_config()
    tensors = random_tensors(config)
    target = tmp_path / "model"
    target.mkdir()
    write_checkpoint(target, config, tensors.items())  # an empty directory is free
    with pytest.raises(CheckpointError, match="found a checkpoint; overwrite replaces it"):
        write_checkpoint(target, config, tensors.items())
    with pytest.raises(CheckpointError, match="expected a directory, found a file"):
        write_checkpoint(target / FILE, config, tensors.items())
    (target / "thesis.txt").write_text("two years of work")
    with pytest.raises(CheckpointError, match=r"or only files that dsv4 wrote, found thesis\.txt"):
        write_checkpoint(target, config, tensors.items(), overwrite=True)
    assert (target / "thesis.txt").read_text() == "two years of work"
    (target / "thesis.txt").unlink()
    (target / RECORD).unlink()
    with pytest.raises(CheckpointError, match=r"or only files that dsv4 wrote, found config\.json"):
        write_checkpoint(target, config, tensors.items(), overwrite=True)


def test_overwriting_replaces_the_whole_directory(tmp_path):
    config = tiny_config()
    write_checkpoint(tmp_path / "model", config, random_tensors(config, 1).items(), max_shard_bytes=50_000)
    tensors = random_tensors(config, 2)
    write_checkpoint(tmp_path / "model", config, tensors.items(), overwrite=True)
    assert listing(tmp_path / "model") == [RECORD, "config.json", FILE]
    assert listing(tmp_path) == ["model"]
    assert_holds(Checkpoint.open(tmp_path / "model"), tensors)


def test_extra_files_are_copied(tmp_path):
    config = tiny_config()
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text("{}")
    write_checkpoint(tmp_path / "model", config, random_tensors(config).items(), extra_files=[tokenizer])
    assert (tmp_path / "model/tokenizer.json").read_text() == "{}"
    with pytest.raises(CheckpointError, match=r"absent\.json: expected a file to copy"):
        write_checkpoint(tmp_path / "other", config, random_tensors(config).items(), extra_files=["absent.json"])
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_interrupted_write_leaves_what_was_there(tmp_path, failure):
    config = tiny_config()
    first = random_tensors(config, 1)

    def broken():
        for number, item in enumerate(random_tensors(config, 2).items()):
            if number == 20:
                raise failure
            yield item

    with pytest.raises(failure):
        write_checkpoint(tmp_path / "model", config, broken(), max_shard_bytes=10_000)
    assert listing(tmp_path) == []
    write_checkpoint(tmp_path / "model", config, first.items())
    with pytest.raises(failure):
        write_checkpoint(tmp_path / "model", config, broken(), max_shard_bytes=10_000, overwrite=True)
    assert listing(tmp_path) == ["model"]
    assert_holds(Checkpoint.open(tmp_path / "model"), first)


KILLED = """
import sys, time
from tiny_checkpoint import random_tensors, tiny_config
from dsv4.checkpoint import write_checkpoint

def stuck():
    for number, item in enumerate(random_tensors(tiny_config()).items()):
        if number == 20:
            print("writing", flush=True)
            time.sleep(600)
        yield item

write_checkpoint(sys.argv[1], tiny_config(), stuck(), max_shard_bytes=10_000)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL, which this system does not have")
def test_killed_write_leaves_nothing_under_the_name(tmp_path):
    """What it leaves beside is locked while the process lives, and cleared by the next to write there."""
    config = tiny_config()
    tensors = random_tensors(config)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "model")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        with pytest.raises(
            CheckpointError, match=r"no other process to write there, found \.model\.partial of another"
        ):
            write_checkpoint(tmp_path / "model", config, tensors.items())
        process.kill()
        process.wait()
    assert listing(tmp_path) == [".model.partial"]
    assert len(listing(tmp_path / ".model.partial")) > 3
    write_checkpoint(tmp_path / "model", config, tensors.items())
    assert_holds(Checkpoint.open(tmp_path / "model"), tensors)
    assert listing(tmp_path) == ["model"]
    assert listing(tmp_path / "model") == [RECORD, "config.json", FILE]
