"""Checkpoints of random weights, in the released formats and of any size: test cases of real shapes.

The numbers are such that all of a model matters: no norm is one, no sink, bias or gating factor is zero, products
neither fade nor grow, and routers, indexers and logits have something to choose from.
"""

import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import NormalDist

import ml_dtypes
import numpy as np
import numpy.typing as npt

from dsv4.arguments import integer
from dsv4.checkpoint.writing import parameters_of, write_checkpoint
from dsv4.config import Config
from dsv4.config41 import Config41
from dsv4.errors import CheckpointError
from dsv4.ops.formats import fp4_encode, fp4_pack, fp4_unpack, fp8_decode, fp8_encode
from dsv4.ops.quantise import Fp4Weight, Fp8Weight, Weight
from dsv4.ops.types import Bytes
from dsv4.parameters import Parameter

SHARD_BYTES = 10**9
"""The largest size of a file, which is also about what is held in memory."""

E8M0_BIAS = 127
LARGEST_FP4, LARGEST_FP8 = 6.0, 448.0

MATRIX_GAIN, HEAD_GAIN = 1.25, 6.0
"""The size of what a product gives for an input of size 1. The head's is that of the logits."""

ROWS_AT_ONCE = 2**24
"""About so many numbers are drawn at once, so that a large table needs little memory beside itself."""


def write_random(
    directory: str | Path,
    config: Config | Config41,
    seed: int = 0,
    max_shard_bytes: int = SHARD_BYTES,
    extra_files: Iterable[str | Path] = (),
    progress: Callable[[int, int, str], None] | None = None,
) -> None:
    """Write a checkpoint of random weights, the same for the same seed, holding one file's tensors at a time.

    config: quantised ones are stored as released checkpoints are, others in float32. directory, extra_files and
    max_shard_bytes: as `write_checkpoint` takes them; progress: called as progress(done, parameters, name). Raises
    CheckpointError where the disk has no room for it, before anything is written, and as `write_checkpoint` does.
    """
    require_room(directory, config)
    total = len(parameters_of(config))

    def reported() -> Iterator[tuple[str, Weight]]:
        for done, (name, weight) in enumerate(random_weights(config, seed), start=1):
            yield name, weight
            if progress is not None:
                progress(done, total, name)

    write_checkpoint(directory, config, reported(), max_shard_bytes, extra_files)


def require_room(directory: str | Path, config: Config | Config41) -> None:
    """Raises CheckpointError where the disk has no room for a checkpoint of this configuration."""
    table = parameters_of(config).values()
    needed = sum(one.nbytes if config.quantised or one.format == "i64" else 4 * one.size for one in table)
    place = next(parent for parent in Path(directory).absolute().parents if parent.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        found = f"found {free / 1e9:.1f} GB"
        raise CheckpointError(f"{directory}: expected {needed / 1e9:.1f} GB of room in {place}, {found}")


def random_weights(config: Config | Config41, seed: int = 0) -> Iterator[tuple[str, Weight]]:
    """Every parameter by official name, as `write_checkpoint` takes it: float32, or in the released formats."""
    generator = np.random.default_rng(seed)
    for name, parameter in parameters_of(config).items():
        if parameter.format == "i64":
            yield name, _table(parameter, config.n_routed_experts, generator)
        elif config.quantised and parameter.format == "fp4":
            codes, scales = _coded(parameter, _fp4_pairs(), fp4_unpack(_fp4_pairs()), generator)
            yield name, Fp4Weight(codes, scales)
        elif config.quantised and parameter.format == "fp8":
            codes, scales = _coded(parameter, _fp8_codes(), fp8_decode(_fp8_codes()), generator)
            yield name, Fp8Weight(codes, scales, parameter.block)
        else:
            narrow = config.quantised and parameter.format == "bf16"
            yield name, _dense(parameter, ml_dtypes.bfloat16 if narrow else np.float32, generator)


def smaller(config: Config, layers: int | None = None, experts: int | None = None) -> Config:
    """The configuration with fewer layers, the first ones, or fewer routed experts; None: as many as it has.

    A DSpark drafter reads the last layers that there are. Raises SettingError for more than there are or less than one,
    ConfigError for fewer experts than a token needs.
    """
    if experts is not None:
        config = replace(config, n_routed_experts=integer("experts", experts, least=1, most=config.n_routed_experts))
    if layers is None:
        return config
    layers = integer("layers", layers, least=1, most=config.num_hidden_layers)
    dspark = config.dspark
    if dspark is not None and layers < config.num_hidden_layers:
        dspark = replace(dspark, target_layer_ids=tuple(range(layers))[-len(dspark.target_layer_ids) :])
    return replace(
        config,
        num_hidden_layers=layers,
        num_hash_layers=min(config.num_hash_layers, layers),
        compress_ratios=config.compress_ratios[:layers] + config.compress_ratios[config.num_hidden_layers :],
        dspark=dspark,
    )


def _table(parameter: Parameter, experts: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Distinct experts for each token of a hash layer."""
    tokens, chosen = parameter.shape
    rows = max(1, ROWS_AT_ONCE // experts)
    parts = (generator.random((min(rows, tokens - start), experts), np.float32) for start in range(0, tokens, rows))
    return np.concatenate([np.argsort(part, axis=1)[:, :chosen] for part in parts])


def _dense(parameter: Parameter, dtype: npt.DTypeLike, generator: np.random.Generator) -> Weight:
    """Normal numbers; for norms and gating factors such around one."""
    name, shape = parameter.name, parameter.shape
    if name.endswith(("norm.weight", "_scale", "q_weight", "k_weight")):
        return generator.uniform(0.5, 1.5, shape).astype(dtype)
    numbers, size = np.empty(shape, dtype), np.float32(_size(parameter))
    rows = max(1, ROWS_AT_ONCE // math.prod(shape[1:]))
    for start in range(0, len(numbers), rows):
        part = numbers[start : start + rows]
        part[...] = generator.standard_normal(part.shape, np.float32) * size
    return numbers


def _size(parameter: Parameter) -> float:
    """The standard deviation of a parameter's numbers."""
    name, width = parameter.name, parameter.shape[-1]
    if name.endswith("gate.bias"):
        return 0.1
    if len(parameter.shape) == 1 or name.endswith((".ape", "embed.weight", "markov_w1.weight")):
        return 1.0
    return (HEAD_GAIN if name == "head.weight" else MATRIX_GAIN) / math.sqrt(width)


def _coded(
    parameter: Parameter, codes: Bytes, numbers: npt.NDArray[np.floating], generator: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Packed numbers and their scales. codes [256]: bytes to draw from; numbers: all that they stand for."""
    assert parameter.scale_shape is not None
    rows, width = parameter.shape
    count = rows * width // (2 if parameter.format == "fp4" else 1)
    drawn = generator.integers(0, 2**64 - 1, -(-count // 8), np.uint64, endpoint=True).view(np.uint8)[:count]
    wanted = math.log2(_size(parameter) / numbers.std())
    low = math.floor(wanted)
    upper = (4 ** (wanted - low) - 1) / 3  # this share of scales twice as large, and the mean square is as wanted
    scales = E8M0_BIAS + low + (generator.random(parameter.scale_shape) < upper)
    return codes[drawn].reshape(rows, -1), scales.astype(np.uint8)


@cache
def _fp4_pairs() -> Bytes:
    """[256] bytes of two FP4 codes each, all pairs of 16 that lie as normal numbers do."""
    codes = fp4_encode(_quantiles(16) * np.float32(LARGEST_FP4 / _quantiles(16)[-1]))
    return fp4_pack(np.stack(np.broadcast_arrays(codes[None, :], codes[:, None]), axis=-1)).reshape(-1)


@cache
def _fp8_codes() -> Bytes:
    """[256] FP8 codes that lie as normal numbers do."""
    return fp8_encode(_quantiles(256) * np.float32(LARGEST_FP8 / _quantiles(256)[-1]))


@cache
def _quantiles(count: int) -> npt.NDArray[np.float32]:
    """Numbers of equal probability under the normal distribution, rising."""
    normal = NormalDist()
    return np.array([normal.inv_cdf((one + 0.5) / count) for one in range(count)], np.float32)
