"""Texts and chats as documents of token ids, each with its begin and its end token.

A text file is one document. A JSONL file has one in each line: `{"text": "…"}`, or a conversation in V4's chat format,
`{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}`, which may name its `"mode"`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dsv4.checkpoint.input_files import parse_json, regular_size
from dsv4.errors import DSV4Error, TextError, TokenizerError, quoted, reason
from dsv4.ops.types import Ints
from dsv4.text.chat import encode_pieces
from dsv4.text.tokenizer import Tokenizer

FORMS = ({"text"}, {"messages"}, {"messages", "mode"})
"""The keys that a line of JSONL may have."""


def read_documents(path: str | Path, tokenizer: Tokenizer) -> list[Ints]:
    """The documents of a file, in its order.

    path: a file whose name ends in .jsonl, or any other file, which is taken as plain text in UTF-8. Each document is
    an array [n] int64: the begin token, the text or the conversation, and the end token, with which a conversation's
    last answer ends anyway. No text becomes a control token, whatever it looks like.

    Raises TextError, which names the file and the line, where the file cannot be read, is not UTF-8 or holds no text,
    and where a line is no JSON, has other keys, or a conversation is none that ends with an answer.
    Source: report §4.1: documents are sequences of their own; official encoder: begin and end tokens.
    """
    path = Path(path)
    content = _content(path)
    if path.suffix != ".jsonl":
        return [text_document(content, tokenizer)]
    return [_document(place, fields, tokenizer) for place, fields in _lines(path, content)]


def read_texts(path: str | Path) -> list[str]:
    """The plain texts of a file, for a tokenizer to be trained on: the whole of it, or those of each line's document.

    path: as in `read_documents`. Of a conversation these are the contents of its messages. Raises TextError as there.
    """
    path = Path(path)
    content = _content(path)
    if path.suffix != ".jsonl":
        return [content]
    texts: list[str] = []
    for place, fields in _lines(path, content):
        if "text" in fields:
            texts.append(_text(place, fields))
        else:
            _pieces(place, fields)  # messages that cannot be written are an error here, too
            contents = (message.get("content") for message in fields["messages"])
            texts += [words for words in contents if isinstance(words, str) and words]
    return texts


def text_document(text: str, tokenizer: Tokenizer) -> Ints:
    """A text between the begin and the end token, [n] int64."""
    return np.array([tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id], np.int64)


def _document(place: str, fields: dict[str, Any], tokenizer: Tokenizer) -> Ints:
    """The document of a line."""
    try:
        if "text" in fields:
            return text_document(_text(place, fields), tokenizer)
        return np.array(tokenizer.encode_pieces(_pieces(place, fields)), np.int64)
    except TokenizerError as error:
        raise TextError(f"{place}: {error}") from error


def _lines(path: Path, content: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each line that is not blank stands, and what it holds."""
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            yield place, _fields(place, line)


def _fields(place: str, line: str) -> dict[str, Any]:
    """The JSON object of a line, whose keys are one of FORMS."""
    try:
        fields = parse_json(line.encode())
    except ValueError as error:
        raise TextError(f"{place}: expected a JSON object, found {reason(error)}") from error
    if not isinstance(fields, dict):
        raise TextError(f"{place}: expected a JSON object, found {quoted(fields)}")
    if fields.keys() not in FORMS:
        raise TextError(f'{place}: expected the key "text", or "messages" and maybe "mode", found {quoted([*fields])}')
    return fields


def _text(place: str, fields: dict[str, Any]) -> str:
    text = fields["text"]
    if not isinstance(text, str) or not text.strip():
        raise TextError(f"{place}: expected some text, found {quoted(text)}")
    return text


def _pieces(place: str, fields: dict[str, Any]) -> list[Any]:
    """A conversation's pieces; what follows the last answer, the call for another one, is not there."""
    try:
        pieces = encode_pieces(**fields)
    except DSV4Error as error:
        raise TextError(f"{place}: {error}") from error
    if fields["messages"][-1]["role"] != "assistant":
        role = fields["messages"][-1]["role"]
        raise TextError(f"{place}: expected a conversation that ends with the assistant's answer, found {quoted(role)}")
    return pieces


def _content(path: Path) -> str:
    """The text of a file, which must not be blank."""
    expected = "a text file in UTF-8"
    regular_size(path, TextError, expected)
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TextError(f"{path}: expected {expected}, found the byte {error.object[error.start]:#04x}") from error
    except OSError as error:
        raise TextError(f"{path}: expected {expected}, found: {reason(error)}") from error
    if not content.strip():
        raise TextError(f"{path}: expected some text, found none")
    return content
