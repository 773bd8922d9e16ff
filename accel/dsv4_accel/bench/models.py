"""The rows about whole passes: the bundled model, and one layer of V4-Flash in full size at long contexts."""

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dsv4.checkpoint import Checkpoint
from dsv4.checkpoint.convert import convert
from dsv4.config import Config
from dsv4.cost.products import token_products
from dsv4.loading import bundled_model
from dsv4.model.model import Model
from dsv4.model.observe import ignore
from dsv4.model.span import Span
from dsv4.ops import Ops
from dsv4.ops.types import Ints
from dsv4_accel.bench.case import ARITHMETIC, CALLS, MEMORY, ROOF, Case, Contest, Goal
from dsv4_accel.bench.layer import decode_bytes, filled_cache
from dsv4_accel.bench.peer_transformers import TransformersModel
from dsv4_accel.bench.product_rate import DENSE, beside_dense
from dsv4_accel.bench.stage import NUMPY, Stage
from dsv4_accel.bench.timing import Contestant

TRANSFORMERS = "transformers"

CONTEXTS = {"4k": 2**12, "16k": 2**14, "64k": 2**16, "256k": 2**18, "1M": 2**20}

FEW_KEYS = 2**18
"""Up to this context, reading the weights takes longer than the indexer's products with its keys."""

DECODED_FROM = 256
"""Tokens in the cache of the bundled model before the first decoded one."""

BATCHES = 4, 16, 64
"""Sequences of which a layer decodes a token together."""

ONE_BY_ONE = "one by one"
"""As many steps of one sequence as there are in the batch."""

PERIOD = 4
"""Every fourth token completes an entry of a CSA layer, which makes its step longer."""

STEPS = 64
"""So many decoding steps at a long context differ: in their position, their streams and so their experts."""


def model_cases() -> list[Case]:
    """Decoding and prefill, the bundled model and the large layer."""
    decode = Goal(10, TRANSFORMERS), Goal(1.2, TRANSFORMERS, of=NUMPY)
    after = f"1 token after {DECODED_FROM}"
    cases = [
        Case("model.decode", f"bundled model, {after}", CALLS, partial(_decode, rounds=False), decode),
        Case("model.decode.rounded", f"bundled, {after}, rounding", CALLS, partial(_decode, rounds=True)),
    ]
    for count, goals in ((256, ()), (1024, (Goal(4, TRANSFORMERS),))):
        what, prepare = f"bundled model, {count} tokens", partial(_prefill, count=count, rounds=False)
        cases.append(Case(f"model.prefill.{count}", what, ARITHMETIC, prepare, goals))
    what, prepare = "bundled, 1024 tokens, rounding", partial(_prefill, count=1024, rounds=True)
    return [*cases, Case("model.prefill.rounded", what, ARITHMETIC, prepare), *_layer_cases()]


def _layer_cases() -> list[Case]:
    cases = [
        Case(
            f"layer.decode.{name}",
            f"V4-Flash layer, 1 token after {name}",
            MEMORY if length <= FEW_KEYS else ARITHMETIC,
            partial(_layer_decode, length=length),
            (Goal(0.85 if length <= FEW_KEYS else 0.7, ROOF),),
            large=True,
        )
        for name, length in CONTEXTS.items()
    ]
    cases += [
        Case(
            f"layer.decode.{name}.packed",
            f"V4-Flash layer, packed, after {name}",
            MEMORY if CONTEXTS[name] <= FEW_KEYS else ARITHMETIC,
            partial(_layer_decode, length=CONTEXTS[name], packed=True),
            large=True,
        )
        for name in ("64k", "1M")
    ]
    cases += [
        Case(
            f"layer.batch.{batch}",
            f"V4-Flash layer, 1 token × {batch}, at 4k",
            MEMORY,
            partial(_layer_batch, batch=batch),
            large=True,
        )
        for batch in BATCHES
    ]
    what, prefill, half = "V4-Flash layer, 512 tokens", partial(_layer_prefill, count=512), (Goal(0.5, DENSE),)
    return [*cases, Case("layer.prefill.512", what, ARITHMETIC, prefill, half, large=True)]


def _decode(stage: Stage, rounds: bool) -> Contest:
    prompt = stage.random.integers(0, 1000, (1, DECODED_FROM))
    contestants = {name: _decoder(bundled(ops, rounds), prompt) for name, ops in stage.all_ops.items()}
    if not rounds and (theirs := bundled_in_transformers(stage)):
        contestants[TRANSFORMERS] = _their_decoder(theirs, prompt)
    return Contest(contestants, None)


def _prefill(stage: Stage, count: int, rounds: bool) -> Contest:
    prompt = stage.random.integers(0, 1000, (1, count))

    def call(model: Model) -> object:
        return model.head(model.states(prompt, model.new_cache())[:, -1:])

    contestants = {name: Contestant(partial(call, bundled(ops, rounds))) for name, ops in stage.all_ops.items()}
    if not rounds and (theirs := bundled_in_transformers(stage)):
        contestants[TRANSFORMERS] = Contestant(lambda: theirs.prefill(prompt))
    return Contest(contestants, None)


def bundled(ops: Ops, rounds: bool) -> Model:
    """The bundled model on a backend. rounds: whether it rounds activations as the released models do."""
    return Model(Checkpoint.open(bundled_model()), ops, fake_quant=rounds)


def bundled_in_transformers(stage: Stage) -> TransformersModel | None:
    """The bundled model in transformers, which reads it as float32."""
    transformers = stage.peers.transformers
    if transformers is None:
        return None
    directory = Path(stage.resources.enter_context(TemporaryDirectory(prefix="dsv4-bench-"))) / "float32"
    convert(bundled_model(), directory, to="float32")
    return transformers.load(directory)


def _decoder(model: Model, prompt: Ints) -> Contestant:
    """Greedy decoding; each batch of calls begins behind the prompt."""
    prompted = model.new_cache()
    first = model(prompt, prompted)[:, -1:]
    now: dict[str, Any] = {}

    def begin() -> None:
        now.update(cache=prompted.fork(), logits=first)

    def step() -> None:
        now["logits"] = model(model.ops.to_numpy(now["logits"].argmax(-1)), now["cache"])

    return Contestant(step, begin, period=PERIOD)


def _their_decoder(model: TransformersModel, prompt: Ints) -> Contestant:
    prompted = model.new_cache()
    first = model.prefill(prompt, prompted)
    now: dict[str, Any] = {}

    def begin() -> None:
        now.update(cache=model.fork(prompted), logits=first)

    def step() -> None:
        now["logits"] = model.decode(now["logits"], now["cache"])

    return Contestant(step, begin, period=PERIOD)


def _layer_decode(stage: Stage, length: int, packed: bool = False) -> Contest:
    """Steps that find none of their weights in a cache, as in a model where other layers come between."""
    models = {name: stage.layer.model(ops) for name, ops in stage.all_ops.items()}
    if packed:  # which only a model that rounds has
        models = {name: Model(model.checkpoint, model.ops, fake_quant=True) for name, model in models.items()}
    contestants = {
        name: Contestant(layer_steps(model, stage, length, packed), stage.roof.read, single=True)
        for name, model in models.items()
    }
    return Contest(contestants, decode_bytes(next(iter(models.values())), length, packed))


def _layer_batch(stage: Stage, batch: int) -> Contest:
    """Tokens of several sequences that choose experts of their own, together and one after the other."""
    length, model = CONTEXTS["4k"], stage.layer.model(stage.ops)
    together, alone = layer_steps(model, stage, length, batch=batch), layer_steps(model, stage, length)

    def one_by_one() -> None:
        for _ in range(batch):
            alone()

    calls = {next(iter(stage.all_ops)): together, ONE_BY_ONE: one_by_one}
    contestants = {name: Contestant(call, stage.roof.read, single=True) for name, call in calls.items()}
    return Contest(contestants, decode_bytes(model, length, batch=batch))


def layer_steps(model: Model, stage: Stage, length: int, packed: bool = False, batch: int = 1) -> Callable[[], object]:
    """A decoding step of the large layer behind so many tokens of each sequence, to be called again and again."""
    block, ops = model.layers[0], model.ops
    _read_experts(model)
    cache = filled_cache(model, length, stage.random, packed, batch)
    streams = stage.floats(STEPS, batch, 1, model.config.hc_mult, model.config.hidden_size)
    ids = ops.asarray(np.zeros((batch, 1), np.int64))
    starts = [np.full(batch, length - STEPS + step) for step in range(STEPS)]
    spans = [Span(start, np.ones(batch, np.int64), 1, ops.asarray) for start in starts]
    steps = itertools.cycle(zip(map(ops.asarray, streams), spans, strict=True))

    def step() -> object:
        streams, span = next(steps)
        return block(streams, ids, span, cache, ignore)

    return step


def _layer_prefill(stage: Stage, count: int) -> Contest:
    def call(ops: Ops) -> Contestant:
        model = stage.layer.model(ops)
        _read_experts(model)
        block = model.layers[0]
        span = Span(np.zeros(1, np.int64), np.array([count]), count, ops.asarray)
        streams = ops.asarray(stage.floats(1, count, model.config.hc_mult, model.config.hidden_size))
        ids = ops.asarray(np.zeros((1, count), np.int64))
        return Contestant(lambda: block(streams, ids, span, block.new_cache(1, 0, model.dtype), ignore))

    contest = Contest({name: call(ops) for name, ops in stage.all_ops.items()}, None)
    return beside_dense(stage, contest, layer_multiply_adds(stage.layer.config, count))


def layer_multiply_adds(config: Config, count: int) -> int:
    """What `dsv4 cost` counts for a prompt of so many tokens from its beginning, less the head's share."""
    products = itertools.chain.from_iterable(token_products(config, context) for context in range(1, count + 1))
    return sum(product.multiply_adds for product in products if product.part != "head")


def _read_experts(model: Model) -> None:
    """Let the experts be found in the files and checked, which happens when each is first used."""
    experts = model.layers[0].ffn.experts
    for number in range(len(experts)):
        experts[number]
