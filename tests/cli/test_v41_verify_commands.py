"""A small V4.1 model from the first command to the last: random weights, a look inside, text, results to compare."""

import json
import re

import pytest
from safetensors.numpy import load_file, save_file

from command import is_one_line, runner
from dsv4 import Tokenizer, bundled_model
from dsv4.backends import VARIABLE
from dsv4.checkpoint.convert import COPIED_FILES
from dsv4.text.engram_classes import classes_of
from model41.golden41 import GOLDEN


@pytest.fixture
def dsv4(monkeypatch, capfd):
    monkeypatch.setenv(VARIABLE, "numpy")
    return runner(monkeypatch, capfd)


@pytest.fixture
def config(tmp_path):
    """The config.json of the small quantised model, for the bundled tokenizer, which lies beside it."""
    place, tokenizer = tmp_path / "config", Tokenizer.from_file(bundled_model())
    place.mkdir()
    for name in COPIED_FILES:
        if (bundled_model() / name).exists():
            (place / name).write_bytes((bundled_model() / name).read_bytes())
    names = {number: name for name, number in tokenizer.vocabulary.items()}
    ids = range(tokenizer.vocab_size)
    classes = classes_of([tokenizer.decode([number]) for number in ids], [names.get(number, "") for number in ids])
    settings = json.loads((GOLDEN / "v41_quant" / "config.json").read_text())
    settings["text_config"]["vocab_size"] = tokenizer.vocab_size
    settings["text_config"]["engram_compressed_vocab_size"] = int(classes.max()) + 1
    (place / "config.json").write_text(json.dumps(settings))
    return place


def test_from_random_weights_to_results_that_agree(dsv4, config, tmp_path):
    model, saved = tmp_path / "model", tmp_path / "saved.safetensors"
    status, out, err = dsv4("random", config, model, "--layers", 9, "--experts", 5, "--float")
    assert (status, err) == (0, "") and out.startswith(f"wrote {model}: ")
    status, out, _ = dsv4("inspect", model)
    assert status == 0 and "drafts by DSpark: layers 3, tokens at once 5\n" in out and ", with Engram\n" in out
    assert [re.split(r" {2,}", line)[1] for line in out.splitlines() if line.startswith("layers.")] == [
        *("SWA", "SWA", "Full", "Reuse", "Full", "Reuse", "Full", "Reuse", "Reindex")
    ]
    status, out, _ = dsv4("cost", model)
    assert status == 0 and "\nin Engram tables " in out and "\ncache per token " in out
    status, plain, _ = dsv4("generate", "To be", "--model", model, "-n", 12, "-t", 0)
    assert status == 0 and plain.startswith("To be")
    assert dsv4("generate", "To be", "--model", model, "-n", 12, "-t", 0, "--speculative")[1] == plain
    status, out, err = dsv4("verify", model, "--save", saved, "--length", 40)
    assert (status, err) == (0, "") and out.startswith(f"wrote {saved}: ")
    results = load_file(saved)
    status, out, _ = dsv4("verify", model, "--expected", saved, "--json")
    assert status == 0 and {"engram.token_map", "p1.decode.released.logits"} <= {row["name"] for row in json.loads(out)}
    results["engram.token_map"][7] += 1
    save_file(results, saved)
    status, out, _ = dsv4("verify", model, "--expected", saved)
    assert status == 1 and [line.split()[0] for line in out.splitlines() if line.endswith("too large")] == [
        "engram.token_map"
    ]


def test_a_model_without_its_tokenizer_says_what_it_needs(dsv4, config, tmp_path):
    (config / "tokenizer.json").unlink()
    status, out, err = dsv4("random", config, tmp_path / "model", "--layers", 2)
    assert (status, is_one_line(err)) == (0, True)
    assert f"{config}: no tokenizer.json" in err and "for its Engram" in err
    for arguments in (("generate", "To be", "--model", tmp_path / "model"), ("logits", tmp_path / "model")):
        more = () if arguments[0] == "generate" else ("--ids", tmp_path / "ids.json", "--out", tmp_path / "o.npy")
        (tmp_path / "ids.json").write_text("[1, 2]")
        status, out, err = dsv4(*arguments, *more)
        assert (status, out, is_one_line(err)) == (2, "", True)
        assert f"{tmp_path / 'model' / 'tokenizer.json'}: " in err


def test_the_preset_is_the_released_model(dsv4):
    status, out, _ = dsv4("inspect", "v4.1")
    assert status == 0 and out.startswith("v4.1\n748B parameters, ")
    for command in ("cost", "inspect", "random"):
        assert "v4.1" in dsv4(command, "--help")[1]
