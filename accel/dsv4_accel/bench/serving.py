"""The rows about `dsv4 serve`: many answers together, a prompt that is known in part, and the way over HTTP."""

import http.client
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

from dsv4.errors import DSV4Error
from dsv4.loading import bundled_model
from dsv4.model.model import Model
from dsv4.serve.engine import Engine
from dsv4.serve.job import Ended, Event, Job
from dsv4.text.generate import generate
from dsv4.text.generation_config import GenerationConfig
from dsv4.text.tokenizer import Tokenizer
from dsv4_accel.bench.case import ARITHMETIC, CALLS, MEMORY, Case, Contest, Goal
from dsv4_accel.bench.models import bundled
from dsv4_accel.bench.stage import Stage
from dsv4_accel.bench.timing import Contestant

TOGETHER, IN_TURN = "together", "in turn"
SECOND, FIRST = "second turn", "first turn"
OVER_HTTP, GENERATE = "over HTTP", "generate"

ANSWERS, PROMPT, TOKENS = 16, 16, 64
"""How many answers at once, and how long each and its prompt are."""

KNOWN, NEW = 2000, 20
"""Tokens of a conversation so far, and of what is said next."""

SENT = 256
"""Tokens of an answer over HTTP."""

SERVER = "starlette", "uvicorn", "prometheus_client"
"""What the way over HTTP needs: the extra `serve`."""


def serving_cases() -> list[Case]:
    """Throughput, the first token of a second turn, and what a token over HTTP takes."""
    together = f"{{}}, {ANSWERS} × {TOKENS} tokens".format
    turns = f"bundled, 1 token after {KNOWN} known"
    sent = f"bundled, {SENT} tokens, {{}}".format
    shared = (Goal(4, IN_TURN, of=TOGETHER),)
    http = Goal(1 / 1.1, GENERATE, of=OVER_HTTP)
    whole, stream = (partial(_over_http, streams=streams) for streams in (False, True))
    return [
        Case("serve.together", together("bundled"), CALLS, _together, shared),
        Case(
            "serve.together.layer",
            together("V4-Flash layer"),
            MEMORY,
            _together_through_a_layer,
            shared,
            large=True,
        ),
        Case("serve.second_turn", turns, ARITHMETIC, _second_turn, (Goal(10, FIRST, of=SECOND),)),
        Case("serve.token.whole", sent("whole"), CALLS, whole, (http,), on_cpu=True, needs=SERVER),
        Case("serve.token.stream", sent("in a stream"), CALLS, stream, (http,), on_cpu=True, needs=SERVER),
    ]


def _together(stage: Stage) -> Contest:
    return _contest_of_jobs(stage, bundled(stage.ops, rounds=False))


def _together_through_a_layer(stage: Stage) -> Contest:
    """In full size, where reading weights is most of the work. How much of it sixteen tokens share depends on routing:
    they all use the same attention, but choose experts of their own."""
    return _contest_of_jobs(stage, stage.layer.model(stage.ops))


def _contest_of_jobs(stage: Stage, model: Model) -> Contest:
    engine = _engine(stage, model, 0)
    prompts = stage.random.integers(0, 1000, (ANSWERS, PROMPT)).tolist()
    jobs = [Job(tuple(ids), TOKENS, seed=number) for number, ids in enumerate(prompts)]

    def in_turn() -> None:
        for job in jobs:
            finish(engine, [job])

    return Contest({TOGETHER: Contestant(lambda: finish(engine, jobs)), IN_TURN: Contestant(in_turn)}, None)


def _second_turn(stage: Stage) -> Contest:
    """The second turn's prompt is another one each time, so that only the first turn is known of it."""
    model = bundled(stage.ops, rounds=False)
    knowing, forgetful = _engine(stage, model, 2**28), _engine(stage, model, 0)
    known = stage.random.integers(0, 1000, KNOWN).tolist()
    finish(knowing, [Job(tuple(known), 1)])
    turns = _jobs_behind(stage, known)
    first = Job(tuple(known), 1)
    contestants = {
        SECOND: Contestant(lambda: finish(knowing, [next(turns)])),
        FIRST: Contestant(lambda: finish(forgetful, [first])),
    }
    return Contest(contestants, None)


def _jobs_behind(stage: Stage, known: list[int]) -> Iterator[Job]:
    for _ in itertools.count():
        yield Job((*known, *stage.random.integers(0, 1000, NEW).tolist()), 1)


def _over_http(stage: Stage, streams: bool) -> Contest:
    """The same answer from the same process, by a client in it and by a call of `generate`."""
    model = bundled(stage.ops, rounds=False)
    ids = stage.random.integers(0, 1000, PROMPT).tolist()
    settings = {"max_tokens": SENT, "seed": 0, "temperature": 1, "top_p": 1, "stream": streams}
    ask = _client(stage, model, {"prompt": ids, **settings})

    def call() -> list[int]:
        return [token.id for token in generate(model, ids, SENT, seed=0, stop_ids=())]

    return Contest({OVER_HTTP: Contestant(ask), GENERATE: Contestant(call)}, None)


def finish(engine: Engine, jobs: Sequence[Job]) -> None:
    """Have jobs done together, and return when all have ended. Raises DSV4Error where one fails."""
    left, failures = threading.Semaphore(0), list[str]()

    def hear(event: Event) -> None:
        if isinstance(event, Ended):
            failures.extend([event.message] if event.reason == "error" else [])
            left.release()

    for job in jobs:
        engine.submit(job, hear)
    for _ in jobs:
        left.acquire()
    if failures:
        raise DSV4Error(failures[0])


def _engine(stage: Stage, model: Model, prefix_memory: int) -> Engine:
    """An engine that ends with the row."""
    engine = Engine(model, running=ANSWERS, prefix_memory=prefix_memory)
    stage.resources.callback(engine.stop, finish=False)
    return engine


def _client(stage: Stage, model: Model, body: dict[str, Any]) -> Callable[[], bytes]:
    """Asks a server of the model's, which ends with the row, for a text that goes on behind a prompt."""
    server_type = import_module("dsv4.serve.server").Server
    service_type = import_module("dsv4.serve.service").Service
    tokenizer = Tokenizer.from_file(bundled_model())
    wanted = replace(GenerationConfig.load(model.checkpoint), stop_ids=())
    engine = Engine(model, prefix_memory=0)
    service = service_type(model, tokenizer, engine, "bundled", wanted, "non-think", "april")
    server = server_type(service, port=0)
    thread = threading.Thread(target=server.run)
    thread.start()

    def end() -> None:
        server.should_exit = True
        thread.join()

    stage.resources.callback(end)
    address = server.address.removeprefix("http://")
    return partial(_asked, address, json.dumps(body).encode())


def _asked(address: str, body: bytes) -> bytes:
    """What is answered. Raises DSV4Error for a refusal."""
    with closing(http.client.HTTPConnection(address)) as connection:
        connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        found = answer.read()
    if answer.status != 200:
        raise DSV4Error(f"serve: expected an answer, found status {answer.status}: {found[:200]!r}")
    return found
