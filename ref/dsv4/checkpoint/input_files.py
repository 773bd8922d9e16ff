"""Input files: regular files of a reasonable size, read whole, and the errors for all other files."""

import json
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from dsv4.errors import DSV4Error, quoted, reason

LARGEST_JSON = 25_000_000
"""In bytes. The header of a V4-Pro in one file has 18 million, a tokenizer.json 8 million."""

MOST_CONTAINERS = 1_000_000
"""Lists and objects in a JSON file. That V4-Pro's header has 450,000, and each takes far more memory than its text."""

KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_json(path: Path, error: type[DSV4Error], expected: str = "a JSON file") -> Any:
    """The content of a JSON file, its objects as dictionaries.

    Raises `error`, with `expected` in its message, where the file is missing or unreadable, is no regular file, has
    more than LARGEST_JSON bytes, and as `parse_json` says.
    """
    size = regular_size(path, error, expected)
    if size > LARGEST_JSON:
        raise error(f"{path}: expected {expected} of at most {LARGEST_JSON:,} bytes, found {size:,} bytes")
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST_JSON + 1)
    except OSError as found:
        raise error(f"{path}: expected {expected}, found: {reason(found)}") from found
    try:
        return parse_json(content)
    except ValueError as found:
        raise error(f"{path}: expected {expected}, found {reason(found)}") from found


def parse_json(content: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises ValueError, which says what was found instead, where the text is something else, is not UTF-8, has more
    than MOST_CONTAINERS lists and objects or nests them too deep, names a value of an object twice, and where a
    number is not finite or has thousands of digits.
    """
    if not content.strip():
        raise ValueError("an empty file")
    containers = content.count(b"[") + content.count(b"{")
    if containers > MOST_CONTAINERS:
        raise ValueError(f"more than {MOST_CONTAINERS:,} lists and objects")
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("lists or objects that are nested too deep") from error
    except ValueError as error:
        raise ValueError(foreign_kind(content) or f"no valid JSON: {error}") from error


def regular_size(path: Path, error: type[DSV4Error], expected: str) -> int:
    """The size of a regular file in bytes.

    Nothing is opened, so that a pipe does not block. Raises `error` where it is none, or is missing.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError) as missing:
        raise error(f"{path}: expected {expected}, found no such file") from missing
    except (OSError, ValueError) as unreadable:  # ValueError for a name that no file can have
        raise error(f"{path}: expected {expected}, found: {reason(unreadable)}") from unreadable
    if not stat.S_ISREG(found.st_mode):
        raise error(f"{path}: expected {expected}, found {KINDS.get(stat.S_IFMT(found.st_mode), 'no regular file')}")
    return found.st_size


def is_directory(path: Path) -> bool:
    """Whether a path leads to a directory; False also for one that leads nowhere, or cannot be followed."""
    try:
        return path.is_dir()
    except OSError:
        return False


def foreign_kind(start: bytes) -> str | None:
    """What a file is that was left or sent in another's place, told from its first bytes; None for anything else."""
    if start.startswith(b"version https://git-lfs"):
        return "a git-LFS pointer; the file that it stands for has not been downloaded (git lfs pull)"
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page, such as a server sends in place of a file"
    return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {quoted(twice)} twice in one object")
    return result


def _refuse_constant(name: str) -> None:
    raise ValueError(f"the number {name}")
