"""What the card of the bundled model states, measured on a short piece of the play."""

import re
from pathlib import Path

import pytest

from dsv4 import Tokenizer, bundled_model, load
from dsv4.learn.evaluation import card, nats_per_token

TEMPEST = (Path(__file__).parents[2] / "data/eval/eval.txt").read_text(encoding="utf-8")


@pytest.fixture
def short(monkeypatch):
    """Little of everything."""
    for name, value in {
        "READ": slice(0, 1400),
        "LENGTHS": (512,),
        "DOCUMENTS": 2,
        "PROMPTS": 1,
        "FOLLOWING": 6,
    }.items():
        monkeypatch.setattr(card, name, value)


def test_the_tables(short, tmp_path, capsys):
    (tmp_path / "the-tempest.txt").write_text(TEMPEST, encoding="utf-8")
    assert card.main([str(bundled_model()), str(bundled_model()), str(tmp_path)]) == 0
    out = capsys.readouterr().out
    ids = Tokenizer.from_file(bundled_model()).encode(TEMPEST[:1400])
    expected = nats_per_token(load(backend="numpy", fake_quant="off"), ids)
    assert out.count(f"| {expected:.5f} |") == 2  # of both checkpoints, which are the same here
    shares = {name: float(share) for name, share in re.findall(r"^\| ([\w' ]+) \| ([\d.]+)% \|$", out, re.MULTILINE)}
    assert shares["as it is"] > 90 > 50 > shares["indexers' scores random"]
    assert shares["without CSA"] == shares["without both"] < 50
    assert set(re.findall(r"^\| (layers\.\d)", out, re.MULTILINE)) == {"layers.1", "layers.3"}
    assert "| greedy drafts kept while it writes |" in out


def test_what_is_wrong_is_one_line(tmp_path, capsys):
    assert card.main([]) == 2
    assert capsys.readouterr().err.startswith("usage: ")
    assert card.main([str(tmp_path), str(tmp_path), str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
