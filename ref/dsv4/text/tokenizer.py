"""Text to token ids and back, with control tokens only where somebody asks for them.

The official way encodes a prompt as one string, in which a user who types `<｜Assistant｜>` writes a control token.
Here that is a choice: `encode` and the text in `encode_pieces` use a second tokenizer that has no control tokens at
all, and `allow_special=True` is the official way.
"""

import codecs
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsv4.arguments import integer
from dsv4.checkpoint.input_files import is_directory, read_json
from dsv4.errors import TokenizerError, quoted, reason, shortened
from dsv4.text.chat import CONTROL_TOKENS, Control, Piece, Text
from dsv4.text.chat.templates import BEGIN, END

if TYPE_CHECKING:
    import tokenizers


class Tokenizer:
    """A byte-level BPE tokenizer with DeepSeek-V4's control tokens; make one with `Tokenizer.from_file`.

    A control token is any entry of the file's `added_tokens`, whether or not the file calls it special.

    Attributes:
        bos_id: the id of the begin token.
        eos_id: the id of the end token.
        add_bos: whether plain text should begin with the begin token, as tokenizer_config.json says.
        vocab_size: one more than the largest id.
        vocabulary: the id of each token by its name in the file.
        path: the tokenizer.json, named in errors.
        control_of_id: the text of each control token by its id.
    """

    def __init__(self, data: dict[str, Any], config: dict[str, Any], path: Path) -> None:
        """Build from the parsed tokenizer.json and tokenizer_config.json; `path` is named in errors."""
        self.path = path
        self._official = _build(data)
        vocab = self._official.get_vocab(with_added_tokens=True)
        self._control_ids = {token: vocab[token] for token in _added_tokens(data)}
        self.control_of_id: dict[int, str] = {token_id: token for token, token_id in self._control_ids.items()}
        for token in CONTROL_TOKENS:
            self._control_id(token)
        self._plain = _build(_without_control_tokens(data))
        self._bytes_of_id = self._all_bytes()
        self.bos_id: int = self._control_id(_name_of(config, "bos_token", BEGIN))
        self.eos_id: int = self._control_id(_name_of(config, "eos_token", END))
        self.add_bos: bool = config.get("add_bos_token") is True
        self.vocab_size: int = max(self._bytes_of_id) + 1
        self.vocabulary: dict[str, int] = vocab

    @classmethod
    def from_file(cls, path: str | Path) -> "Tokenizer":
        """Read a tokenizer.

        Args:
            path: tokenizer.json, or the directory that holds it. A tokenizer_config.json beside it may name the
                begin and end token.

        Returns:
            The tokenizer.

        Raises:
            TokenizerError: the file is missing, unreadable or not a byte-level BPE tokenizer, or it lacks a token
                that the chat format needs.
        """
        path = Path(path)
        if is_directory(path):
            path = path / "tokenizer.json"
        data = _read_json(path)
        _check_is_byte_level_bpe(data, path)
        config_path = path.with_name("tokenizer_config.json")
        config = _read_json(config_path) if config_path.exists() else {}
        with _library_failures(f"{path}: expected a tokenizer that can be built"):
            return cls(data, config, path)

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Turn text into ids; no begin token is added.

        Args:
            text: any text.
            allow_special: with True, special-token text inside becomes control ids, as on the official route. With
                False it becomes ordinary tokens that decode to the same text.

        Returns:
            The token ids.

        Raises:
            TokenizerError: `text` is not a string, or holds a lone surrogate, which UTF-8 cannot hold; or the file's
                pattern takes too long on it.
        """
        if not isinstance(text, str):
            raise TokenizerError(f"text: expected a string, found {type(text).__name__}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError(f"text: expected text that UTF-8 can hold, found {error}") from error
        tokenizer = self._official if allow_special else self._plain
        with _library_failures(f"{self.path}: expected a tokenizer that can encode the text"):
            return tokenizer.encode(text, add_special_tokens=False).ids

    def encode_pieces(self, pieces: Iterable[Piece]) -> list[int]:
        """Turn the pieces of a prompt into ids.

        Args:
            pieces: what `dsv4.chat.encode_pieces` returns.

        Returns:
            The token ids: one for each `Control`; for a `Text` any number, none of them a control token's. Where no
            content holds special-token text, these are the ids of the official route.

        Raises:
            TokenizerError: the vocabulary lacks a control token, or a text cannot be encoded.
        """
        ids: list[int] = []
        for piece in pieces:
            if isinstance(piece, Control):
                ids.append(self._control_id(piece.text))
            else:
                ids.extend(self.encode(piece.text))
        return ids

    def decode_pieces(self, ids: Iterable[int]) -> list[Piece]:
        """Turn ids into pieces, the way back from `encode_pieces`.

        Args:
            ids: token ids, such as those of a completion.

        Returns:
            A `Control` for each control token, and a `Text` for each run of other tokens, whatever its characters
            look like. The pieces' texts joined are what `decode` returns. No `Text` is empty.
        """
        pieces: list[Piece] = []
        for is_control, run in groupby(ids, self.control_of_id.__contains__):
            if is_control:
                pieces.extend(Control(self.control_of_id[token_id]) for token_id in run)
            elif text := self.decode(run):
                pieces.append(Text(text))
        return pieces

    def token_bytes(self, token_id: int) -> bytes:
        """Give the bytes that one id stands for.

        Args:
            token_id: the token id.

        Returns:
            The bytes, which need not be whole characters; of a control token its name in UTF-8; none for an id without
            text.

        Raises:
            TokenizerError: the id is no integer of at least 0.
        """
        return self._bytes_of_id.get(integer("token id", token_id, error=TokenizerError), b"")

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """Turn ids into text.

        Args:
            ids: token ids.
            skip_special: leave out every control token, also those that the file does not call special.

        Returns:
            The text; bytes that are not UTF-8 become U+FFFD. An id without text, as a model has them whose vocabulary
            is larger than the tokenizer's, gives none.

        Raises:
            TokenizerError: what is no list of integers of at least 0.
        """
        if not isinstance(ids, Iterable):
            raise TokenizerError(f"token ids: expected a list of integers, found {quoted(ids)}")
        stream = self.stream(skip_special)
        return "".join([stream.push(token_id) for token_id in ids]) + stream.flush()

    def stream(self, skip_special: bool = False) -> "TextStream":
        """Give a `TextStream` that turns ids into text one at a time; `skip_special` is as in `decode`."""
        hidden = frozenset(self._control_ids.values()) if skip_special else frozenset[int]()
        return TextStream(self._bytes_of_id, hidden)

    def _control_id(self, token: str) -> int:
        if token not in self._control_ids:
            raise TokenizerError(f"{self.path}: expected {shortened(token)} among added_tokens, found no such token")
        return self._control_ids[token]

    def _all_bytes(self) -> dict[int, bytes]:
        """Give the bytes that each id stands for."""
        byte_of_character = {character: byte for byte, character in enumerate(_byte_characters())}
        result: dict[int, bytes] = {}
        for token, token_id in self._official.get_vocab(with_added_tokens=True).items():
            if token not in self._control_ids and all(character in byte_of_character for character in token):
                result[token_id] = bytes(byte_of_character[character] for character in token)
            else:
                result[token_id] = token.encode()
        return result


class TextStream:
    """Incremental decoding that holds bytes back until they make a whole character."""

    def __init__(self, bytes_of_id: dict[int, bytes], hidden: frozenset[int]) -> None:
        self._bytes_of_id = bytes_of_id
        self._hidden = hidden
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """Add one id.

        Args:
            token_id: the next token id.

        Returns:
            The text that is now complete, which may be empty; an id without text adds none.

        Raises:
            TokenizerError: the id is no integer of at least 0.
        """
        known = integer("token id", token_id, error=TokenizerError)
        return "" if known in self._hidden else self._decoder.decode(self._bytes_of_id.get(known, b""))

    def flush(self) -> str:
        """End the text: give what is still held back, as U+FFFD because it is not a whole character."""
        return self._decoder.decode(b"", final=True)


@contextmanager
def _library_failures(expected: str) -> Iterator[None]:
    """Raise as TokenizerError what the library raises: Exception, or PanicException, which is none and in no module."""
    try:
        yield
    except (TokenizerError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise TokenizerError(f"{expected}, found: {reason(error)}") from error


def _read_json(path: Path) -> dict[str, Any]:
    data = read_json(path, TokenizerError, "JSON")
    if not isinstance(data, dict):
        raise TokenizerError(f"{path}: expected a JSON object, found {type(data).__name__}")
    return data


def _check_is_byte_level_bpe(data: dict[str, Any], path: Path) -> None:
    model, decoder = data.get("model"), data.get("decoder")
    kinds = [part.get("type") if isinstance(part, dict) else None for part in (model, decoder)]
    if not isinstance(model, dict) or kinds != ["BPE", "ByteLevel"] or not isinstance(model.get("vocab"), dict):
        raise TokenizerError(
            f"{path}: expected model BPE and decoder ByteLevel, found {quoted(kinds[0])} and {quoted(kinds[1])}"
        )
    tokens = data.get("added_tokens")
    if not isinstance(tokens, list) or not all(
        isinstance(t, dict) and isinstance(t.get("content"), str) for t in tokens
    ):
        raise TokenizerError(f"{path}: expected added_tokens to be a list of tokens with their content")
    ordinary = model["vocab"].keys() - _added_tokens(data)
    missing = [character for character in _byte_characters() if character not in ordinary]
    if missing:
        raise TokenizerError(f"{path}: expected a token for each of the 256 bytes, found none for {missing[0]!r}")


def _added_tokens(data: dict[str, Any]) -> set[str]:
    return {token["content"] for token in data["added_tokens"]}


def _build(data: dict[str, Any]) -> "tokenizers.Tokenizer":
    import tokenizers  # slow to import, and a model can do without

    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(data))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _without_control_tokens(data: dict[str, Any]) -> dict[str, Any]:
    """Give the tokenizer in which no control token exists, so that no text can become one.

    They go from `added_tokens`, from the vocabulary and from the merges: with `ignore_merges`, or by a merge, an
    entry that stayed in the vocabulary could still be reached.
    """
    control = _added_tokens(data)
    model = data["model"]
    vocab = {token: token_id for token, token_id in model["vocab"].items() if token not in control}
    merges = [merge for merge in model["merges"] if not _touches(merge, control)]
    return {**data, "added_tokens": [], "post_processor": None, "model": {**model, "vocab": vocab, "merges": merges}}


def _touches(merge: str | list[str], tokens: set[str]) -> bool:
    """Tell whether a merge takes or makes one of `tokens`; files write a merge as "left right" or as a pair."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left in tokens or right in tokens or left + right in tokens


def _name_of(config: dict[str, Any], field: str, default: str) -> str:
    """Give the token that tokenizer_config.json names in `field`, which may be a string or a described token."""
    value = config.get(field)
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else default


def _byte_characters() -> list[str]:
    """Give the character that stands for each byte 0 … 255 in a byte-level vocabulary.

    Printable bytes stand for themselves, the others are the characters from U+0100 on, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
