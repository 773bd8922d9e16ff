"""transformers as a contestant: a whole model from float32 files, and its cache."""

import copy
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from dsv4.errors import BackendError
from dsv4.ops.types import Ints


class Transformers:
    """transformers on the CPU."""

    def __init__(self, transformers: Any, torch: Any) -> None:
        self.transformers, self.torch = transformers, torch
        self.version = str(transformers.__version__)

    def load(self, directory: Path) -> "TransformersModel":
        """The model of a float32 checkpoint."""
        self.transformers.utils.logging.set_verbosity_error()
        self.transformers.utils.logging.disable_progress_bar()
        model = self.transformers.DeepseekV4ForCausalLM.from_pretrained(directory, dtype=self.torch.float32)
        return TransformersModel(self, model.eval())


class TransformersModel:
    """A model with the calls that are timed."""

    def __init__(self, library: Transformers, model: Any) -> None:
        self.library, self.model = library, model

    def prefill(self, ids: Ints, cache: Any = None) -> Any:
        """The logits behind the last of the tokens ids [1, S], which are added to the cache, a new one by default."""
        if cache is None:
            cache = self.new_cache()
        with self.library.torch.inference_mode():
            tokens = self.library.torch.from_numpy(ids)
            return self.model(tokens, *self._behind(cache), use_cache=True, logits_to_keep=1).logits

    def decode(self, logits: Any, cache: Any) -> Any:
        """The logits behind the likeliest token of the last logits."""
        with self.library.torch.inference_mode():
            return self.model(logits[:, -1:].argmax(-1), *self._behind(cache), use_cache=True).logits

    def gradients(self, ids: Ints) -> Any:
        """The mean cross-entropy of the next token of ids [B, S], differentiated by every parameter."""
        torch = self.library.torch
        self.model.zero_grad(set_to_none=True)
        tokens = torch.from_numpy(ids)
        logits = self.model(tokens, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        return loss

    def new_cache(self) -> Any:
        """An empty cache for one sequence."""
        return self.library.transformers.DynamicCache(config=self.model.config)

    def fork(self, cache: Any) -> Any:
        """An independent copy of a cache."""
        return copy.deepcopy(cache)

    def _behind(self, cache: Any) -> tuple[None, None, Any]:
        """No mask, no positions, and the cache: by place, since its name differs between versions."""
        return None, None, cache


def open_peer() -> Transformers:
    """transformers, or BackendError where it cannot be imported or does not know DeepSeek-V4."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is to be looked up
    try:
        transformers = import_module("transformers")
        if not hasattr(transformers, "DeepseekV4ForCausalLM"):
            raise ImportError(f"version {transformers.__version__} does not know DeepSeek-V4, expected 5.23 or later")
        return Transformers(transformers, import_module("torch"))
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendError(f"transformers: not compared, {error}") from error
