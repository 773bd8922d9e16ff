"""A bounded memory beside a device: its experts come in turns there, too, and no table keeps those that went."""

import numpy as np
import pytest

import tiny
from cuda.model_ops import ModelOps
from dsv4.checkpoint import Checkpoint, write_checkpoint
from dsv4.model.model import Model
from dsv4.model.weight_store import WeightStore
from tiny_checkpoint import random_tensors, tiny_config


@pytest.mark.parametrize("kernels", [False, True], ids=["arrays", "kernels"])
def test_the_same_logits_with_the_least_budget(tmp_path, hasty, kernels):
    ops = hasty if kernels else ModelOps()
    config = tiny_config(True, n_routed_experts=8)
    write_checkpoint(tmp_path / "m", config, random_tensors(config).items(), max_shard_bytes=3500)
    checkpoint, ids = Checkpoint.open(tmp_path / "m"), tiny.tokens(0, 1, 14, vocab=24)
    free = Model(checkpoint, ops, fake_quant=True)
    cache = free.new_cache(max_rollback=0, drafts=False)
    expected = free(ids, cache)
    least = 110_597 + cache.allocated
    bounded = Model(checkpoint, ops, fake_quant=True, store=WeightStore(checkpoint, ops, least))
    found = bounded(ids, bounded.new_cache(max_rollback=0, drafts=False))
    np.testing.assert_array_equal(ops.to_numpy(found), ops.to_numpy(expected))
    reading = bounded.store.reading
    assert reading.evictions > 0
    assert reading.reads == len({*bounded.store._held, *bounded.store._scores}), "each once"
