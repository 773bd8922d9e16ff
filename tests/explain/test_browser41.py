"""The page of a V4.1 model in a real headless Chromium: every box opened, and what only V4.1 has."""

import numpy as np
import pytest

import dsv4
import tiny41
from dsv4.explain import record, write_page
from dsv4.model41.model import Model41
from dsv4.ops import Ops
from explain.visits import go, problems, shares_shown

TEXT = "To be, or not to be: that is the question, to be or not, and\n\nto be 😀 <｜User｜> x\t" * 3
LENGTH, VOCAB, TOKEN = 70, 1024, 60


@pytest.fixture(scope="module")
def model():
    return Model41(tiny41.checkpoint(vocab_size=VOCAB), Ops(), False, np.float64, np.arange(VOCAB) % 15)


@pytest.fixture(scope="module")
def tokenizer():
    return dsv4.Tokenizer.from_file(dsv4.bundled_model())


@pytest.fixture(scope="module")
def recorded(model, tokenizer):
    return record(model, tokenizer.encode(TEXT, allow_special=True)[:LENGTH])


@pytest.fixture(scope="module")
def page(chromium, model, tokenizer, recorded, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "explain.html"
    write_page(path, model, tokenizer, recorded)
    chromium.open(path, f"token={TOKEN}&layer=3&box=attention&theme=light")
    yield chromium
    assert chromium.complaints == []


def said(page):
    return page.run("document.querySelector('#sentence').innerText")


def test_every_box_of_every_layer_draws_at_the_edges_of_the_text(page):
    assert problems(page, [0, 1, 2, LENGTH - 1]) == []


@pytest.mark.parametrize("layer", [0, 3])
def test_gates_and_n_grams(page, recorded, layer):
    go(page, token=TOKEN, layer=layer, box="engram")
    lookup = recorded.layers[layer].lookup
    np.testing.assert_allclose([row[2] for row in shares_shown(page, "gates")], lookup.gates[TOKEN], atol=1e-4)
    rows = page.run(
        "Array.from(document.querySelectorAll('#ngrams tbody tr'), "
        "(row) => [row.dataset.order, row.dataset.others, row.innerText])"
    )
    assert [row[0] for row in rows] == ["2", "3"]
    for order, others, text in rows:
        columns = slice(2 * (int(order) - 2), 2 * (int(order) - 1))
        same = (lookup.rows[:, columns] == lookup.rows[TOKEN, columns]).all(axis=1)
        assert int(others) == same.sum() - 1
        assert str(lookup.rows[TOKEN, columns][0]) in text
    assert f"to stream {lookup.gates[TOKEN].argmax()}" in said(page)


def test_a_layer_says_whose_entries_it_reads(page):
    found = {}
    for layer in range(6):
        go(page, token=TOKEN, layer=layer, box="attention")
        found[layer] = page.run("document.querySelector('#details').innerText")
        boxes = page.run("Array.from(document.querySelectorAll('.open .box'), (one) => one.dataset.id)")
        assert ("entries" in boxes, "indexer" in boxes, "engram" in boxes) == (
            layer in (1, 3), layer in (1, 2, 3, 5), layer in (0, 3)
        )  # fmt: skip
    assert "those of layer 1, chosen anew here" in found[2]
    assert "those of layer 3, chosen by layer 3" in found[4]
    assert "those of layer" not in found[3]


def test_the_pool(page, recorded):
    go(page, token=TOKEN, layer=3, box="indexer")
    blocks = [block for block in recorded.layers[3].pool[TOKEN] if block >= 0]
    assert f"{len(blocks)} blocks of 3" in said(page)
    go(page, token=TOKEN, layer=5, box="indexer")
    allowed = recorded.layers[5].choice.allowed[TOKEN, : TOKEN + 1]
    assert f"from the {allowed.sum()} of {TOKEN + 1} entries in the pool that layer 3 made" in said(page)
    outside = [row for row in shares_shown(page, "scores") if row[3].startswith("⊘")]
    assert all(not allowed[int(row[0])] for row in outside)


def test_what_is_read_was_weighed_one_sub_layer_before(page, recorded):
    for layer, box, part in ((2, "read1", 0), (2, "read2", 1)):
        go(page, token=TOKEN, layer=layer, box=box)
        expected = recorded.layers[layer].mixing[part].pre[TOKEN]
        np.testing.assert_allclose([row[2] for row in shares_shown(page, "pre")], expected, atol=1e-4)
        assert "the sub-layer before has computed" in said(page)


def test_a_block_of_drafts(page, recorded):
    go(page, token=TOKEN, box="draft")
    rows = shares_shown(page, "block")
    np.testing.assert_allclose([row[2] for row in rows], recorded.drafts.confidence[TOKEN - 1], atol=1e-4)
    assert "DSpark draft" in page.run("document.querySelector('#details').innerText")


def test_the_tour_leads_to_what_v41_has(page):
    page.click("#tour-open")
    stops = []
    while not page.run("document.querySelector('#tour').hidden"):
        stops.append(page.run("document.querySelector('#tour').innerText"))
        page.press("t")
    assert 10 <= len(stops) <= 15
    for words in ("rows of a large table", "neither makes entries nor chooses", "which blocks of entries"):
        assert any(words in stop for stop in stops), words


@pytest.mark.parametrize("width", [360, 1280])
def test_no_width_needs_sideways_scrolling(page, width):
    page.resize(width, 900)
    try:
        for box in ("engram", "attention", "indexer", "draft", "cache"):
            go(page, token=TOKEN, layer=3, box=box)
            assert page.run("document.documentElement.scrollWidth") <= width, box
    finally:
        page.resize(1280, 900)


def test_a_text_of_one_token(chromium, model, tokenizer, tmp_path):
    write_page(tmp_path / "one.html", model, tokenizer, record(model, tokenizer.encode("x")))
    chromium.open(tmp_path / "one.html")
    assert "gives" in chromium.run("document.querySelector('#sentence').innerText")
    assert chromium.complaints == []
