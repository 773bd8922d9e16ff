"""Which files of a directory hold the tensors: one file, or shards, with an index or without."""

import re
from pathlib import Path

from dsv4.checkpoint.header import Entry, read_header
from dsv4.checkpoint.input_files import read_json
from dsv4.errors import CheckpointError, quoted

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors$")


def stored_entries(directory: Path) -> list[Entry]:
    """Every tensor of a checkpoint, from the headers of its files.

    The index decides where there is one; else model.safetensors; else the directory's shards or other safetensors
    files, all of them. Raises CheckpointError where there is none, where the index names a file or a tensor that is
    not there, and where shards are missing.
    """
    index = directory / INDEX_FILE
    if index.exists():
        return _indexed_entries(directory, index)
    if (directory / SINGLE_FILE).exists():
        return list(read_header(directory / SINGLE_FILE).values())
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{directory}: expected {SINGLE_FILE} or {INDEX_FILE}, found no safetensors file")
    _check_shards(files)
    return [entry for file in files for entry in read_header(file).values()]


def _indexed_entries(directory: Path, index: Path) -> list[Entry]:
    """The tensors that the index names, each from the file that the index names for it."""
    weight_map = _weight_map(index)
    headers = {}
    for name in sorted(set(weight_map.values())):
        file = directory / name
        if Path(name).name != name or not _is_there(file):
            raise CheckpointError(f"{index}: expected every file that it names beside it, found no file {quoted(name)}")
        headers[name] = read_header(file)
    for tensor, name in weight_map.items():
        if tensor not in headers[name]:
            raise CheckpointError(f"{index}: expected tensor {quoted(tensor)} in {name}, found no such tensor there")
    return [headers[name][tensor] for tensor, name in weight_map.items()]


def _weight_map(index: Path) -> dict[str, str]:
    content = read_json(index, CheckpointError)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{index}: weight_map: expected a JSON object of file names, found another value")
    if not weight_map:
        raise CheckpointError(f"{index}: weight_map: expected tensors, found none")
    return weight_map


def _is_there(file: Path) -> bool:
    """Whether there is something of this name, which the index may have made up."""
    try:
        return file.exists()
    except (OSError, ValueError):
        return False


def _check_shards(files: list[Path]) -> None:
    """Where files are numbered as shards, all of the series must be there."""
    present = {file.name for file in files}
    for file in files:
        match = SHARD.match(file.name)
        if match is None:
            continue
        for number in range(1, int(match["count"]) + 1):
            name = f"{match['stem']}-{number:05}-of-{match['count']}.safetensors"
            if name not in present:
                raise CheckpointError(f"{file.parent}: expected {match['count']} shards, found no {name}")
