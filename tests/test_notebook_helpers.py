"""The helpers of the notebooks: exercises, experiments, pictures and flows (pytest -m notebooks)."""

import ast
import re
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.notebooks
pytest.importorskip("jupytext", reason="the extra `notebooks` is not installed")
pytest.importorskip("nbclient", reason="the extra `notebooks` is not installed")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.patches import FancyArrowPatch  # noqa: E402

from dsv4.text.tokenizer import Tokenizer  # noqa: E402
from images import images  # noqa: E402

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))

import drawing  # noqa: E402
import show  # noqa: E402


@pytest.fixture
def shown(monkeypatch):
    """The Markdown that is displayed."""
    texts = []
    monkeypatch.setattr(show, "display", lambda text: texts.append(text.data))
    return texts


def test_an_exercise_takes_right_answers_only(capsys, shown):
    check = show.exercise(lambda answer: answer == 4, mistake=5, hint="Count again.")
    check(...)
    check(4)
    assert capsys.readouterr().out == "Open: put your answer in the place of the dots.\n✓ Right.\n"
    assert shown == ["<details><summary>Hint</summary>\n\nCount again.\n\n</details>"]
    with pytest.raises(AssertionError, match="Count again"):
        check(3)


def doubled(function):
    """A verdict: whether a function doubles 3."""
    return function(3) == 6, f"3 becomes {function(3)}"


def test_a_function_to_be_written_is_checked_and_wrong_versions_are_named(capsys, shown):
    check = show.write(doubled, wrong={"added": lambda x: x + 2}, hint="Twice.")
    check(...)
    check(lambda x: 2 * x)
    assert capsys.readouterr().out == (
        "Open: put your answer in the place of the dots.\n"
        "✓ Right.\n3 becomes 6\n\nA wrong version, added: 3 becomes 5.\n"
    )
    assert shown == ["<details><summary>Hint</summary>\n\nTwice.\n\n</details>"]
    with pytest.raises(AssertionError, match=r"Twice\.\n3 becomes 9"):
        check(lambda x: 3 * x)


@pytest.mark.parametrize("wrong", [{}, {"squared and less": lambda x: x * x - 3}])
def test_a_function_to_be_written_needs_wrong_versions_that_are_refused(wrong):
    with pytest.raises(ValueError, match="found one"):
        show.write(doubled, wrong=wrong, hint="")


def test_properties_are_those_of_the_checker():
    verdict = show.properties("mhc_collapse")
    right, report = verdict(lambda streams, pre: np.einsum("bsnd,bsn->bsd", streams, pre))
    wrong, complaint = verdict(lambda streams, pre: streams.mean(axis=2))
    assert right
    assert not wrong
    assert report.splitlines()[0] == "mhc_collapse: 6 of 6 properties hold"
    assert "result fails" in re.sub(" +", " ", complaint)


def test_an_exercise_that_takes_a_mistake_is_refused():
    with pytest.raises(ValueError, match="refuses 5"):
        show.exercise(lambda answer: answer > 3, mistake=5, hint="")


def experiment(measured, nulls):
    show.experiment("more than 3", lambda found: found > 3, measured, nulls, say=lambda found: f"it is {found}")


def test_an_experiment_says_what_was_found_and_what_a_null_model_gives(shown):
    experiment(4, {"nothing": 0, "noise": 3})
    assert shown == [
        "**Expected:** more than 3.  \n**Found:** it is 4. It holds.  \n"
        "**Null model**, nothing: it is 0. There it does not hold.  \n"
        "**Null model**, noise: it is 3. There it does not hold."
    ]


def test_an_experiment_that_fails_says_what_was_found():
    with pytest.raises(AssertionError, match="expected: more than 3; found: it is 2"):
        experiment(2, {"nothing": 0})


@pytest.mark.parametrize("measured", [4, 2])
def test_an_experiment_that_a_null_model_passes_is_refused(measured):
    with pytest.raises(ValueError, match="fails for noise, found one that holds: it is 5"):
        experiment(measured, {"nothing": 0, "noise": 5})


def test_an_experiment_without_a_null_model_is_refused():
    with pytest.raises(ValueError, match="found one with none"):
        experiment(4, {})


@pytest.fixture
def drawn():
    """A picture of one box that leads to two, which lead to one; and the arrows' ends."""
    figure, axes = plt.subplots()
    boxes = {
        "x": show.Box("x", (2, 3), "k", 0, 1),
        "q": show.Box("q", (5,), "k", 1, 0),
        "kv": show.Box("kv", "words", "k", 1, 2),
        "o": show.Box("o", "", "k", 2, 1),
    }
    drawing.flow(axes, "a title", boxes, ["x → q → o", "x → kv → o", "x → q"])
    figure.canvas.draw()
    yield axes
    plt.close(figure)


def test_a_flow_branches_and_joins(drawn):
    arrows = [patch for patch in drawn.patches if isinstance(patch, FancyArrowPatch)]
    ends = sorted(tuple(np.round(patch._path_original.vertices[[0, -1]], 6).ravel()) for patch in arrows)
    half = drawing._HALF_WIDTH
    right_of_x, left_of_o = (half, 1), (2 - half, 1)
    assert ends == sorted(
        [
            (*right_of_x, 1 - half, 0),
            (*right_of_x, 1 - half, 2),
            (1 + half, 0, *left_of_o),
            (1 + half, 2, *left_of_o),
        ]
    )


def test_a_flow_names_its_boxes_and_says_shapes_or_words_below(drawn):
    shape = "2\N{THIN SPACE}×\N{THIN SPACE}3"
    assert {text.get_text() for text in drawn.texts} == {"x", shape, "q", "5", "kv", "words", "o", ""}


def test_a_flow_of_a_box_that_is_not_there_is_refused(drawn):
    with pytest.raises(KeyError, match="'v'"):
        show.flow(drawn, "", {"x": show.Box("x", "", "k", 0, 0)}, ["x → v"])


ALT = "A line that rises from nothing at the left to two at the right, as the step grows."


@pytest.fixture
def lines():
    """A figure with two lines, as it should be."""
    figure, axes = plt.subplots()
    for name in ("one", "other"):
        axes.plot([0, 1, 2], label=name)
    axes.set(xlabel="step", ylabel="loss")
    axes.legend()
    yield figure
    plt.close(figure)


def faults(figure, alt=ALT):
    figure.canvas.draw()
    return drawing.faults(figure, alt)


def test_a_readable_picture_has_no_faults_and_is_shown_with_its_text(lines, monkeypatch):
    data = []
    monkeypatch.setattr(drawing, "display", lambda bundle, raw: data.append(bundle))
    drawing.picture(lines, 'A "line" < 1 that rises from nothing at the left to two at the right.')
    [image] = images(data[0]["text/html"])
    assert (
        image["alt"] == data[0]["text/plain"] == 'A "line" < 1 that rises from nothing at the left to two at the right.'
    )
    assert 700 < int(image["width"]) < 1000
    assert lines.number not in plt.get_fignums()


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda axes: axes.set_xlabel(""), "label of the x axis of axes 0"),
        (lambda axes: axes.set_ylabel(""), "label of the y axis of axes 0"),
        (lambda axes: axes.get_legend().remove(), "legend for the lines of axes 0"),
        (lambda axes: axes.text(1, 1, "small", fontsize=9), "'small' smaller"),
        (lambda axes: axes.tick_params(labelsize=8), "at least 10 points"),
    ],
)
def test_a_picture_that_is_hard_to_read_is_refused(lines, spoil, fault):
    assert not faults(lines)
    spoil(lines.axes[0])
    assert any(fault in found for found in faults(lines))
    with pytest.raises(ValueError, match="picture: expected"):
        drawing.picture(lines, ALT)


@pytest.mark.parametrize("alt", ["", "A line.", ALT[:-1]])
def test_a_picture_without_a_text_is_refused(lines, alt):
    assert any("alt text" in found for found in faults(lines, alt))


def test_lines_without_names_need_words_beside_them():
    figure, axes = plt.subplots()
    axes.plot(np.eye(3))
    axes.set(xlabel="step", ylabel="loss")
    assert faults(figure) == ["expected a legend for the lines of axes 0"]
    axes.text(0, 0, "one")
    assert faults(figure) == []
    plt.close(figure)


def test_panels_may_share_labels_and_a_legend():
    figure, (left, right) = plt.subplots(1, 2, sharey=True)
    for axes in (left, right):
        axes.plot([0, 1, 2], label="one")
        axes.plot([0, 1, 3], label="other")
    left.set_ylabel("loss")
    left.legend()
    figure.supxlabel("step")
    assert faults(figure) == []
    plt.close(figure)


def test_a_listing_of_a_method_is_python_as_it_stands(shown):
    show.source(Tokenizer.encode, Tokenizer)
    method, whole = (text.partition("```python\n")[2].removesuffix("\n```\n\n</samp>") for text in shown)
    assert ast.parse(method).body[0].name == "encode"
    assert textwrap.indent(method, "    ", lambda line: line.strip()) in whole
    assert shown[0].startswith("[`ref/dsv4/text/tokenizer.py`](../ref/dsv4/text/tokenizer.py)\n")
