"""The bench's rows about long contexts, at a short one."""

import re

import pytest

from dsv4.cost.memory import cache_bytes
from dsv4.errors import PromptError
from dsv4.ops import Ops
from dsv4_accel.bench import context
from dsv4_accel.bench.layer import LargeLayer
from dsv4_accel.bench.peers import Peers
from dsv4_accel.bench.roof import Roof
from dsv4_accel.bench.stage import NUMPY, Stage
from dsv4_accel.bench.timing import QUICK


@pytest.fixture
def stage():
    scene = Stage(Ops(), QUICK, Roof(2**20, 1), 1, 1, Peers(wanted=False), LargeLayer())
    with scene.resources:
        yield scene


def test_the_prompt_is_put_in_by_chunks_and_decoding_ends_at_the_context(stage, monkeypatch):
    monkeypatch.setattr(context, "STEPS", 8)
    monkeypatch.setattr(context, "CHUNK", 64)
    contest = context._decode(stage, length=158)
    assert list(contest.contestants) == [NUMPY]
    (note,) = contest.notes
    found = re.search(r"prompt of 150 in chunks of 64 in \d+ s; cache ([\d,]+) bytes, 100.00% of what", note)
    assert int(found[1].replace(",", "")) == sum(cache_bytes(context.SMALL, 150, "packed").values())
    decoding = contest.contestants[NUMPY]
    for _ in range(2):  # each batch begins behind the prompt
        decoding.before()
        for _ in range(8):
            decoding.run()
        with pytest.raises(StopIteration):
            decoding.run()


def test_the_small_model_has_the_positions_of_the_released_ones(stage):
    model = context.small_model(stage)
    assert model.config.max_position_embeddings == context.CONTEXTS["1M"] == 2**20
    assert model.rounds
    cache = model.new_cache(packed=True)
    cache.main.lengths = cache.main.furthest = cache.lengths + 2**20
    with pytest.raises(PromptError, match="1048576"):
        model([[1]], cache)
