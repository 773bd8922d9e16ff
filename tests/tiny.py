"""Tiny random models that use every part of the real ones: each kind of layer, hash routing, an MTP layer, n streams.

Their sizes make every mechanism act on a few hundred tokens: a window of a few tokens, an indexer that must choose,
clamps that clip, a Sinkhorn iteration that has not converged, and epsilons large enough to be seen.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dsv4.config import Config, DSpark, Yarn
from dsv4.model.model import Model
from dsv4.ops.quantise import quantise_fp4, quantise_fp8
from dsv4.parameters import Parameter, parameters
from tiny_checkpoint import arrays

CONFIG = Config(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=4,
    num_hash_layers=1,
    num_nextn_predict_layers=1,
    num_attention_heads=4,
    head_dim=12,
    qk_rope_head_dim=8,
    q_lora_rank=10,
    o_lora_rank=6,
    o_groups=2,
    sliding_window=8,
    compress_ratios=(0, 4, 128, 4, 0),
    index_n_heads=2,
    index_head_dim=8,
    index_topk=3,
    rope_theta=50.0,
    compress_rope_theta=160.0,
    rope_scaling=Yarn(factor=4.0, original_max_position_embeddings=64, beta_fast=8.0, beta_slow=1.0),
    max_position_embeddings=600,
    n_routed_experts=6,
    n_shared_experts=1,
    num_experts_per_tok=2,
    moe_intermediate_size=12,
    scoring_func="sqrtsoftplus",
    norm_topk_prob=True,
    topk_method="noaux_tc",
    routed_scaling_factor=1.5,
    swiglu_limit=0.8,
    hc_mult=4,
    hc_sinkhorn_iters=3,
    hc_eps=1e-3,
    rms_norm_eps=1e-4,
    bos_token_id=0,
    eos_token_id=1,
    tie_word_embeddings=False,
    torch_dtype="float32",
    quantised=False,
    source="tiny",
)

WIDE = {"hidden_size": 160, "head_dim": 80, "moe_intermediate_size": 32, "index_head_dim": 64, "num_attention_heads": 2}
"""Sizes at which every block of the number formats is met whole and in part, and FP4 has its 32 columns."""

DSPARK = {
    "compress_ratios": (0, 4, 128, 4, 0, 0, 0),
    "num_hidden_layers": 4,
    "dspark": DSpark(block_size=5, noise_token_id=39, target_layer_ids=(1, 3), markov_rank=6),
}
"""The changes that put a DSpark drafter of three stages in the place of the MTP layer."""


@dataclass
class TinyCheckpoint:
    """A checkpoint in memory, with what the model asks of one on disk."""

    config: Config
    weights: dict
    directory: Path = Path("tiny")

    @property
    def has_mtp(self) -> bool:
        return self.config.draft_layers > 0

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for weight in self.weights.values() for part in arrays(weight))

    def weight(self, name: str):
        return self.weights[name]

    def check_values(self, name: str) -> None:
        assert name in self.weights

    def changed(self, **patterns) -> "TinyCheckpoint":
        """Another checkpoint: each weight whose name ends so is put through the function given for that ending.

        Dots are written as double underscores: wo_b__weight=np.zeros_like.
        """
        weights = dict(self.weights)
        for ending, function in patterns.items():
            names = [name for name in weights if name.endswith(ending.replace("__", "."))]
            assert names, ending
            weights |= {name: function(weights[name]) for name in names}
        return replace(self, weights=weights)


def config(**changes) -> Config:
    """The tiny configuration with some fields changed; compress_ratios (MTP layer last) gives the number of layers."""
    ratios = changes.get("compress_ratios", CONFIG.compress_ratios)
    mtp = changes.get("num_nextn_predict_layers", CONFIG.num_nextn_predict_layers)
    layers = len(ratios) - mtp
    counts = {"num_hidden_layers": layers, "num_hash_layers": min(CONFIG.num_hash_layers, layers)}
    return replace(CONFIG, **(counts | changes))


def checkpoint(seed: int = 0, **changes) -> TinyCheckpoint:
    """A random float32 checkpoint of the tiny configuration with some fields changed."""
    return checkpoint_of(config(**changes), seed)


def checkpoint_of(chosen: Config, seed: int = 0) -> TinyCheckpoint:
    """A random float32 checkpoint of this configuration."""
    generator = np.random.default_rng(seed)
    weights = {name: _random(generator, parameter, chosen) for name, parameter in parameters(chosen).items()}
    return TinyCheckpoint(chosen, weights)


def quantised(source: TinyCheckpoint, keep_dense: str = "-") -> TinyCheckpoint:
    """The checkpoint in released storage: FP4 experts, FP8 linear maps; names that contain `keep_dense` stay dense."""
    table = parameters(source.config)
    convert = {"fp8": quantise_fp8, "fp4": quantise_fp4}
    weights = {
        name: convert[table[name].format](weight)
        if table[name].format in convert and keep_dense not in name
        else weight
        for name, weight in source.weights.items()
    }
    return TinyCheckpoint(replace(source.config, quantised=True), weights)


def model(ops, source: TinyCheckpoint | None = None, fake_quant: bool = False, dtype=None, **changes) -> Model:
    """A tiny model on a backend; by default of a random checkpoint with these changes.

    Unless said, the reference computes in float64 and others in float32: they leave float64 to the reference.
    """
    dtype = dtype or (np.float64 if ops.name == "numpy" else np.float32)
    return Model(source or checkpoint(**changes), ops, fake_quant, dtype)


def tokens(seed: int, *shape: int, vocab: int = CONFIG.vocab_size) -> np.ndarray:
    """Random token ids."""
    return np.random.default_rng(seed).integers(0, vocab, shape)


def close(found, expected, tolerance: float | None = None) -> None:
    """No number is further away than the tolerance, relative to the largest expected one or to 1.

    Unless said, the tolerance is that of the found numbers' dtype: sums in another order pass, no mistake does.
    """
    found, expected = np.asarray(found), np.asarray(expected)
    tolerance = tolerance or {np.float32: 2e-5, np.float64: 1e-9}[found.dtype.type]
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    worst = np.abs(found - expected).max(initial=0)
    assert worst <= tolerance * max(1, np.abs(expected).max(initial=0)), f"off by {worst:.3g}"


def _random(generator: np.random.Generator, parameter: Parameter, config: Config) -> np.ndarray:
    """Numbers at a scale at which the parameter matters."""
    name, shape = parameter.name, parameter.shape
    if parameter.format == "i64":
        return np.argsort(generator.random((shape[0], config.n_routed_experts)), axis=1)[:, : shape[1]]
    numbers = generator.standard_normal(shape)
    if "norm" in name:
        numbers = 1 + 0.3 * numbers
    elif name.endswith(("_scale", "gate.bias")):
        numbers = 0.5 + 0.5 * numbers
    elif len(shape) == 2 and not name.endswith(("ape", "embed.weight")):
        numbers = 1.5 * numbers / np.sqrt(shape[1])
    return numbers.astype(np.float32)
