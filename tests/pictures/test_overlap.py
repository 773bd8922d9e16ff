"""The picture of the overlap, against the compressor: which tokens change which entry, and through which channels."""

import re

import numpy as np
import pytest

from dsv4.config import CSA_RATIO, HCA_RATIO
from dsv4.ops import Ops
from dsv4.pictures.overlap import BLOCKS, LEFT, draw_overlap
from dsv4.pictures.svg import LIGHT, WIDTH
from pictures.reading import read

STEP = (WIDTH - LEFT - 16) / (BLOCKS * CSA_RATIO)
C = 1


@pytest.fixture(scope="module")
def picture():
    return read(draw_overlap(LIGHT).svg())


def spans(picture):
    """Tokens and channels that each box of an entry of CSA says: entry → {(first token, last token): channels}."""
    labels = {text.content: text.top for text in picture.texts if re.fullmatch(r"entry \d", text.content)}
    found = {int(label.split()[1]): {} for label in labels}
    for text in picture.texts:
        if "c" in text.content and "…" in text.content and len(text.content) < 10:
            box = picture.ground(text)
            entry = next(int(label.split()[1]) for label, top in labels.items() if abs(top - text.top) < 1)
            found[entry][round((box.left - LEFT) / STEP), round((box.right - LEFT) / STEP) - 1] = text.content
    return found


def test_each_entry_spans_the_slots_of_the_compressor(picture):
    """A token of which one channel alone is marked is found in the slots of just these entries."""
    drawn = spans(picture)
    tokens = BLOCKS * CSA_RATIO
    assert drawn.keys() == set(range(BLOCKS))
    for token in range(tokens):
        for channel, name in ((0, "0 … c−1"), (C, "c … 2c−1")):
            blocks = np.zeros((1, BLOCKS + 1, CSA_RATIO, 2 * C))  # the first block is the one before the text
            blocks[0, 1 + token // CSA_RATIO, token % CSA_RATIO, channel] = 1
            (entries,) = np.nonzero(Ops.overlap(blocks)[0].any(axis=(1, 2)))
            told = [
                entry
                for entry, boxes in drawn.items()
                if any(first <= token <= last and channels == name for (first, last), channels in boxes.items())
            ]
            assert told == entries.tolist()


def test_entries_of_hca_do_not_overlap(picture):
    shown = [word for word in picture.words if word.startswith("entry 0: ") or word.startswith("entry 1: ")]
    assert shown == [f"entry 0: tokens 0 … {HCA_RATIO - 1}", f"entry 1: tokens {HCA_RATIO} … {2 * HCA_RATIO - 1}"]
    ticks = picture.cells[LIGHT.hues["plain"].line]
    assert len(ticks) == 2 * HCA_RATIO
    boxes = [picture.ground(text) for text in picture.texts if text.content in shown]
    for entry, box in enumerate(boxes):
        inside = [tick for tick in ticks if box.left - 1 <= tick[0] and tick[0] + tick[2] <= box.right + 3]
        assert ticks[entry * HCA_RATIO : (entry + 1) * HCA_RATIO] == inside


def test_tokens_are_numbered(picture):
    numbers = [word for word in picture.words if word.isdecimal()]
    assert numbers == [str(token) for token in range(BLOCKS * CSA_RATIO)]
