"""Every operation at shapes at which kernels take all of their ways, compared with NumPy's in float64."""

import numpy as np
import pytest

from accel.calls import LARGE, arguments, operation, overridden, run
from dsv4.ops import Ops
from dsv4.ops.candidates import candidate_blocks, top_k_among
from dsv4.ops.indexer import top_k
from verdicts import as_good, exact, in_dtype

pytest.importorskip("numba")
from dsv4_accel.numba import NumbaOps

OURS = [name for name in LARGE if operation(name) in overridden()]
EXACT = ("fake_quant_fp8", "fake_quant_fp4", "fake_quant_nvfp4", "top_k")
OF_SCORES = {"index_top_k": top_k, "index_candidates": candidate_blocks, "index_top_k_among": top_k_among}
EXPERTS = ("experts", "expert", "mx_experts", "mx_expert")
ROUNDS = [name for name in OURS if operation(name) in EXPERTS and arguments(name, 1, 1)[-1]]
"""Here a hidden number may be tipped over a boundary between two codes."""


@pytest.mark.parametrize("batch", [1, 2, 7, 70])
@pytest.mark.parametrize("name", [name for name in OURS if name not in ROUNDS])
def test_as_good_as_numpy(name, batch):
    given = arguments(name, batch, 3)
    found, baseline = run(NumbaOps, name, given), run(Ops, name, given)
    if operation(name) in EXACT:
        for one, expected in zip(found, baseline, strict=True):
            exact(one, expected)
        return
    if choose := OF_SCORES.get(operation(name)):  # by scores whose last bits may be others than NumPy's
        queries, keys, weights, *rest = given
        exact(found[0], choose(NumbaOps.index_scores(queries, keys, weights), *rest))
        return
    truth = run(Ops, name, in_dtype(given, np.float64))
    if "that rounds" in name:  # in float64, too, x is rounded from float32
        truth = run(Ops, "linear", [Ops.fake_quant_fp8(given[0], 128).astype(np.float64), given[1]])
    for one, wide, numpys in zip(found, truth, baseline, strict=True):
        if numpys.dtype == np.int64:  # which experts were chosen
            exact(one, numpys)
            continue
        assert one.dtype == np.float32
        as_good(one, wide, numpys)


@pytest.mark.parametrize("batch", [1, 2, 7, 70])
@pytest.mark.parametrize("name", ROUNDS)
def test_experts_that_round_agree_but_for_a_few_numbers(name, batch):
    """Such a number changes its own token's result by less than a thousandth, and most tokens have none."""
    given = arguments(name, batch, 3)
    [found], [expected] = run(NumbaOps, name, given), run(Ops, name, given)
    spread = expected.std()
    rows = np.abs(found - expected).max(axis=-1) / spread  # [T]
    assert rows.max() < 5e-2
    assert np.mean(rows > 1e-5) <= 0.2
