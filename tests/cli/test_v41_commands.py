"""The commands with a whole small model of V4.1: text in a bounded memory, and the page that looks inside."""

import io
import json
import re

import numpy as np
import pytest

from command import runner
from dsv4 import load
from explain.reading import read
from whole41 import write_whole41


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_whole41(tmp_path_factory.mktemp("v41") / "model")


@pytest.fixture(scope="module")
def least(directory):
    """A budget in bytes: a drafter, a layer, caches of a short text."""
    model = load(directory, "numpy", memory=2**30)
    names = [name for name in model.checkpoint.parameters if name.startswith(("layers.5.", "head.", "norm.", "mtp."))]
    return sum(map(model.checkpoint.stored_bytes, names)) + 150_000


@pytest.fixture
def dsv4(monkeypatch, capfd):
    return runner(monkeypatch, capfd)


READ = r"read \S+ [kM]?B, \S+ [kM]?B/s; \d+ of \d+ parts were in memory\n"


@pytest.mark.parametrize("more", [(), ("--speculative",)], ids=["plain", "drafts"])
def test_the_text_is_the_same_with_a_budget(dsv4, directory, least, more):
    arguments = ("generate", "The ring", "-m", directory, "-n", 6, "-t", 0, "-b", "numpy", *more)
    free, bounded = dsv4(*arguments), dsv4(*arguments, "--memory", least)
    assert free[0] == bounded[0] == 0, (free, bounded)
    assert bounded[1] == free[1] != ""
    assert re.search(READ, bounded[2])


def test_logits_are_the_same_with_a_budget(dsv4, directory, least, tmp_path):
    (tmp_path / "ids.json").write_text(json.dumps(list(range(20))))
    found = []
    for more in ((), ("--memory", least)):
        out = tmp_path / f"{len(found)}.npy"
        arguments = ("logits", directory, "--ids", tmp_path / "ids.json", "--out", out, "--chunk", 7, "-b", "numpy")
        status, _, err = dsv4(*arguments, *more)
        assert status == 0, err
        found.append(np.load(out))
    np.testing.assert_array_equal(*found)


def test_a_chat_with_a_budget(dsv4, directory, least, monkeypatch):
    answers = []
    for more in ((), ("--memory", least)):
        monkeypatch.setattr("sys.stdin", io.StringIO("Hello\n"))
        status, out, err = dsv4("chat", directory, "-n", 5, "-t", 0, "-b", "numpy", "--mode", "non-think", *more)
        assert status == 0, err
        answers.append(out)
    assert answers[0] == answers[1] != ""


def test_the_page_of_a_model_of_v41(dsv4, directory, tmp_path):
    path = tmp_path / "page.html"
    assert dsv4("explain", "To be, or not", "-m", directory, "-o", path, "-b", "numpy") == (0, f"{path}\n", "")
    shown = read(path.read_text(encoding="utf-8"))
    assert shown["model"]["version"] == "V4.1" and shown["drafts"]["blocks"] is not None
    assert "".join(piece for _, piece in shown["tokens"]).endswith("To be, or not")


def test_it_is_served_with_a_budget_and_looked_into_without(directory, least):
    pytest.importorskip("uvicorn")
    from dsv4 import Tokenizer
    from dsv4.serve.app import application
    from dsv4.serve.engine import Engine
    from dsv4.serve.service import Service
    from dsv4.text.generation_config import GenerationConfig
    from serve.asking import ask

    texts = []
    for memory in (None, least):
        model, tokenizer = load(directory, "numpy", memory=memory), Tokenizer.from_file(directory)
        wanted = GenerationConfig.load(model.checkpoint)
        engine = Engine(model)
        service = Service(model, tokenizer, engine, "small", wanted, mode="non-think", revision="v4.1")
        app = application(service)
        body = {"prompt": "The ring", "max_tokens": 5, "temperature": 0}
        texts.append(ask(app, "/v1/completions", body).json["choices"][0]["text"])
        found = ask(app, "/explain", {"ids": [5, 6, 7]})
        engine.stop(finish=True)
        if memory is None:
            assert found.status == 200 and read(found.body.decode())["model"]["version"] == "V4.1"
        else:
            assert found.status == 400 and "without --memory" in found.error["message"]
    assert texts[0] == texts[1] != ""
