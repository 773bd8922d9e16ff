"""How the weights of a new model start."""

import numpy as np
import numpy.typing as npt

from dsv4.config import Config
from dsv4.parameters import Parameter, parameters

GAIN = 0.006 * 7168**0.5
"""The standard deviation of a matrix's numbers times the root of its input's width: V3's .006 at V3's width, which
keeps the size of what a product gives, about one half for a normalised input, at any width."""


def initial_values(config: Config, seed: int, hc_scale: float) -> dict[str, npt.NDArray[np.floating | np.int64]]:
    """The first values of every parameter by official name: float64, and int64 for tid2eid.

    Matrices and the embedding are normal with standard deviation GAIN / √(input width), an embedding's width being
    that of a row. Norms are ones. The mHC gating factors (`hc_*_scale`) are hc_scale. Zeros are the compressors'
    position biases, the sinks, the routers' biases and hc_*_base: so each layer reads half of every stream and adds
    its whole output to each, the streams are mixed evenly, and the whole starts as a plain residual network. Each
    token of a hash layer has distinct experts.
    Source: V3 (arXiv 2412.19437) §4.2, std .006; mHC (arXiv 2512.24880) table 5, gating factors .01; the rest is not
    in the report: the usual start.
    """
    generator = np.random.default_rng(seed)
    return {name: _first(parameter, config, hc_scale, generator) for name, parameter in parameters(config).items()}


def _first(
    parameter: Parameter, config: Config, hc_scale: float, generator: np.random.Generator
) -> npt.NDArray[np.floating | np.int64]:
    name, shape = parameter.name, parameter.shape
    if name.endswith("tid2eid"):
        order: npt.NDArray[np.int64] = np.argsort(generator.random((shape[0], config.n_routed_experts)), axis=1)
        return order[:, : shape[1]]
    if name.endswith("norm.weight"):
        return np.ones(shape)
    if name.endswith("_scale"):
        return np.full(shape, hc_scale, np.float64)
    if len(shape) == 1 or name.endswith("ape"):
        return np.zeros(shape)
    matrix: npt.NDArray[np.floating] = generator.standard_normal(shape) * GAIN / shape[-1] ** 0.5
    return matrix
