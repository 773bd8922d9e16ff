"""Checkpoint files in and out: safetensors under the official names, memory-mapped, in one file or many.

`Checkpoint.open(directory)` reads headers only; `write_checkpoint(directory, config, tensors)` writes a directory
that appears under its name when it is whole.
"""

from dsv4.checkpoint.config41_json import config41_as_json, config41_from_json, is_config41, read_config41
from dsv4.checkpoint.config_json import config_as_json, config_from_json, read_config
from dsv4.checkpoint.header import Entry
from dsv4.checkpoint.opening import Checkpoint, Checkpoint41, open_checkpoint, read_any_config
from dsv4.checkpoint.writing import write_checkpoint

__all__ = [
    "Checkpoint",
    "Checkpoint41",
    "Entry",
    "config41_as_json",
    "config41_from_json",
    "config_as_json",
    "config_from_json",
    "is_config41",
    "open_checkpoint",
    "read_any_config",
    "read_config",
    "read_config41",
    "write_checkpoint",
]
