"""Answers in a given form: which tokens may come next, by a grammar that llguidance follows.

A grammar speaks of control tokens by their ids, so that no text can stand for one.
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from dsv4.errors import DSV4Error, reason, shortened
from dsv4.ops.types import Mask
from dsv4.serve.fields import RequestError
from dsv4.text.chat import templates as t
from dsv4.text.chat.pieces import CONTROL_PATTERN
from dsv4.text.chat.tags import V4_TAGS, Tags
from dsv4.text.tokenizer import Tokenizer

JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As V4 and V4.1 write JSON; and without a choice of spaces, a small model cannot go on writing them for ever."""


class Without:
    """Any token but some."""

    def __init__(self, forbidden: Sequence[int], vocab_size: int) -> None:
        """forbidden: token ids below vocab_size."""
        self._allowed = np.ones(vocab_size, bool)
        self._allowed[list(forbidden)] = False

    def allowed(self) -> Mask:
        """The same tokens every time."""
        return self._allowed

    def accept(self, token: int) -> None:
        """Any token changes nothing."""


class Grammar:
    """The tokens that a grammar allows, one answer long."""

    def __init__(self, matcher: Any, vocab_size: int, stop_ids: frozenset[int]) -> None:
        """matcher: an `llguidance.LLMatcher` at its beginning."""
        self._matcher, self._vocab_size, self._stop_ids = matcher, vocab_size, stop_ids

    def allowed(self) -> Mask:
        """[vocab] true for what may come; the stop ids alone where the answer is whole.

        Raises DSV4Error where the library cannot follow the grammar any further.
        """
        mask = np.zeros(self._vocab_size, bool)
        with _library_failures():
            if not self._matcher.is_stopped():
                bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
                mask[: len(bits)] = bits[: self._vocab_size]
            if self._matcher.is_error():
                raise DSV4Error(
                    f"grammar: expected one that can be followed, found: {shortened(self._matcher.get_error())}"
                )
        if not mask.any():
            mask[list(self._stop_ids)] = True
        return mask

    def accept(self, token: int) -> None:
        """Go on behind a token that was allowed. Raises DSV4Error as `allowed`."""
        if token not in self._stop_ids:
            with _library_failures():
                self._matcher.consume_token(token)


class Grammars:
    """Makes the constraints of requests, for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, stop_ids: frozenset[int], tags: Tags = V4_TAGS) -> None:
        """vocab_size: of the model. stop_ids: may come where an answer is whole. tags: of the model's chat format."""
        self._tokenizer, self._vocab_size, self._stop_ids, self._tags = tokenizer, vocab_size, stop_ids, tags
        self._ids = {text: number for number, text in tokenizer.control_of_id.items()}
        self._library: Any = None
        self._lock = threading.Lock()

    def no_calls(self) -> Without:
        """What opens a block of tool calls may not come."""
        return Without([self._ids[t.DSML]], self._vocab_size)

    def json(self, schema: Mapping[str, Any], thinking: bool, field: str) -> Grammar:
        """An answer that is JSON of a schema, after the reasoning, if there is any.

        Raises RequestError, which names the field, for a schema that cannot be followed.
        """
        value = json.dumps({**schema, "x-guidance": JSON_STYLE})
        return self._grammar(self._begin(thinking) + f"answer: %json {value}\n", field)

    def calls(self, functions: Sequence[Mapping[str, Any]], one: bool, thinking: bool, field: str) -> Grammar:
        """Calls of these tools, at least one and perhaps no more, after the reasoning, if there is any.

        functions: of each `name` and perhaps `parameters`, a JSON schema. Raises RequestError as `json`.
        """
        names = [f"call_{number}" for number in range(len(functions))]
        before, after = self._literal(self._tags.calls_open), self._literal(self._tags.calls_close)
        rules = [
            self._begin(thinking),
            f"answer: {before} call{'' if one else '+'} {after}\n",
            f"call: {' | '.join(names)}\n",
            "VALUE: /(?s:.*)<\\//\n",
        ]
        for name, function in zip(names, functions, strict=True):
            rules += self._call_rules(name, function)
        return self._grammar("".join(rules), field)

    def _call_rules(self, rule: str, function: Mapping[str, Any]) -> list[str]:
        """The rules of one tool: its parameters in the schema's order, those left out that are not required."""
        schema = function.get("parameters") or {}
        properties = schema.get("properties") or {}
        required = schema.get("required") or []
        begin = self._literal(f"{self._tags.invoke_open}{{name}}{t.INVOKE_NAME_CLOSE}", name=str(function["name"]))
        parts, rules = [], []
        for number, (name, kind) in enumerate(properties.items()):
            part = f"{rule}_{number}"
            parts.append(part if name in required else f"{part}?")
            rules.append(f"{part}: {self._parameter(name, kind, schema)}\n")
        given = " ".join(parts)
        if not any(name in required for name in properties):
            given = " | ".join(filter(None, (self._literal(t.NO_PARAMETERS), given)))
        return [f"{rule}: {begin} ({given}) {self._literal(self._tags.invoke_close)}\n", *rules]

    def _parameter(self, name: str, kind: Any, schema: Mapping[str, Any]) -> str:
        """One parameter: text as it is where the schema wants any string, JSON otherwise."""
        opening = f"{self._tags.parameter_open}{{name}}"
        if isinstance(kind, dict) and kind.get("type") == "string" and "enum" not in kind and "const" not in kind:
            value = f"{self._literal(opening + t.PARAMETER_IS_STRING, name=name)} VALUE"
            return f"{value} {self._literal(self._tags.parameter_close.removeprefix('</'))}"
        wanted = {**kind, "x-guidance": JSON_STYLE} if isinstance(kind, dict) else {"x-guidance": JSON_STYLE}
        wanted |= {key: schema[key] for key in ("$defs", "definitions") if key in schema}
        value = f"{self._literal(opening + t.PARAMETER_IS_JSON, name=name)} %json {json.dumps(wanted)}"
        return f"{value} {self._literal(self._tags.parameter_close)}"

    def _begin(self, thinking: bool) -> str:
        """The first rule: reasoning up to the token that ends it, then the answer."""
        if not thinking:
            return "start: answer\n"
        return f"start: REASONING? {self._literal(t.END_THINK)} answer\nREASONING: /(?s:.+)/\n"

    def _literal(self, text: str, name: str = "") -> str:
        """A fixed text in the language of grammars, control tokens by their ids; {name} stands for somebody's words."""
        parts, position = [], 0
        for match in CONTROL_PATTERN.finditer(text):
            parts += [text[position : match.start()], None, self._ids[match.group()]]
            position = match.end()
        parts.append(text[position:])
        texts = (
            f"<[{part}]>" if isinstance(part, int) else json.dumps(part.replace("{name}", name))
            for part in parts
            if part
        )
        return " ".join(texts)

    def _grammar(self, rules: str, field: str) -> Grammar:
        library = self._tokens()
        import llguidance

        with _library_failures():
            matcher = llguidance.LLMatcher(library, rules, log_level=0)
        if matcher.is_error():
            found = shortened(matcher.get_error())
            raise RequestError(f"{field}: expected a schema that can be followed, found: {found}", field)
        return Grammar(matcher, self._vocab_size, self._stop_ids)

    def _tokens(self) -> Any:
        """The tokenizer as the library knows it, made once."""
        with self._lock:
            if self._library is None:
                self._library = _library_tokenizer(self._tokenizer, self._vocab_size, self._stop_ids)
            return self._library


@contextmanager
def _library_failures() -> Iterator[None]:
    """Raise as DSV4Error what the library raises when it panics, which is no Exception, and in no module."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ != "PanicException":
            raise
        raise DSV4Error(f"grammar: expected one that can be followed, found: {reason(error)}") from error


class _Vocabulary:
    """What llguidance asks of a tokenizer."""

    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.bos_token_id, self.eos_token_id = tokenizer.bos_id, tokenizer.eos_id
        self.tokens = [tokenizer.token_bytes(number) for number in range(tokenizer.vocab_size)]
        self.special_token_ids = sorted(tokenizer.control_of_id)

    def __call__(self, text: bytes | str) -> list[int]:
        return self._tokenizer.encode(text if isinstance(text, str) else text.decode(errors="replace"))


def _library_tokenizer(tokenizer: Tokenizer, vocab_size: int, stop_ids: frozenset[int]) -> Any:
    try:
        import llguidance
    except ImportError:
        raise RequestError(
            "response_format, tool_choice: answers in a given form need llguidance, which is not installed"
        ) from None
    ends = sorted(stop_ids) or [tokenizer.eos_id]
    vocabulary: Any = _Vocabulary(tokenizer)
    return llguidance.LLTokenizer(vocabulary, n_vocab=max(vocab_size, tokenizer.vocab_size), eos_token=ends)
