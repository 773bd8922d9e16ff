"""generation_config.json: what is applied, what is ignored and said to be, and files that cannot be right."""

import json

import pytest

import tiny
from dsv4 import GenerationConfig, bundled_model, load
from dsv4.checkpoint import Checkpoint
from dsv4.errors import ConfigError
from dsv4.text.generate import generate


def read(directory, content, **changes):
    """What a file with this content says, beside a config.json with these changes."""
    text = content if isinstance(content, str) else json.dumps(content)
    (directory / "generation_config.json").write_text(text)
    return GenerationConfig.load(Checkpoint(directory, tiny.config(**changes), {}))


def test_without_a_file_the_released_way_is_taken(tmp_path):
    found = GenerationConfig.load(Checkpoint(tmp_path, tiny.config(eos_token_id=(1, 5)), {}))
    assert found.settings == {"temperature": 1.0, "top_p": 1.0, "stop_ids": (1, 5)}
    assert found.ignored == ()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, (1.0, 1.0, (1,))),
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.95}, (0.6, 0.95, (1,))),
        ({"do_sample": False}, (0.0, 1.0, (1,))),
        ({"do_sample": False, "temperature": 0.6, "top_p": 0.5}, (0.0, 0.5, (1,))),
        ({"temperature": 2, "top_p": None, "do_sample": None, "eos_token_id": None}, (2.0, 1.0, (1,))),
        ({"eos_token_id": [3, 9]}, (1.0, 1.0, (3, 9))),
        ({"eos_token_id": 3}, (1.0, 1.0, (3,))),
    ],
)
def test_what_the_file_says_is_applied(tmp_path, content, expected):
    found = read(tmp_path, content)
    assert (found.temperature, found.top_p, found.stop_ids) == expected
    assert found.ignored == ()


def test_other_settings_are_named_where_they_would_change_something(tmp_path):
    """As transformers 5.24 saves them, and as older files spell out what changes nothing."""
    saved = {"_from_model_config": True, "bos_token_id": 0, "transformers_version": "5.24.0", "use_cache": True}
    without_effect = {"repetition_penalty": 1.0, "num_beams": 1, "top_k": 0, "renormalize_logits": False, "min_p": None}
    ignored = {"top_k": 20, "repetition_penalty": 1.05, "max_new_tokens": 50, "stop_strings": ["\n"], "new": [1]}
    assert read(tmp_path, saved | without_effect).ignored == ()
    assert read(tmp_path, saved | without_effect | ignored).ignored == (
        *("repetition_penalty", "top_k", "max_new_tokens", "stop_strings", "new"),
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", r": expected a JSON object, found \[1\]"),
        ("{", ": expected a JSON file, found no valid JSON: "),
        ("version https://git-lfs.github.com/spec/v1\n", ": expected a JSON file, found a git-LFS pointer"),
        ({"temperature": -1}, ": temperature: expected a number of at least 0, found -1.0"),
        ({"temperature": "0.5"}, ": temperature: expected a finite number, found '0.5'"),
        ('{"temperature": NaN}', ": expected a JSON file, found no valid JSON: the number NaN"),
        ({"top_p": 0}, ": top_p: expected a number above 0 and at most 1, found 0.0"),
        ({"top_p": 1.5}, ": top_p: expected a number above 0 and at most 1, found 1.5"),
        ({"top_p": True}, ": top_p: expected a finite number, found True"),
        ({"do_sample": 0}, ": do_sample: expected true or false, found 0"),
        ({"eos_token_id": [40]}, r": eos_token_id: expected a token from 0 and below vocab_size 40, found \(40,\)"),
        ({"eos_token_id": -1}, ": eos_token_id: expected a token from 0 and below vocab_size 40, found -1"),
        ({"eos_token_id": []}, ": eos_token_id: expected from 1 to 2048 token ids, found 0"),
        ({"eos_token_id": ["1"]}, ": eos_token_id: expected an integer, found '1'"),
    ],
)
def test_a_file_that_cannot_be_right_is_named(tmp_path, content, message):
    with pytest.raises(ConfigError, match=f"^{tmp_path}/generation_config.json{message}"):
        read(tmp_path, content)


def test_its_settings_are_arguments_of_generate():
    model = load(backend="numpy")
    wanted = GenerationConfig.load(model.checkpoint)
    found = [token.id for token in generate(model, [5, 9, 2], 5, seed=1, **wanted.settings)]
    stored = json.loads((bundled_model() / "generation_config.json").read_text())
    settings = {name: stored[name] for name in ("temperature", "top_p")}
    assert found == [token.id for token in generate(model, [5, 9, 2], 5, seed=1, **settings)]
