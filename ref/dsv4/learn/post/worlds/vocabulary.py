"""The tokenizer of the worlds: their words are tokens, and so is each digit, letter and bracket."""

import re
from pathlib import Path

from dsv4.learn.post.efforts import MODES
from dsv4.learn.post.worlds import WORLDS
from dsv4.learn.texts.train_tokenizer import train_tokenizer
from dsv4.text.chat import Text

TASKS = 200
"""Tasks of each world that the words are taken from."""

VOCABULARY = 768
"""Control tokens, bytes, and words of the worlds and of V4's fixed texts."""


def world_tokenizer(directory: str | Path, vocab_size: int = VOCABULARY, context: int = 512) -> None:
    """Train the tokenizer of the worlds and write its files to a directory; see `train_tokenizer`.

    Numbers are left out of the texts: else some pairs of digits would become tokens, and sums would be hard to learn.
    """
    train_tokenizer(_texts(), directory, vocab_size, context)


def _texts() -> list[str]:
    """What the chat format and the worlds write, without digits."""
    texts = []
    for world in WORLDS.values():
        for number in range(TASKS):
            task = world.task("train", number)
            for mode in MODES if number < 20 else MODES[:2]:
                pieces = task.conversation(mode)
                texts += [re.sub("[0-9]+", " ", piece.text) for piece in pieces if isinstance(piece, Text)]
    return texts
