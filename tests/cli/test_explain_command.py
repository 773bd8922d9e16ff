"""`dsv4 explain`: one file, its path printed, and one line for whatever is refused."""

import pytest

from command import is_one_line, runner
from explain.reading import read


@pytest.fixture
def dsv4(monkeypatch, capfd):
    return runner(monkeypatch, capfd)


def test_a_page_is_written_and_its_path_printed(dsv4, tmp_path):
    path = tmp_path / "page.html"
    assert dsv4("explain", "To be, or not", "--out", path, "--backend", "numpy") == (0, f"{path}\n", "")
    shown = read(path.read_text(encoding="utf-8"))
    assert "".join(piece for _, piece in shown["tokens"]).endswith("To be, or not")
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]


def test_the_page_is_called_explain_html_where_nothing_else_is_said(dsv4, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert dsv4("explain", "x", "--backend", "numpy") == (0, "explain.html\n", "")
    assert (tmp_path / "explain.html").exists()


def test_control_tokens_only_where_they_are_asked_for(dsv4, tmp_path):
    path = tmp_path / "page.html"
    for arguments, expected in (((), 0), (("--allow-special",), 1)):
        assert dsv4("explain", "<｜User｜>", "-o", path, "-b", "numpy", *arguments)[0] == 0
        shown = read(path.read_text(encoding="utf-8"))
        kinds = [shown["words"][str(token)][1] for token, _ in shown["tokens"]]
        assert kinds.count("control") == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [("", "expected some text, found none"), ("a b " * 9000, "tokens")],
    ids=["empty", "beyond the context"],
)
def test_refused_texts(dsv4, tmp_path, text, named):
    status, out, err = dsv4("explain", text, "--out", tmp_path / "page.html")
    assert (status, out) == (2, "")
    assert is_one_line(err)
    assert named in err
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_no_file_to_write(dsv4, tmp_path):
    status, out, err = dsv4("explain", "x", "--out", tmp_path, "--backend", "numpy")
    assert (status, out) == (2, "")
    assert is_one_line(err)
    assert "found a directory" in err
