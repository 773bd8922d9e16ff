"""The side of transformers: models made, saved, opened and run there, everything else in NumPy.

Imported by the fixture `theirs` alone, since this is the one module that needs torch.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here is to be looked up

from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import DeepseekV4Config, DeepseekV4ForCausalLM, DynamicCache, FineGrainedFP8Config, GenerationConfig
from transformers.activations import ACT2FN
from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4RotaryEmbedding

from dsv4.checkpoint.names import official_name
from dsv4.config import Config
from oracle.cases import random_values

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)  # the matrices are small

LAYER_TYPES = {0: "sliding_attention", 4: "compressed_sparse_attention", 128: "heavily_compressed_attention"}
SHARED_FIELDS = sorted({one.name for one in fields(DeepseekV4Config)} & {one.name for one in fields(Config)})
"""What both spellings of a configuration call the same."""

SCORING_FUNCTIONS = frozenset(ACT2FN) & {"sqrtsoftplus", "sigmoid", "softmax"}
"""The router's score functions that this version can compute."""


def config_of(config: Config) -> DeepseekV4Config:
    """The same model in transformers' own spelling, not read from an official config.json."""
    layers, hashed = config.num_hidden_layers, config.num_hash_layers
    yarn = config.rope_scaling
    return DeepseekV4Config(
        **{name: getattr(config, name) for name in SHARED_FIELDS},
        layer_types=[LAYER_TYPES[ratio] for ratio in config.compress_ratios[:layers]],
        mlp_layer_types=["hash_moe"] * hashed + ["moe"] * (layers - hashed),
        partial_rotary_factor=config.qk_rope_head_dim / config.head_dim,
        rope_parameters=None if yarn is None else {"rope_type": "yarn"} | vars(yarn),
    )


def read_config(directory: Path) -> DeepseekV4Config:
    """The config.json of a directory as transformers reads it."""
    return DeepseekV4Config.from_pretrained(directory)


def random_model(config: Config, generator: np.random.Generator) -> DeepseekV4ForCausalLM:
    """A model made by transformers, with values drawn for each of its own tensors."""
    model = DeepseekV4ForCausalLM(config_of(config)).eval()
    for name, tensor in model.state_dict().items():
        values = random_values(name, tuple(tensor.shape), config.n_routed_experts, generator)
        tensor.copy_(torch.from_numpy(values))
    return model


def save(model: DeepseekV4ForCausalLM, directory: Path, **settings: Any) -> None:
    """Their files of a model: config.json and model.safetensors, or what the settings make of it."""
    model.save_pretrained(directory, **settings)


def open_directory(directory: Path, **settings: Any) -> DeepseekV4ForCausalLM:
    """A model from files, computing in float32. Fails where a tensor is missing, left over or does not fit."""
    model, report = DeepseekV4ForCausalLM.from_pretrained(
        directory, dtype=torch.float32, output_loading_info=True, **settings
    )
    problems = {kind: found for kind, found in report.items() if found}
    assert not problems, f"transformers reports {problems}"
    return model.float().eval()


def dequantising() -> FineGrainedFP8Config:
    """The setting with which FP4 and FP8 files become floats; bfloat16 at first, which is exact for both."""
    return FineGrainedFP8Config(dequantize=True)


def logits(model: DeepseekV4ForCausalLM, ids: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """[B, S] -> [B, S, vocab], in one pass without a cache; mask [B, S]: false at padding."""
    attention_mask = None if mask is None else torch.from_numpy(mask.astype(np.int64))
    with torch.no_grad():
        return model(torch.from_numpy(ids), attention_mask=attention_mask, use_cache=False).logits.numpy()


def gradients(model: DeepseekV4ForCausalLM, ids: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
    """The mean cross-entropy of the next token in one pass, and its gradient by each parameter, by official name.

    Zeros for what torch has no gradient of; of fused experts, each matrix by itself.
    """
    model.zero_grad()
    found = model(torch.from_numpy(ids), use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(found[:, :-1].flatten(0, 1), torch.from_numpy(ids)[:, 1:].flatten())
    loss.backward()
    result: dict[str, np.ndarray] = {}
    for name, parameter in model.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        official, _, matrix = official_name(name).rpartition(".experts.")
        if not official:
            result[matrix] = gradient.numpy()
            continue
        parts = gradient.chunk(2, dim=1) if matrix == "gate_up_proj" else [gradient]
        for part, which in zip(parts, ["w1", "w3"] if len(parts) == 2 else ["w2"], strict=True):
            result |= {f"{official}.experts.{n}.{which}.weight": one.numpy() for n, one in enumerate(part)}
    return float(loss.detach()), result


def cached_logits(model: DeepseekV4ForCausalLM, ids: np.ndarray, sizes: list[int]) -> np.ndarray:
    """[B, S] -> [B, S, vocab], in chunks of these sizes through their cache."""
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        chunks = torch.from_numpy(ids).split(sizes, dim=1)
        # The cache by place: its name differs between versions.
        parts = [model(chunk, None, None, cache, use_cache=True).logits for chunk in chunks]
    return torch.cat(parts, dim=1).numpy()


def greedy(model: DeepseekV4ForCausalLM, ids: np.ndarray, count: int) -> np.ndarray:
    """[B, S] -> [B, count]: the tokens that `generate` adds, whatever they are."""
    model.generation_config = GenerationConfig(do_sample=False, max_new_tokens=count)
    prompt = torch.from_numpy(ids)
    with torch.no_grad():
        found = model.generate(prompt, attention_mask=torch.ones_like(prompt))
    return found[:, ids.shape[1] :].numpy()


def trace(model: DeepseekV4ForCausalLM, ids: np.ndarray) -> dict[str, np.ndarray]:
    """The results inside one pass under the names that dsv4's observer gives them, and "logits".

    What the shared experts' two matrices give before the clamp is there as layers.N.ffn.shared_experts.{w1,w3}.
    """
    seen: dict[str, np.ndarray] = {}
    with _watching(model, seen):
        seen["logits"] = logits(model, ids)
    return seen


@contextmanager
def _watching(model: DeepseekV4ForCausalLM, seen: dict[str, np.ndarray]):
    handles = []

    def watch(name: str, module: torch.nn.Module, part: int | None = None) -> None:
        def keep(_module: Any, _inputs: Any, output: Any) -> None:
            seen[name] = (output if part is None else output[part]).numpy()

        handles.append(module.register_forward_hook(keep))

    for number, layer in enumerate(model.model.layers):
        name = f"layers.{number}."
        watch(f"{name}out", layer)
        watch(f"{name}attn.out", layer.self_attn, 0)
        watch(f"{name}ffn.out", layer.mlp)
        watch(f"{name}ffn.gate.weights", layer.mlp.gate, 1)
        watch(f"{name}ffn.gate.indices", layer.mlp.gate, 2)
        watch(f"{name}ffn.shared_experts.w1", layer.mlp.shared_experts.gate_proj)
        watch(f"{name}ffn.shared_experts.w3", layer.mlp.shared_experts.up_proj)
        compressor = layer.self_attn.compressor
        if compressor is not None:
            watch(f"{name}attn.compressor.out", compressor, 0)
        if hasattr(compressor, "indexer"):
            watch(f"{name}attn.indexer.topk", compressor.indexer)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def frequencies(config: DeepseekV4Config) -> dict[str, np.ndarray]:
    """The rotary frequencies of layers without ("main") and with ("compress") compression, [r/2] each."""
    rotary = DeepseekV4RotaryEmbedding(config)
    assert rotary.main_attention_scaling == rotary.compress_attention_scaling == 1
    return {kind: getattr(rotary, f"{kind}_inv_freq").numpy() for kind in ("main", "compress")}
