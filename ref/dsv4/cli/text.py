"""`dsv4 generate` and `dsv4 chat`: text from a model."""

import json
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from dsv4.cli.app import (
    AllowSpecial,
    BackendOption,
    DraftSchedule,
    DraftThreshold,
    FakeQuantOption,
    JsonOption,
    MaxDrafts,
    MaxNewTokens,
    Memory,
    ModelArgument,
    ModelOption,
    Seed,
    Speculative,
    Temperature,
    TopP,
    app,
    bounded,
    draft_settings,
    open_model,
    prompt_ids,
    reading_of,
    wanted_settings,
)
from dsv4.cli.conversation import Conversation, typed_lines
from dsv4.cli.progress import progress
from dsv4.model.language_model import LanguageModel
from dsv4.text.chat.check import check_mode_of, read_mode
from dsv4.text.chat.revision import AUTO, revision_of
from dsv4.text.generate import Generation, generate
from dsv4.text.prefixes import PREFIX_MEMORY, Prefixes
from dsv4.text.stop_texts import StopTexts
from dsv4.text.tokenizer import Tokenizer


@app.command(name="generate")
def generate_command(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT", help="The text to continue, or several texts.")],
    model: ModelOption = None,
    max_new_tokens: MaxNewTokens = 200,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = None,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", metavar="TEXT", help="Stop before this text; may be given several times."),
    ] = None,
    speculative: Speculative = False,
    max_drafts: MaxDrafts = None,
    draft_threshold: DraftThreshold = 0.0,
    draft_schedule: DraftSchedule = False,
    allow_special: AllowSpecial = False,
    backend: BackendOption = "auto",
    fake_quant: FakeQuantOption = "auto",
    memory: Memory = None,
    as_json: JsonOption = False,
) -> None:
    """Continue a text, or several texts as one batch."""
    stops = stop or []
    StopTexts(stops)  # refuse an empty one at once
    drafts = draft_settings(speculative, max_drafts, draft_threshold, draft_schedule)
    loaded, tokenizer = open_model(model, backend, fake_quant, memory)
    ids = [prompt_ids(tokenizer, prompt, allow_special) for prompt in prompts]
    settings = wanted_settings(loaded, temperature, top_p)
    settings["stop_ids"] += _control_ids(tokenizer, stops)
    generation = generate(loaded, ids, max_new_tokens, seed=seed, **drafts, **settings)
    streams = len(prompts) == 1 and not as_json
    if streams:
        _write(prompts[0])
    replies = [_Reply(tokenizer, streams, stops) for _ in prompts]
    try:
        _collect(generation, replies, streams, loaded)
    finally:  # what was generated before an error or an interruption is not lost
        if streams:
            print()
        elif any(reply.ids for reply in replies):
            _print_all(prompts, replies, generation if speculative else None, as_json)
    if speculative and not as_json:
        print(_report(generation), file=sys.stderr)
    _say_reading(loaded)


@app.command()
def chat(
    model: ModelArgument = None,
    mode: Annotated[
        str,
        typer.Option("--mode", help="How much to think: non-think, low, high or max; V4.1: xhigh or 1 to 100, too."),
    ] = "non-think",
    revision: Annotated[
        str,
        typer.Option(
            "--revision",
            help="Whose format and efforts: april, 0731, v4.1, v4.1-api, or auto, from the checkpoint.",
        ),
    ] = AUTO,
    system: Annotated[str | None, typer.Option("--system", help="A system message to begin with.")] = None,
    max_new_tokens: MaxNewTokens = 400,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = None,
    speculative: Speculative = False,
    max_drafts: MaxDrafts = None,
    draft_threshold: DraftThreshold = 0.0,
    draft_schedule: DraftSchedule = False,
    backend: BackendOption = "auto",
    fake_quant: FakeQuantOption = "auto",
    memory: Memory = None,
) -> None:
    """Talk with a model. Each line is a message; an empty line or the end of input ends the conversation."""
    effort = read_mode(mode)
    drafts = draft_settings(speculative, max_drafts, draft_threshold, draft_schedule)
    loaded, tokenizer = open_model(model, backend, fake_quant, memory)
    settings = wanted_settings(loaded, temperature, top_p)
    texts_of = revision_of(loaded.config, revision)
    check_mode_of(effort, texts_of)
    context, end_ids = loaded.config.max_position_embeddings, settings["stop_ids"]
    bound = bounded(memory)
    prefixes = Prefixes(PREFIX_MEMORY if bound is None else min(PREFIX_MEMORY, bound // 8))
    conversation = Conversation(tokenizer, effort, texts_of, system, context, max_new_tokens, end_ids)
    turn = 0
    for line in typed_lines():
        ids = conversation.ask(line)
        if not ids:
            continue
        draws = None if seed is None else seed + turn
        generation = generate(loaded, ids, max_new_tokens, seed=draws, prefixes=prefixes, **drafts, **settings)
        reply = _Reply(tokenizer, streams=True)
        _collect(generation, [reply], streams=True, model=loaded)
        print()
        _say_reading(loaded)
        conversation.hear(reply.ids)
        turn += 1


class _Reply:
    """What is generated for one prompt: ids, those of a stop text included, and the text before it."""

    def __init__(self, tokenizer: Tokenizer, streams: bool, stops: Sequence[str] = ()) -> None:
        """streams: whether the text is printed as it comes."""
        self.ids: list[int] = []
        self.text = ""
        self.stops = StopTexts(stops)
        self._decoder, self._streams = tokenizer.stream(skip_special=True), streams

    def take(self, token_id: int) -> None:
        """One more token."""
        self.ids.append(token_id)
        self._add(self.stops.push(self._decoder.push(token_id)))

    def finish(self) -> None:
        """Add the text that was held back for what might have followed."""
        self._add(self.stops.push(self._decoder.flush()))
        self._add(self.stops.flush())

    def _add(self, text: str) -> None:
        self.text += text
        if self._streams:
            _write(text)


def _collect(generation: Generation, replies: list[_Reply], streams: bool, model: LanguageModel) -> None:
    """Run a generation to its end; where it fails, the replies have what came before."""
    try:
        with progress("generating", wanted=not streams) as report:
            for done, token in enumerate(generation, start=1):
                reply = replies[token.sequence]
                reply.take(token.id)
                if reply.stops.ended:
                    generation.end(token.sequence)
                report(done, generation.most_tokens, reading_of(model))
    finally:
        for reply in replies:
            reply.finish()


def _say_reading(model: LanguageModel) -> None:
    if words := reading_of(model):
        print(words, file=sys.stderr)


def _control_ids(tokenizer: Tokenizer, stops: list[str]) -> tuple[int, ...]:
    """The ids of the stop texts that are control tokens, which the text that is printed leaves out."""
    encoded = [tokenizer.encode(stop, allow_special=True) for stop in stops]
    return tuple(ids[0] for ids in encoded if len(ids) == 1 and not tokenizer.decode(ids, skip_special=True))


def _print_all(prompts: list[str], replies: list[_Reply], drafting: Generation | None, as_json: bool) -> None:
    """The prompts with their replies; in JSON also how many tokens were drafted, where any were."""
    pairs = list(zip(prompts, replies, strict=True))
    if not as_json:
        for prompt, reply in pairs:
            print(f"{prompt}{reply.text}\n")
        return
    results = [{"prompt": prompt, "text": reply.text, "ids": reply.ids} for prompt, reply in pairs]
    drafts = {}
    if drafting:
        names = "drafted", "accepted", "drafted_by_place", "accepted_by_place", "tokens_per_step", "speedup"
        drafts = {name: getattr(drafting.rounds, name) for name in names}
    print(json.dumps({"results": results, **drafts}, ensure_ascii=False, indent=1))


def _report(generation: Generation) -> str:
    """What became of the drafts, and what they gained."""
    rounds, rate = generation.rounds, generation.acceptance_rate
    text = f"accepted {rounds.accepted} of {rounds.drafted} drafted tokens ({rate:.0%})"
    if len(rounds.drafted_by_place) > 1:
        places = zip(rounds.accepted_by_place, rounds.drafted_by_place, strict=True)
        text += " by place: " + ", ".join(f"{kept} of {drafted}" for kept, drafted in places)
    text += f"; {rounds.tokens_per_step:.2f} tokens per step"
    return text if rounds.speedup is None else f"{text}, {rounds.speedup:.2f} times as fast as the steps without drafts"


def _write(text: str) -> None:
    print(text, end="", flush=True)
