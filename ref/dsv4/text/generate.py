"""From prompts to tokens: the prompts go through the model in chunks, then one decoding loop takes over."""

from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dsv4.arguments import flag, integer, number
from dsv4.errors import PromptError, SettingError, quoted
from dsv4.model.cache import Cache
from dsv4.model.language_model import LanguageModel
from dsv4.model.padding import check_ids
from dsv4.ops.types import Array, Ints
from dsv4.text.decode import Batch, Token, decode
from dsv4.text.draft_lengths import LengthRule, Scheduler, Threshold
from dsv4.text.drafters import drafter_of
from dsv4.text.drafts import Drafter, Drafting, decode_with_drafts
from dsv4.text.prefill import Prefill
from dsv4.text.prefixes import Prefixes
from dsv4.text.rounds import Rounds
from dsv4.text.sampling import Sampler, Setting

PREFILL_CHUNK = 512
"""Prompt tokens per pass, unless said otherwise."""

Prompts = Sequence[int] | Sequence[Sequence[int]] | npt.NDArray[np.integer]


def generate(
    model: LanguageModel,
    ids: Prompts,
    max_new_tokens: int = 100,
    temperature: Setting = 1.0,
    top_p: Setting = 1.0,
    seed: int | None = None,
    stop_ids: Iterable[int] | None = None,
    speculative: bool | Drafter = False,
    prefill_chunk: int = PREFILL_CHUNK,
    *,
    max_drafts: int | None = None,
    draft_threshold: float = 0.0,
    draft_schedule: bool = False,
    plain_steps: Container[int] = (),
    prefixes: Prefixes | None = None,
) -> "Generation":
    """Continue one prompt or several, yielding each token as it is chosen.

    ids: token ids of one prompt, or a list of prompts, which may differ in length. temperature 0 is greedy;
    temperature and top_p are numbers, or lists with one for each prompt. A seed makes the draws repeatable; each
    sequence draws from its own stream, so that it does not depend on the others.
    stop_ids: a sequence ends with the first of these, which is still yielded; by default the model's EOS.
    speculative: let what the checkpoint has for it, an MTP module or a DSpark drafter, or another Drafter that is given
    here, draft the tokens after next, and check them in the same step. The tokens follow the same distribution as
    without, and greedy ones are the same tokens. prefill_chunk: prompt tokens per pass.
    max_drafts: how many drafts to check in a step at most, by default as many as the drafter has. draft_threshold: do
    not check the drafts from the first one on that the drafter holds less likely to be kept than this, 0 … 1.
    draft_schedule: check as many as give the most tokens per second, by the times that this machine takes; the draws of
    a seed then depend on these times. plain_steps: the numbers of steps without drafts, which tell what drafts gain.
    prefixes: what earlier calls have read of texts that begin in the same way is not read again, and what this one
    reads is kept: the prompts, and without drafts the answers; each prompt then goes through the model by itself.

    Returns a Generation: iterate over it for Token after Token. A sequence ends early where the model's context ends.
    Raises PromptError for an empty or too long prompt or ids outside the vocabulary, SettingError for settings out
    of range or of another type, CheckpointError for speculative where the checkpoint has nothing to draft with. Logits
    that are no numbers end their sequence; the iteration raises DSV4Error, which names it, once the others have ended.
    """
    if not isinstance(model, LanguageModel):
        raise SettingError(f"model: expected a model from dsv4.load, found {quoted(model)}")
    prompts = prompts_of(model, ids)
    count = integer("max_new_tokens", max_new_tokens, least=1)
    chunk = integer("prefill_chunk", prefill_chunk, least=1)
    drafter = _as_drafter(model, speculative)
    drafting = _drafting(drafter, max_drafts, _as_rule(draft_threshold, draft_schedule), plain_steps)
    if prefixes is not None and isinstance(speculative, Drafter):
        raise SettingError("prefixes: expected them without a Drafter of the caller's, which would not see all tokens")
    sampler = Sampler(temperature, top_p, seed, len(prompts))
    context = model.config.max_position_embeddings
    room = np.array([context - len(prompt) + 1 for prompt in prompts])  # the last token need not be read again
    stops = frozenset(model.config.eos_token_ids if stop_ids is None else as_stop_ids(stop_ids))
    left = np.minimum(min(count, context), room)
    batch = Batch(model, sampler, stops, left, drafting.most if drafting else 0, drafts=drafting is not None)
    return Generation(batch, prompts, drafting, chunk, prefixes)


def prompts_of(model: LanguageModel, ids: Prompts) -> list[Ints]:
    """The ids of each prompt, [N] int64. Raises PromptError for what is no prompt for the model, as `generate`."""
    prompts, context = _as_prompts(ids), model.config.max_position_embeddings
    for place, prompt in enumerate(prompts):
        if len(prompt) > context:
            raise PromptError(f"prompt {place}: expected at most {context} tokens, found {len(prompt)}")
        check_ids(prompt[None], model.config.vocab_size, first_sequence=place)
        prompts[place] = prompt.astype(np.int64)
    return prompts


class Generation:
    """The tokens of one call of `generate`, made while they are iterated over, once."""

    def __init__(
        self,
        batch: Batch,
        prompts: list[Ints],
        drafting: Drafting | None,
        prefill_chunk: int,
        prefixes: Prefixes | None = None,
    ) -> None:
        self._batch, self._prompts, self._prefixes = batch, prompts, prefixes
        self._drafting, self._prefill_chunk = drafting, prefill_chunk
        self.most_tokens = int(batch.remaining.sum())
        """How many tokens all sequences together can have at most."""
        self._tokens = self._run()

    def __iter__(self) -> Iterator[Token]:
        return self._tokens

    def end(self, sequence: int) -> None:
        """No more tokens of a sequence, which counts from 0: for an end that only the text shows.

        Raises SettingError for a sequence that there is not.
        """
        self._batch.remaining[integer("sequence", sequence, most=len(self._prompts) - 1)] = 0

    @property
    def rounds(self) -> Rounds:
        """What the steps with drafts did so far: drafts by place, tokens per step, and what that gains."""
        return self._batch.rounds

    @property
    def drafted(self) -> int:
        """How many drafted tokens were checked so far."""
        return self._batch.drafted

    @property
    def accepted(self) -> int:
        """How many of them were kept."""
        return self._batch.accepted

    @property
    def acceptance_rate(self) -> float:
        """The share of drafted tokens that were kept so far; 0 before the first draft."""
        return self.accepted / self.drafted if self.drafted else 0.0

    def _run(self) -> Iterator[Token]:
        if self._prefixes is None:
            yield from self._decode(self._prefill())
        else:
            yield from self._run_with(self._prefixes)
        self._batch.raise_failure()

    def _decode(self, states: Array) -> Iterator[Token]:
        """The tokens behind the streams of each prompt's last token, [B, 1, n, d]."""
        if self._drafting is None:
            return decode(self._batch, states)
        return decode_with_drafts(self._batch, self._drafting, states)

    def _run_with(self, prefixes: Prefixes) -> Iterator[Token]:
        """Read the prompts one by one, as far as they are not known, and keep what was read."""
        drafting, model = self._drafting, self._batch.model
        drafter, spare = (drafting.drafter, drafting.most) if drafting else (None, 0)
        reading, last = list[Prefill](), list[Array]()
        for ids in self._prompts:
            prefill = Prefill(model, ids, self._prefill_chunk, prefixes, drafter, spare)
            while not prefill.done:
                states = prefill.advance(prefill.size(self._prefill_chunk))
            reading.append(prefill)
            last.append(states[0, -1])
        self._batch.cache = Cache.join([prefill.finish() for prefill in reading])
        texts = [ids.tolist() for ids in self._prompts]
        for token in self._decode(np.stack(last)[:, None]):
            texts[token.sequence].append(token.id)
            yield token
        if drafter is None:
            for sequence, (prefill, text) in enumerate(zip(reading, texts, strict=True)):
                prefill.keep_answer(self._batch.cache, sequence, np.array(text))

    def _prefill(self) -> Array:
        """Put the prompts through the model; the streams of each one's last token, [B, 1, n, d]."""
        model, cache = self._batch.model, self._batch.cache
        lengths = np.array([len(prompt) for prompt in self._prompts])
        longest = int(lengths.max())
        ids = np.stack([np.pad(prompt, (0, longest + 1 - len(prompt))) for prompt in self._prompts])
        present = np.arange(longest + 1) < lengths[:, None]
        last: list[Array] = [np.empty(0)] * len(lengths)
        for start in range(0, longest, self._prefill_chunk):
            stop = min(start + self._prefill_chunk, longest)
            states = model.states(ids[:, start:stop], cache, present[:, start:stop])
            if self._drafting:  # its drafter sees each token together with the next one
                following = slice(start + 1, stop + 1)
                self._drafting.drafter.read(states, ids[:, following], cache, present[:, following])
            for sequence in np.nonzero((start < lengths) & (lengths <= stop))[0]:
                last[sequence] = states[sequence, lengths[sequence] - 1 - start]
        return np.stack(last)[:, None]


def _as_drafter(model: LanguageModel, speculative: bool | Drafter) -> Drafter | None:
    """What drafts, if anything does. Raises as `generate`."""
    if isinstance(speculative, Drafter):
        return speculative
    if not isinstance(speculative, bool | np.bool):
        expected = "True, False or a Drafter, which has max_drafts, read and draft"
        raise SettingError(f"speculative: expected {expected}, found {quoted(speculative)}")
    return drafter_of(model) if speculative else None


def _drafting(
    drafter: Drafter | None, max_drafts: int | None, rule: LengthRule, plain_steps: Container[int]
) -> Drafting | None:
    """How to decode with a drafter, if there is one. Raises SettingError."""
    most = None if max_drafts is None else integer("max_drafts", max_drafts, least=1)
    if drafter is None:
        return None
    return Drafting(drafter, drafter.max_drafts if most is None else min(most, drafter.max_drafts), rule, plain_steps)


def _as_rule(draft_threshold: float, draft_schedule: bool) -> LengthRule:
    """What says how many drafts are checked. Raises SettingError."""
    threshold = number("draft_threshold", draft_threshold)
    if not 0 <= threshold <= 1:
        raise SettingError(f"draft_threshold: expected a number from 0 to 1, found {quoted(draft_threshold)}")
    if flag("draft_schedule", draft_schedule) and threshold:
        raise SettingError(f"draft_schedule: expected it without a draft_threshold, found {quoted(draft_threshold)}")
    return Scheduler() if draft_schedule else Threshold(threshold)


def _as_prompts(ids: Prompts) -> list[Ints]:
    """One array of ids per prompt. Raises PromptError for what is neither a prompt nor a list of prompts."""
    try:
        several = len(ids) > 0 and all(isinstance(each, Sequence | np.ndarray) for each in ids)
    except TypeError as error:  # a number, or an iterator
        raise PromptError(f"prompt: expected a list of token ids or several lists, found {quoted(ids)}") from error
    prompts = ids if several and not isinstance(ids, str | bytes) else [ids]
    return [_as_prompt(number, tokens) for number, tokens in enumerate(prompts)]


def _as_prompt(number: int, tokens: Any) -> Ints:
    """The ids of one prompt as an array."""
    if isinstance(tokens, str | bytes):
        raise PromptError(f"prompt {number}: expected a list of integers, found the text {quoted(tokens)}")
    try:
        prompt = np.asarray(tokens)
    except (TypeError, ValueError) as error:
        raise PromptError(f"prompt {number}: expected a list of integers, found {error}") from error
    if prompt.size == 0:
        raise PromptError(f"prompt {number}: expected at least one token, found none")
    if prompt.ndim != 1 or not np.issubdtype(prompt.dtype, np.integer):
        raise PromptError(f"prompt {number}: expected a list of integers, found {prompt.dtype} {prompt.shape}")
    return prompt


def as_stop_ids(stop_ids: Iterable[int]) -> Iterator[int]:
    """The ids one by one. Raises SettingError for what are no token ids, such as the text of a token."""
    if isinstance(stop_ids, str | bytes) or not isinstance(stop_ids, Iterable):
        raise SettingError(f"stop_ids: expected a list of token ids, found {quoted(stop_ids)}")
    return (integer("stop_ids", token) for token in stop_ids)
