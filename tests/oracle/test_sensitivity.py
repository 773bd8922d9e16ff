"""The comparison can fail: every kind of tensor, changed a little, and every mistake below is noticed."""

import re

import numpy as np
import pytest

from dsv4.checkpoint import write_checkpoint
from dsv4.ops import Ops
from dsv4.ops.moe import Routing, expert_scores
from dsv4.parameters import parameters
from oracle import ours
from oracle.cases import Case, random_config, random_tensors
from oracle.comparison import BOUND, LONGEST, SHORTEST, assert_close

pytestmark = pytest.mark.oracle

NOTICED = 10 * BOUND


def config_of_all_kinds():
    return random_config(np.random.default_rng(31), Case("SCHC", 1, 4, "sqrtsoftplus", True, 0))


def kinds_of_tensors() -> dict[str, str]:
    """The name of one tensor of each kind, the last one, by its name without numbers; of experts all three matrices."""
    names = parameters(config_of_all_kinds(), include_mtp=False)
    return {re.sub(r"\.\d+\.", ".N.", re.sub(r"\.\d+\.", ".N.", name)): name for name in names}


class CombNotTransposed(Ops):
    def mhc_mix(self, streams, output, post, comb):
        return Ops.mhc_mix(streams, output, post, comb.swapaxes(-1, -2))


class NoSink(Ops):
    def sparse_attention(self, q, window, window_index, entries, entry_index, sink):
        return Ops.sparse_attention(q, window, window_index, entries, entry_index, np.full_like(sink, -1e30))


class NoInverseRope(Ops):
    def rope(self, x, positions, frequencies):
        return x if positions.min() < 0 else Ops.rope(x, positions, frequencies)


class ReluAfterWeighting(Ops):
    def index_top_k(self, queries, keys, weights, visible, k):
        return Ops.top_k(np.maximum(np.einsum("bshd,btd,bsh->bst", queries, keys, weights), 0), visible, k)


class BiasInRoutingWeights(Ops):
    def route(self, logits, bias, k, score_function, scale):
        chosen = Ops.route(logits, bias, k, score_function, scale).indices
        weights = np.take_along_axis(expert_scores(logits, score_function) + bias, chosen, axis=-1)
        return Routing(weights / weights.sum(axis=-1, keepdims=True) * np.float32(scale), chosen)


class SharedExpertNotClamped(Ops):
    def expert(self, x, weight, matrices, limit, round_inputs):
        return Ops.expert(x, weight, matrices, 1e9, round_inputs)


MISTAKES = [
    CombNotTransposed, NoSink, NoInverseRope, ReluAfterWeighting, BiasInRoutingWeights, SharedExpertNotClamped,
]  # fmt: skip


@pytest.fixture(scope="module")
def reference(theirs, tmp_path_factory):
    """Config, tensors, their directory, prompts, and the logits of transformers."""
    directory = tmp_path_factory.mktemp("right")
    config, generator = config_of_all_kinds(), np.random.default_rng(32)
    tensors = random_tensors(config, generator)
    write_checkpoint(directory, config, tensors.items())
    ids = ours.prompts(directory, SHORTEST, LONGEST, generator)
    expected = theirs.logits(theirs.open_directory(directory), ids)
    assert_close(ours.open_directory(directory)(ids), expected)
    return config, tensors, directory, ids, expected


@pytest.mark.parametrize("kind", kinds_of_tensors())
def test_a_changed_tensor_is_noticed(reference, tmp_path, kind) -> None:
    """2 % of noise on one tensor here, or another row of the table, and the logits are no longer those of there."""
    config, tensors, _, ids, expected = reference
    name = kinds_of_tensors()[kind]
    noise = np.random.default_rng(33).standard_normal(tensors[name].shape)
    table = tensors[name].dtype.kind == "i"
    changed = np.roll(tensors[name], 1, axis=0) if table else tensors[name] * (1 + 0.02 * noise).astype(np.float32)
    write_checkpoint(tmp_path, config, (tensors | {name: changed}).items())
    assert np.abs(ours.open_directory(tmp_path)(ids) - expected).max() > NOTICED


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_is_noticed(reference, mistake) -> None:
    _, _, directory, ids, expected = reference
    assert np.abs(ours.open_directory(directory, mistake())(ids) - expected).max() > NOTICED
