"""The gradient of every parameter: the tape against torch's autograd through transformers, in float32."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.checkpoint import write_checkpoint
from dsv4.config import Config
from dsv4.learn import gradients
from oracle import ours
from oracle.cases import CASES, case_config, random_case, random_config, random_tensors
from oracle.comparison import LONGEST, SHORTEST

pytestmark = pytest.mark.oracle

BOUND = 1e-4
"""The error of a parameter's gradient relative to its length. Sums in another order give 2e-5 at most."""

WIDE_CLAMP = 10.0
"""The limit of SwiGLU in the released models, which nothing reaches here. A narrow one cuts some number that lies a
rounding error beside it on one side alone, in some models: the named ones have narrow limits and no such number."""

FLOOR = 1e-5
"""A gradient below this share of the longest one counts as that long: a single token's, say, in the tail of SiLU."""

CANCELLING_FLOOR = 1e-2
"""The same for parameters whose gradient is a sum of much larger numbers that cancel."""


def cancelling(config: Config) -> tuple[str, ...]:
    """Endings of the names of these parameters.

    A gating factor is one number for all tokens and streams. A single expert weighs 1 whatever its score, and a single
    stream is normalised after it was scaled: there, gradients may be nothing but rounding errors.
    """
    gate = (".gate.weight",) if config.num_experts_per_tok == 1 else ()
    return ("_scale", *gate, *(("_fn", "_base") if config.hc_mult == 1 else ()))


def assert_same_gradients(theirs, directory: Path, config: Config, ids: np.ndarray) -> None:
    """Both sides open the directory and agree on loss and gradients."""
    expected_loss, expected = theirs.gradients(theirs.open_directory(directory), ids)
    loss, found = gradients(ours.open_directory(directory), ids)
    assert abs(loss - expected_loss) < 1e-5 * expected_loss
    assert {name for name in found if not name.startswith("mtp.")} == expected.keys()
    longest = max(float(np.linalg.norm(gradient)) for gradient in expected.values())
    for name, gradient in expected.items():
        length, error = (float(np.linalg.norm(one)) for one in (gradient, found[name] - gradient))
        floor = CANCELLING_FLOOR if name.endswith(cancelling(config)) else FLOOR
        bound = BOUND * max(length, floor * longest)
        assert error <= bound, f"{name}: {error:.2e} of {length:.2e}, the longest {longest:.2e}"


@pytest.mark.parametrize("name", CASES)
def test_named_models(theirs, tmp_path, name) -> None:
    config, generator = case_config(name), np.random.default_rng(41)
    write_checkpoint(tmp_path, config, random_tensors(config, generator).items())
    ids = ours.prompts(tmp_path, SHORTEST, LONGEST, generator)
    assert_same_gradients(theirs, tmp_path, config, ids)


@given(seed=st.integers(0, 2**32 - 1))
def test_any_model(theirs, seed) -> None:
    """Any mix of layers and settings on prompts of any length."""
    generator = np.random.default_rng(seed)
    config = replace(random_config(generator, random_case(generator)), swiglu_limit=WIDE_CLAMP)
    with tempfile.TemporaryDirectory() as directory:
        write_checkpoint(Path(directory, "model"), config, random_tensors(config, generator).items())
        ids = ours.prompts(Path(directory, "model"), 2, LONGEST, generator)
        assert_same_gradients(theirs, Path(directory, "model"), config, ids)
