"""Muon and AdamW against torch's, where the two overlap."""

import numpy as np
import pytest

from dsv4.learn import adamw
from dsv4.learn.adamw import adamw_step
from dsv4.learn.muon import DECAY, MOMENTUM, SETTLING, muon_step
from oracle.conftest import NEEDED

pytestmark = pytest.mark.oracle

STEPS = 12


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason=f"the oracle suite {NEEDED}")


def trained(torch, make, weight, gradients) -> np.ndarray:
    """The weight after torch's steps."""
    parameter = torch.nn.Parameter(torch.tensor(weight))
    optimiser = make([parameter])
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimiser.step()
    return parameter.detach().numpy()


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-12)])
def test_adamw(torch, dtype, tolerance) -> None:
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((7, 5)).astype(dtype)
    scales = 10.0 ** generator.uniform(-9, 3, (7, 5))
    gradients = (generator.standard_normal((STEPS, 7, 5)) * scales).astype(dtype)
    settings = {"lr": 0.01, "betas": (adamw.BETA_1, adamw.BETA_2), "eps": adamw.EPSILON, "weight_decay": adamw.DECAY}
    expected = trained(torch, lambda parameters: torch.optim.AdamW(parameters, **settings), weight, gradients)
    first = second = np.zeros_like(weight)
    for step, gradient in enumerate(gradients, start=1):
        weight, first, second = adamw_step(weight, gradient, first, second, step, 0.01)
    np.testing.assert_allclose(weight, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("shape", [(24, 24), (12, 40), (40, 12)])
def test_muon(torch, shape) -> None:
    """torch has one set of coefficients, bfloat16 inside, and the factor .2. With the settling coefficients, gradients
    that these make orthogonal, and rates at which .2 is as .18 and both decay alike, what is left is its rounding.
    Its momentum has a factor 1 − μ, which the iteration does not see."""
    generator = np.random.default_rng(1)
    left, _, right = np.linalg.svd(generator.standard_normal(shape), full_matrices=False)
    gradients = [
        (left * generator.uniform(1, 1.5, min(shape)) @ right).astype(np.float32) * np.float32(size)
        for size in generator.uniform(0.5, 2, STEPS)
    ]
    rate, as_theirs = 0.5, 0.18 / 0.2
    settings = {"lr": rate * as_theirs, "weight_decay": DECAY / as_theirs, "adjust_lr_fn": "match_rms_adamw"}
    settings |= {"momentum": MOMENTUM, "ns_coefficients": SETTLING, "ns_steps": 14}
    weight = generator.standard_normal(shape).astype(np.float32)
    expected = trained(torch, lambda parameters: torch.optim.Muon(parameters, **settings), weight, gradients)
    momentum = np.zeros_like(weight)
    for gradient in gradients:
        weight, momentum = muon_step(weight, gradient, momentum, rate)
    assert np.abs(weight - expected).max() < 0.004 * np.abs(expected).max()


def test_decay_of_muon(torch) -> None:
    """W(1 − ηλ), as torch's, for a gradient of zeros."""
    weight = np.random.default_rng(2).standard_normal((4, 6)).astype(np.float32)
    zeros = np.zeros_like(weight)
    settings = {"lr": 0.05, "weight_decay": DECAY}
    expected = trained(torch, lambda parameters: torch.optim.Muon(parameters, **settings), weight, [zeros])
    np.testing.assert_allclose(muon_step(weight, zeros, zeros, 0.05).weight, expected, rtol=1e-6)
