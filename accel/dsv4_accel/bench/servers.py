"""The rows about another server: `dsv4 serve` and `transformers serve` with the same model and the same questions."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from dsv4.checkpoint.convert import convert
from dsv4.loading import bundled_model
from dsv4_accel.bench.case import CALLS, Case, Contest, Goal
from dsv4_accel.bench.peer_server import dsv4_server, transformers_server
from dsv4_accel.bench.serving import SERVER
from dsv4_accel.bench.stage import Stage
from dsv4_accel.bench.timing import Contestant

DSV4, TRANSFORMERS = "dsv4 serve", "transformers serve"

PROMPTS = [
    f"{name}.\nWhat news from the {place}?\n\n"
    for name in ("DUKE", "KATE", "KING", "ROMEO")
    for place in ("sea", "court", "field", "north")
]

TOKENS = 64
"""Of each answer."""

NEEDED = *SERVER, "transformers", "fastapi", "openai", "pydantic"
"""The extra `serve`, and transformers with its extra `serving`."""


def server_cases() -> list[Case]:
    """One answer at a time, and sixteen that are asked for together."""
    return [
        Case(
            f"serve.beside.{count}",
            f"bundled, float32, {count} × {TOKENS} tokens",
            CALLS,
            partial(_answers, count=count),
            (Goal(1, TRANSFORMERS, of=DSV4),),
            large=True,
            on_cpu=True,
            needs=NEEDED,
        )
        for count in (1, len(PROMPTS))
    ]


def _answers(stage: Stage, count: int) -> Contest:
    """Both servers are processes of their own, with as many threads; neither has work while the other is asked."""
    model = Path(stage.resources.enter_context(TemporaryDirectory(prefix="dsv4-bench-"))) / "float32"
    convert(bundled_model(), model, to="float32")
    servers = {DSV4: dsv4_server(model, stage.ops.name, stage.threads)}
    stage.resources.callback(servers[DSV4].close)
    servers[TRANSFORMERS] = transformers_server(model, stage.threads)
    stage.resources.callback(servers[TRANSFORMERS].close)
    asking = {name: partial(server.answers, PROMPTS[:count], TOKENS) for name, server in servers.items()}
    ours, theirs = (ask() for ask in asking.values())
    same = sum(mine == other for mine, other in zip(ours, theirs, strict=True))
    contestants = {name: Contestant(ask) for name, ask in asking.items()}
    return Contest(contestants, None, [f"{same} of {count} texts are the same, {sum(map(len, ours))} characters"])
