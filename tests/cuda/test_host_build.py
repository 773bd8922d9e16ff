"""A library for the host is built once for all who ask, and anew when anything that it depends on is another."""

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cuda import host_build


@pytest.fixture
def built(monkeypatch, tmp_path):
    """The texts that were built, slowly, by what stands for the compiler."""
    texts = []

    def build(text, target):
        texts.append(text)
        time.sleep(0.05)
        if text == "wrong":
            return "line 1: wrong"
        target.write_text(text, encoding="utf-8")
        return None

    monkeypatch.setattr(host_build, "_build", build)
    monkeypatch.setattr(host_build, "_version", lambda: "a compiler")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return texts


def test_several_at_once_build_once(built):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: host_build.built_library("text", "kernels"), range(8)))
    assert built == ["text"]
    assert len(set(found)) == 1
    assert found[0].read_text(encoding="utf-8") == "text"


def test_it_is_built_anew_for_another_text_option_header_or_compiler(built, monkeypatch, tmp_path):
    ask = lambda text="text": host_build.built_library(text, "kernels")  # noqa: E731
    paths = [ask(), ask("another")]
    monkeypatch.setattr(host_build, "_version", lambda: "another compiler")
    paths.append(ask())
    monkeypatch.setattr(host_build, "OPTIONS", (*host_build.OPTIONS, "-g"))
    paths.append(ask())
    (tmp_path / "another.h").write_text("// a header", encoding="utf-8")
    monkeypatch.setattr(host_build, "HEADERS", tmp_path)
    paths.append(ask())
    assert len(set(paths)) == len(paths) == len(built)
    assert ask() == paths[-1]


def test_what_the_compiler_says_is_kept_by_nobody(built):
    assert host_build.built_library("wrong", "kernels") == "line 1: wrong"
    assert host_build.built_library("wrong", "kernels") == "line 1: wrong"
    assert built == ["wrong", "wrong"]
