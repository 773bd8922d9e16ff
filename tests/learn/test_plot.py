"""The picture of a log: what its panels show."""

import sys

import pytest

from dsv4.errors import SettingError, TrainingError
from dsv4.learn.plot import draw

LAYER = "layers.2.attn."


def line(step, kind="dense", loss=5.0, standing=None, verdict="go on"):
    return {
        "step": step,
        "kind": kind,
        "losses": {"next_token": loss, "mtp": 6.0, "balance": 1e-4},
        "gradient_norm": None if loss is None else 1.0,
        "learning_rate": 0.01,
        "load": {"layers.1.ffn.gate.": 1.5},
        "standing": standing or {},
        "verdict": verdict,
    }


@pytest.fixture
def figure(monkeypatch):
    """The figures that were written, as matplotlib has them."""
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    figures, original = [], Figure.savefig

    def savefig(self, *arguments, **settings):
        figures.append(self)
        original(self, *arguments, **settings)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


def test_a_run_with_a_repair_and_indexers(tmp_path, figure):
    log = [line(0), line(1), line(2, loss=None, verdict="roll back"), line(1), line(2)]
    log += [line(3, "sparse", standing={LAYER: 0.1}), line(4, "sparse", standing={LAYER: 0.3})]
    draw(log, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    losses, rate, load, indexer, norm = figure[0].axes
    labels = {panel: [one.get_label() for one in panel.lines if one.get_label()[0] != "_"] for panel in figure[0].axes}
    assert labels[losses] == ["mtp", "next_token"]
    assert labels[load] == ["layers.1.ffn.gate"] and labels[indexer] == ["layers.2.attn"]
    assert labels[rate] == ["η"] and labels[norm] == ["‖g‖"]
    measured = {one.get_label(): list(one.get_ydata()) for one in indexer.lines}
    assert measured["layers.2.attn"] == [0.1, 0.3]
    steps = [list(one.get_xdata()) for one in losses.lines if one.get_label() == "next_token"]
    assert steps == [[0, 1, 1, 2, 3, 4]]  # no point where the loss was no number
    for panel in figure[0].axes:
        marks = {one.get_color(): one.get_xdata()[0] for one in panel.lines if list(one.get_ydata()) == [0, 1]}
        assert marks == {"#b5474b": 2, "#333333": 3}


def test_a_log_of_one_step_whose_loss_is_no_number(tmp_path, figure):
    draw([line(0, loss=None, verdict="stop")], tmp_path / "plot.png")
    losses = figure[0].axes[0]
    assert [one.get_label() for one in losses.lines if one.get_label()[0] != "_"] == ["mtp"]


def test_no_step(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(TrainingError, match="log: expected at least one step, found none"):
        draw([], tmp_path / "plot.png")


def test_a_file_that_cannot_be_written(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(SettingError, match=r"plot.png: expected a file that can be written"):
        draw([line(0)], tmp_path / "none" / "plot.png")


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("dsv4.learn.plot.find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"expected matplotlib, found none installed: pip install 'dsv4\[train\]'"):
        draw([line(0)], tmp_path / "plot.png")
