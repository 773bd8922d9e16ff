"""The token ids that `dsv4 logits` and `dsv4 verify` compute with: from a file, or random ones."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsv4.checkpoint.input_files import read_json
from dsv4.config import Config
from dsv4.config41 import Config41
from dsv4.errors import PromptError, quoted

MOST_TOKEN = 2**63 - 1
"""What fits an array of integers; which tokens there are is the model's to say."""


def read_ids(path: Path) -> npt.NDArray[np.integer[Any]]:
    """Token ids [B, S] from a JSON file with one list or several equally long ones."""
    expected = "one list of token ids or equal lists"
    content = read_json(path, PromptError, f"JSON with {expected}")
    rows = content if isinstance(content, list) and content and isinstance(content[0], list) else [content]
    if not all(isinstance(row, list) for row in rows):
        raise PromptError(f"{path}: expected {expected}, found {quoted(content)}")
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1 or lengths[0] == 0:
        raise PromptError(f"{path}: expected {expected}, found lists of length {quoted(lengths)}")
    for place, row in enumerate(rows):
        wrong = [token for token in row if type(token) is not int or abs(token) > MOST_TOKEN]
        if wrong:
            raise PromptError(f"{path}: list {place}: expected integers as token ids, found {quoted(wrong[0])}")
    return np.array(rows)


def random_ids(config: Config | Config41, length: int) -> npt.NDArray[np.integer[Any]]:
    """Two sequences of random tokens, the same each time."""
    shape = 2, min(length, config.max_position_embeddings)
    return np.random.default_rng(0).integers(0, config.vocab_size, shape)


def first_pass(tokens: npt.NDArray[np.integer[Any]]) -> int:
    """How many tokens the first pass takes where no file says it: all but the last few."""
    return max(1, int(tokens.shape[1]) - 24)
