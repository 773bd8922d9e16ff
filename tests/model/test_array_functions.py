"""What the model asks of a backend's arrays between the operations: the functions of NumPy that `dsv4.ops` lists."""

import numpy as np
import pytest

import tiny
import tiny41
from dsv4.ops import ARRAY_FUNCTIONS, OPERATIONS, OPERATIONS_41, SAMPLING_FUNCTIONS, Ops
from dsv4.ops.map_arrays import map_arrays
from dsv4.text.generate import generate

ASSIGNMENT = "assignment"

asked: set[str] = set()


class Watched(np.ndarray):
    """An array that notes which of NumPy's functions it is given to, and each assignment to a part of it."""

    def __setitem__(self, index, values):
        asked.add(ASSIGNMENT)
        super().__setitem__(index, values)

    def __array_function__(self, function, types, args, kwargs):
        asked.add(function.__name__)
        inside = map_arrays(list(args), plain), {name: map_arrays(value, plain) for name, value in kwargs.items()}
        return map_arrays(function(*inside[0], **inside[1]), watched)


def plain(array):
    return array.view(np.ndarray)


def watched(array):
    return array.view(Watched)


class Unwatched:
    """A sequence of experts whose weights are plain arrays."""

    def __init__(self, experts):
        self.experts = experts

    def __len__(self):
        return len(self.experts)

    def __getitem__(self, number):
        return map_arrays(self.experts[number], plain)


class WatchedOps(Ops):
    """NumPy's operations, on arrays that are watched outside of them."""

    asarray = staticmethod(lambda array: watched(np.asarray(array)))
    to_numpy = staticmethod(lambda array: plain(np.asarray(array)))
    zeros = staticmethod(lambda shape, dtype=np.float32: watched(np.zeros(shape, dtype)))
    write = staticmethod(lambda rows, index, values: watched(Ops.write(plain(rows).copy(), index, plain(values))))


def operation(name):
    def call(*arguments):
        given = [
            Unwatched(one) if name in ("experts", "mx_experts") and place == 2 else map_arrays(one, plain)
            for place, one in enumerate(arguments)
        ]
        result = getattr(Ops, name)(*given)
        return map_arrays(result, watched)

    return staticmethod(call)


for _name in (*OPERATIONS, *OPERATIONS_41):
    setattr(WatchedOps, _name, operation(_name))


@pytest.mark.parametrize("speculative", [False, True])
def test_generation_calls_these_functions_of_numpy_and_no_other(speculative):
    """Greedy and drawn, for prompts of different lengths, in chunks."""
    model = tiny.model(WatchedOps(), tiny.checkpoint(seed=5))
    prompts = [tiny.tokens(seed, length).tolist() for seed, length in ((1, 4), (2, 130))]
    asked.clear()
    tokens = list(generate(model, prompts, 12, [0, 1], 0.9, 3, [], speculative, prefill_chunk=50))
    assert len(tokens) == 24
    assert asked <= {*ARRAY_FUNCTIONS, *SAMPLING_FUNCTIONS, ASSIGNMENT}
    assert asked >= set(SAMPLING_FUNCTIONS)


@pytest.mark.parametrize("packed", [False, True])
def test_the_model_calls_these_functions_of_numpy_and_no_other(packed):
    """On all of its ways: a prompt, padding, decoding, drafts, a way back, a fork, and sequences that come and go."""
    ops = WatchedOps()
    model = tiny.model(ops, tiny.quantised(tiny.checkpoint(**tiny.WIDE)), fake_quant=True)
    asked.clear()
    cache = model.new_cache(2, max_rollback=4, packed=packed)
    ids = tiny.tokens(1, 2, 270)
    states = model.states(ids[:, :200], cache)
    model.mtp_logits(states, ids[:, 1:201], cache)
    for t in range(200, 264):
        model(ids[:, t : t + 1], cache)
    cache.fork().rollback(3)
    model(ids[:, :3], cache.join([cache.select([1]), cache.select([0])]), np.array([[True, True, False], [True] * 3]))
    model(ids[:, :130])
    assert asked == set(ARRAY_FUNCTIONS)


def test_a_model_of_v41_calls_no_other():
    """With an Engram, shared entries, a pool and a drafter: a prompt, padding, decoding, drafts, a way back."""
    wide = {"hidden_size": 64, "head_dim": 48, "moe_intermediate_size": 32, "index_head_dim": 32}
    model = tiny41.model(WatchedOps(), tiny41.quantised(tiny41.checkpoint(**wide)), fake_quant=True)
    asked.clear()
    cache = model.new_cache(2, max_rollback=4)
    ids = tiny.tokens(1, 2, 40)
    model(ids[:, :31], cache)
    for t in range(31, 36):
        model(ids[:, t : t + 1], cache)
    model.dspark.draft(
        model.draft_block(ids[:, 36], cache), model.ops.asarray(ids[:, 36]), lambda logits: logits.argmax(-1)
    )
    cache.rollback(3)
    model(ids[:, :3], cache, np.array([[True, True, False], [True] * 3]))
    assert asked <= {*ARRAY_FUNCTIONS, "stack"}
