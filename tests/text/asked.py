"""Modes with their revisions, which tests of the chat formats ask for, and a tokenizer that has the tokens of both."""

import json
from pathlib import Path

from dsv4 import Tokenizer, chat

V41 = (("non-think", "v4.1"), ("xhigh", "v4.1"), (1, "v4.1"), ("high", "v4.1-api"), (100, "v4.1-api"))
ASKED = (*((mode, "0731") for mode in chat.EFFORTS["0731"]), ("max", "april"), *V41)
"""Each mode of V4, and of V4.1 words and numbers; both formats and both mappings are there."""


def tokenizer_of_v41(directory: Path) -> Tokenizer:
    """The tokenizer in a directory with the token that V4.1 has more than V4."""
    return Tokenizer(tokenizer_json_of_v41(directory), {}, directory / "tokenizer.json")


def tokenizer_json_of_v41(directory: Path) -> dict:
    """What the tokenizer.json of that one holds."""
    data = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    like = data["added_tokens"][0]
    number = max(*data["model"]["vocab"].values(), *(token["id"] for token in data["added_tokens"])) + 1
    data["added_tokens"].append({**like, "content": "<｜System｜>", "id": number})
    return data
