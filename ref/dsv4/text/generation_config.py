"""generation_config.json: the sampling settings that a checkpoint recommends, which a caller may override.

    model = dsv4.load("path/to/checkpoint")
    wanted = dsv4.GenerationConfig.load(model.checkpoint)
    dsv4.generate(model, ids, **wanted.settings)

The file is the one that transformers writes. What dsv4 has no setting for is not applied, and named in `ignored`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dsv4.checkpoint.input_files import read_json
from dsv4.config import Config, token_ids, typed
from dsv4.config41 import Config41
from dsv4.errors import ConfigError, quoted
from dsv4.model.weights import StoredTensors

FILE = "generation_config.json"

APPLIED = ("do_sample", "temperature", "top_p", "eos_token_id")

WITHOUT_EFFECT = {
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty", "length_penalty", "typical_p"), 1),
    **dict.fromkeys(("top_k", "min_p", "epsilon_cutoff", "eta_cutoff", "penalty_alpha", "diversity_penalty"), 0),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length", "min_new_tokens"), 0),
    **dict.fromkeys(("num_beams", "num_beam_groups", "num_return_sequences", "guidance_scale"), 1),
}
"""Settings that change nothing at these values. Any other setting changes nothing where it is null or false."""

NOT_SETTINGS = (
    *("transformers_version", "bos_token_id", "pad_token_id", "decoder_start_token_id", "use_cache"),
    *("cache_implementation", "cache_config", "max_cache_len", "prefill_chunk_size", "low_memory"),
    *("compile_config", "disable_compile", "continuous_batching_config", "is_assistant"),
    *("output_attentions", "output_hidden_states", "output_logits", "output_scores", "return_dict_in_generate"),
)
"""Keys that do not say which tokens come out. Those that begin with an underscore do not, either."""


@dataclass(frozen=True)
class GenerationConfig:
    """How to draw a checkpoint's tokens."""

    temperature: float
    """0 where the file says do_sample false; 1 where it says nothing."""
    top_p: float
    """1 where the file says nothing."""
    stop_ids: tuple[int, ...]
    """The tokens that end a text: the file's eos_token_id, or without one, that of config.json."""
    ignored: tuple[str, ...]
    """The settings in the file that are not applied, such as top_k, in the file's order."""
    source: Path
    """The file, whether or not there is one."""

    @classmethod
    def load(cls, checkpoint: StoredTensors) -> Self:
        """Read the file of a checkpoint; a checkpoint need not have one.

        Raises ConfigError, naming file and key, for a file that is no JSON object and for values out of range.
        """
        source = checkpoint.directory / FILE
        raw = read_json(source, ConfigError) if source.exists() else {}
        if not isinstance(raw, dict):
            raise ConfigError(f"{source}: expected a JSON object, found {quoted(raw)}")
        given = {key: value for key, value in raw.items() if value is not None}
        name = str(source)
        samples = typed(given.get("do_sample", True), bool, name, "do_sample")
        temperature = typed(given.get("temperature", 1.0), float, name, "temperature")
        top_p = typed(given.get("top_p", 1.0), float, name, "top_p")
        if temperature < 0:
            raise ConfigError(f"{source}: temperature: expected a number of at least 0, found {temperature}")
        if not 0 < top_p <= 1:
            raise ConfigError(f"{source}: top_p: expected a number above 0 and at most 1, found {top_p}")
        ignored = tuple(key for key, value in given.items() if _is_ignored(key, value))
        return cls(temperature if samples else 0.0, top_p, _stop_ids(given, checkpoint.config, source), ignored, source)

    @property
    def settings(self) -> dict[str, Any]:
        """temperature, top_p and stop_ids, as arguments of `dsv4.generate`."""
        return {"temperature": self.temperature, "top_p": self.top_p, "stop_ids": self.stop_ids}


def _stop_ids(given: dict[str, Any], config: Config | Config41, source: Path) -> tuple[int, ...]:
    """The tokens of eos_token_id in the file, or else in config.json."""
    if "eos_token_id" not in given:
        return config.eos_token_ids
    found = token_ids(given["eos_token_id"], str(source), "eos_token_id")
    ids = (found,) if isinstance(found, int) else found
    if not all(0 <= token < config.vocab_size for token in ids):
        expected = f"a token from 0 and below vocab_size {config.vocab_size}"
        raise ConfigError(f"{source}: eos_token_id: expected {expected}, found {quoted(found)}")
    return ids


def _is_ignored(key: str, value: Any) -> bool:
    """Whether this entry would change which tokens come out, were it applied."""
    known = key in APPLIED or key in NOT_SETTINGS or key.startswith("_")
    return not known and value != WITHOUT_EFFECT.get(key, False)
