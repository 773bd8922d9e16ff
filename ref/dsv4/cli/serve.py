"""`dsv4 serve`: an endpoint for a model."""

import logging
import sys
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dsv4.cli.app import (
    BackendOption,
    FakeQuantOption,
    Memory,
    ModelArgument,
    Speculative,
    app,
    open_model,
    wanted_settings,
)
from dsv4.cli.quantities import bytes_of
from dsv4.errors import SettingError
from dsv4.model.stored_layers import StoredLayers
from dsv4.text.chat.check import check_mode_of, read_mode
from dsv4.text.chat.revision import AUTO, revision_of
from dsv4.text.generate import PREFILL_CHUNK
from dsv4.text.generation_config import GenerationConfig
from dsv4.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from dsv4.serve.engine import Engine
    from dsv4.serve.service import Limits

KEY_VARIABLE = "DSV4_API_KEY"

NEEDED = "uvicorn", "starlette", "prometheus_client"


@app.command()
def serve(
    model: ModelArgument = None,
    host: Annotated[
        str, typer.Option("--host", help="The address to serve at; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.", min=0, max=65535)] = 8000,
    name: Annotated[
        str | None,
        typer.Option("--name", help="What clients call the model.", show_default="the name of its directory"),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            envvar=KEY_VARIABLE,
            show_envvar=True,
            show_default="no key",
            help="Answer only those who send this key.",
        ),
    ] = None,
    mode: Annotated[
        str, typer.Option("--mode", help="How much to think where a request does not say, as `dsv4 chat` has it.")
    ] = "non-think",
    revision: Annotated[
        str,
        typer.Option(
            "--revision",
            help="Whose format and efforts: april, 0731, v4.1, v4.1-api, or auto, from the checkpoint.",
        ),
    ] = AUTO,
    running: Annotated[
        int, typer.Option("--running", help="How many answers are computed together at most.", min=1)
    ] = 16,
    waiting: Annotated[
        int, typer.Option("--waiting", help="How many more may wait; beyond these, status 429.", min=0)
    ] = 64,
    prefill_chunk: Annotated[
        int, typer.Option("--prefill-chunk", help="Tokens of prompts that are read in a pass.", min=1)
    ] = PREFILL_CHUNK,
    prefix_memory: Annotated[
        str,
        typer.Option(
            "--prefix-memory", metavar="SIZE", help="What the caches of earlier prompts may take, which are used again."
        ),
    ] = "256MiB",
    time_limit: Annotated[
        float | None,
        typer.Option("--time-limit", metavar="SECONDS", help="The most time for an answer.", show_default="no limit"),
    ] = None,
    max_body: Annotated[str, typer.Option("--max-body", metavar="SIZE", help="The largest request.")] = "8MiB",
    grace: Annotated[
        float,
        typer.Option("--grace", metavar="SECONDS", help="How long answers may take to finish after Ctrl-C.", min=0),
    ] = 30.0,
    log_content: Annotated[
        bool, typer.Option("--log-content", help="Write prompts and answers to the log, too.")
    ] = False,
    speculative: Speculative = False,
    backend: BackendOption = "auto",
    fake_quant: FakeQuantOption = "auto",
    memory: Memory = None,
) -> None:
    """Serve a model to clients of OpenAI's and Anthropic's interfaces, and as a page to chat with.

    Ctrl-C ends it when the answers that are being made are whole; a second one ends it at once.
    """
    _require_packages()
    from dsv4.serve.engine import Engine
    from dsv4.serve.server import Server
    from dsv4.serve.service import Service

    effort = read_mode(mode)
    if api_key == "":
        raise SettingError("--api-key: expected a key that is not empty, found an empty one")
    limits, prefixes = _limits(max_body), bytes_of(prefix_memory, "--prefix-memory")
    loaded, tokenizer = open_model(model, backend, fake_quant, memory)
    wanted_settings(loaded, None, None)  # says what of generation_config.json is not applied
    texts_of = revision_of(loaded.config, revision)
    check_mode_of(effort, texts_of)
    if isinstance(loaded.layers, StoredLayers):
        loaded.layers.require_room_beside(prefixes, "the prefixes of --prefix-memory")
    settings: dict[str, Any] = {"running": running, "waiting": waiting, "prefill_chunk": prefill_chunk}
    engine = Engine(loaded, **settings, prefix_memory=prefixes, time_limit=time_limit)
    try:
        service = Service(
            loaded,
            tokenizer,
            engine,
            name or loaded.checkpoint.directory.resolve().name,
            GenerationConfig.load(loaded.checkpoint),
            effort,
            texts_of,
            speculative,
            api_key,
            limits,
            log_content,
        )
        server = Server(service, host, port, grace)
        _begin_log()
        _warm_up(engine, tokenizer)
        print(f"serving {service.name} ({loaded.ops.name}) at {server.address}", flush=True)
        server.run()
    finally:
        engine.stop(finish=False)


def _warm_up(engine: "Engine", tokenizer: Tokenizer) -> None:
    """Make one token, so that what a backend compiles when it first runs does not keep the first client waiting."""
    from dsv4.serve.job import Ended, Event, Job

    ended = threading.Event()

    def hear(event: Event) -> None:
        if isinstance(event, Ended):
            ended.set()

    engine.submit(Job((tokenizer.bos_id,), 1), hear)
    ended.wait()


def _require_packages() -> None:
    """Raises SettingError where the packages of the extra are missing."""
    from importlib.util import find_spec

    missing = [package for package in NEEDED if find_spec(package) is None]
    if missing:
        raise SettingError(f"serve: expected the extra 'serve' (pip install 'dsv4[serve]'), found no {missing[0]}")


def _limits(max_body: str) -> "Limits":
    from dsv4.serve.service import Limits

    return Limits(body_bytes=bytes_of(max_body, "--max-body"))


def _begin_log() -> None:
    """A line on standard error for each request, with the time; of the server itself, warnings alone."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for log, level in (("dsv4.serve", logging.INFO), ("uvicorn", logging.WARNING)):
        logging.getLogger(log).addHandler(handler)
        logging.getLogger(log).setLevel(level)
