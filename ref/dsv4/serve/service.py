"""What all requests share: the model behind its engine, the settings they fall back on, and the limits that hold."""

import asyncio
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from dsv4.model.language_model import LanguageModel
from dsv4.serve.engine import Engine
from dsv4.serve.fields import Fields, RequestError
from dsv4.serve.grammar import Grammars
from dsv4.serve.metrics import Metrics
from dsv4.text.chat.check import Mode
from dsv4.text.chat.tags import Tags, tags_of
from dsv4.text.generation_config import GenerationConfig
from dsv4.text.tokenizer import Tokenizer

MOST_CHOICES = 16
MOST_STOPS = 16
MOST_LIKELY = 20
"""How many choices, stop texts, and likely tokens beside each chosen one a request may ask for."""


@dataclass(frozen=True)
class Limits:
    """What a request may take."""

    body_bytes: int = 8 * 2**20
    body_seconds: float = 30.0
    """From the head of a request to the end of its body."""
    explained_tokens: int = 1024
    """A page that explains a pass has all of it, and grows with the square of this."""


@dataclass(frozen=True)
class Service:
    """A model that is served."""

    model: LanguageModel
    tokenizer: Tokenizer
    engine: Engine
    name: str
    """What clients call the model."""
    wanted: GenerationConfig
    """Temperature and top-p of requests that do not say, and the tokens that end an answer."""
    mode: Mode
    """How much the model thinks for requests that do not say."""
    revision: str
    speculative: bool = False
    api_key: str | None = None
    limits: Limits = field(default_factory=Limits)
    logs_content: bool = False
    metrics: Metrics = field(default_factory=Metrics)
    explaining: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a page that explains a pass is made."""

    @cached_property
    def grammars(self) -> Grammars:
        """What makes constraints."""
        return Grammars(self.tokenizer, self.model.config.vocab_size, self.stop_ids, self.tags)

    @property
    def tags(self) -> Tags:
        """The tags of tool calls in the model's chat format."""
        return tags_of(self.revision)

    @property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end an answer."""
        return frozenset(self.wanted.stop_ids)

    @property
    def context(self) -> int:
        """How many tokens the model reads at most."""
        context: int = self.model.config.max_position_embeddings
        return context

    def check_length(self, ids: list[int], name: str) -> None:
        """Raises RequestError, which names the field, for no token and for more than the model reads."""
        if not 0 < len(ids) <= self.context:
            expected = f"a prompt of 1 to {self.context} tokens"
            code = "context_length_exceeded" if ids else None
            raise RequestError(f"{name}: expected {expected}, found {len(ids)}", name, code=code)

    def check_characters(self, length: int, name: str) -> None:
        """As `check_length`, for a text that could not be short enough, before it is made into tokens."""
        if length > self.context * self._longest_token:
            found = f"a text of {length} characters"
            expected = f"a prompt of at most {self.context} tokens"
            raise RequestError(f"{name}: expected {expected}, found {found}", name, code="context_length_exceeded")

    @cached_property
    def _longest_token(self) -> int:
        return max(len(self.tokenizer.token_bytes(number)) for number in range(self.tokenizer.vocab_size))


@dataclass(frozen=True)
class Settings:
    """How the tokens of a request are drawn, and how many answers it gets."""

    temperature: float
    top_p: float
    seed: int | None
    choices: int
    max_new_tokens: int
    speculative: bool

    def seed_of(self, choice: int) -> int | None:
        """The seed of one of several answers: the first has the request's own, so that it is the only one's."""
        if self.seed is None or choice == 0:
            return self.seed
        return int(np.random.SeedSequence([self.seed, choice]).generate_state(1, np.uint64)[0])


def read_settings(fields: Fields, service: Service, max_new_tokens: int | None) -> Settings:
    """temperature, top_p, seed and n of OpenAI's requests, and `speculative`.

    max_new_tokens: None: as many as the context holds. A negative seed, which OpenAI allows, counts modulo 2⁶⁴.
    """
    temperature, top_p = fields.number("temperature", 0, 2), fields.number("top_p", 0, 1)
    seed = fields.integer("seed", -(2**63), 2**64 - 1)
    speculative = fields.flag("speculative")
    return Settings(
        temperature=service.wanted.temperature if temperature is None else temperature,
        top_p=service.wanted.top_p if top_p is None else top_p,
        seed=None if seed is None else seed % 2**64,
        choices=fields.integer("n", 1, MOST_CHOICES) or 1,
        max_new_tokens=service.context if max_new_tokens is None else max_new_tokens,
        speculative=service.speculative if speculative is None else speculative,
    )
