"""`dsv4 generate` and `dsv4 chat`: text from a model."""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from dsv4.chat.check import check_mode
from dsv4.cli.app import (
    BackendOption,
    FakeQuantOption,
    JsonOption,
    MaxNewTokens,
    ModelArgument,
    ModelOption,
    Seed,
    Speculative,
    Temperature,
    TopP,
    app,
    open_model,
)
from dsv4.cli.conversation import Conversation, typed_lines
from dsv4.cli.progress import progress
from dsv4.errors import PromptError
from dsv4.generate import Generation, generate
from dsv4.tokenizer import Tokenizer


@app.command(name="generate")
def generate_command(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT", help="One text or several to continue.")],
    model: ModelOption = None,
    max_new_tokens: MaxNewTokens = 200,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    seed: Seed = None,
    speculative: Speculative = False,
    allow_special: Annotated[
        bool, typer.Option("--allow-special", help="Special-token text in a prompt becomes control tokens.")
    ] = False,
    backend: BackendOption = "auto",
    fake_quant: FakeQuantOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Continue a text; several texts are continued together, as one batch."""
    loaded, tokenizer = open_model(model, backend, fake_quant)
    ids = [_encode(tokenizer, prompt, allow_special) for prompt in prompts]
    generation = generate(loaded, ids, max_new_tokens, temperature, top_p, seed, speculative=speculative)
    streams = len(prompts) == 1 and not as_json
    if streams:
        _write(prompts[0])
    replies = _collect(generation, tokenizer, len(prompts), streams)
    if as_json:
        print(json.dumps(_report(prompts, replies, generation, speculative), ensure_ascii=False, indent=1))
        return
    if not streams:
        for prompt, reply in zip(prompts, replies, strict=True):
            print(f"{prompt}{reply.text}\n")
    else:
        print()
    if speculative:
        rate, kept, drafted = generation.acceptance_rate, generation.accepted, generation.drafted
        print(f"accepted {kept} of {drafted} drafted tokens ({rate:.0%})", file=sys.stderr)


@app.command()
def chat(
    model: ModelArgument = None,
    mode: Annotated[str, typer.Option("--mode", help="non-think, high or max.")] = "non-think",
    system: Annotated[str | None, typer.Option("--system", help="A system message to begin with.")] = None,
    max_new_tokens: MaxNewTokens = 400,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    seed: Seed = None,
    speculative: Speculative = False,
    backend: BackendOption = "auto",
    fake_quant: FakeQuantOption = "auto",
) -> None:
    """Talk with a model. Each line is a message; an empty line or the end of input ends the conversation."""
    lines = typed_lines()
    check_mode(mode)
    loaded, tokenizer = open_model(model, backend, fake_quant)
    config = loaded.config
    context, end_id = config.max_position_embeddings, config.eos_token_id
    conversation = Conversation(tokenizer, mode, system, context, max_new_tokens, end_id)
    turn = 0
    for line in lines:
        ids = conversation.ask(line)
        if not ids:
            continue
        draws = None if seed is None else seed + turn
        generation = generate(loaded, ids, max_new_tokens, temperature, top_p, draws, speculative=speculative)
        reply = _collect(generation, tokenizer, 1, streams=True)[0]
        print()
        conversation.hear(reply.ids)
        turn += 1


@dataclass
class _Reply:
    """What was generated for one prompt."""

    ids: list[int] = field(default_factory=list)
    text: str = ""


def _collect(generation: Generation, tokenizer: Tokenizer, count: int, streams: bool) -> list[_Reply]:
    """Run a generation to its end; with `streams`, print the text as it comes."""
    replies = [_Reply() for _ in range(count)]
    decoders = [tokenizer.stream(skip_special=True) for _ in range(count)]
    with progress("generating", wanted=not streams) as report:
        for done, token in enumerate(generation, start=1):
            reply, piece = replies[token.sequence], decoders[token.sequence].push(token.id)
            reply.ids.append(token.id)
            reply.text += piece
            report(done, generation.most_tokens, "")
            if streams:
                _write(piece)
    for reply, decoder in zip(replies, decoders, strict=True):
        rest = decoder.flush()
        reply.text += rest
        if streams:
            _write(rest)
    return replies


def _report(prompts: list[str], replies: Iterable[_Reply], generation: Generation, speculative: bool) -> dict[str, Any]:
    results = [
        {"prompt": prompt, "text": reply.text, "ids": reply.ids} for prompt, reply in zip(prompts, replies, strict=True)
    ]
    drafts = {"drafted": generation.drafted, "accepted": generation.accepted} if speculative else {}
    return {"results": results, **drafts}


def _encode(tokenizer: Tokenizer, prompt: str, allow_special: bool) -> list[int]:
    if not prompt:
        raise PromptError("prompt: expected some text, found none")
    begin = [tokenizer.bos_id] if tokenizer.add_bos else []
    return begin + tokenizer.encode(prompt, allow_special)


def _write(text: str) -> None:
    print(text, end="", flush=True)
