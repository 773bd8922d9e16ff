"""The page in a real headless Chromium: every view opened, and what it shows compared with the recorded numbers.

Skipped where there is no Chromium; DSV4_CHROMIUM names one that is not found by itself.
"""

import re

import numpy as np
import pytest

import dsv4
import tiny
from dsv4.cost.memory import layer_cache_bytes
from dsv4.explain import record, write_page
from dsv4.ops import Ops
from explain import visits
from explain.visits import problems, shares_shown

TEXT = "To be, or not to be: that is the question.\n\nשלום 😀 <｜User｜> x\t" * 5
LENGTH = 150
TOKEN, LAYER, HEAD = 140, 1, 2


@pytest.fixture(scope="module")
def model():
    return tiny.model(Ops(), vocab_size=1024)


@pytest.fixture(scope="module")
def tokenizer():
    return dsv4.Tokenizer.from_file(dsv4.bundled_model())


@pytest.fixture(scope="module")
def recorded(model, tokenizer):
    return record(model, tokenizer.encode(TEXT, allow_special=True)[:LENGTH])


@pytest.fixture(scope="module")
def page(chromium, model, tokenizer, recorded, tmp_path_factory):
    """The page, open at one place; each test goes on from there by keys and clicks."""
    path = tmp_path_factory.mktemp("page") / "explain.html"
    write_page(path, model, tokenizer, recorded)
    chromium.open(path, f"token={TOKEN}&layer={LAYER}&head={HEAD}&box=attention&theme=light")
    yield chromium
    assert chromium.complaints == []
    assert {address.split(":")[0] for address in chromium.requests} <= {"file", "data", "about"}


@pytest.fixture(autouse=True)
def at_one_place(page):
    go(page)


def go(page, box="attention"):
    visits.go(page, token=TOKEN, layer=LAYER, head=HEAD, theme="light", box=box)


def test_the_largest_shares_are_those_of_numpy(page, recorded):
    window, entries, numbers, sink = recorded.layers[LAYER].shares
    expected = {(None, None): sink[TOKEN, HEAD]}
    for back, share in enumerate(window[TOKEN, HEAD]):
        expected[TOKEN - back, TOKEN - back] = share
    for entry, share in zip(numbers[TOKEN], entries[TOKEN, HEAD], strict=True):
        expected[max(0, 4 * entry - 4), 4 * entry + 3] = share
    rows = shares_shown(page, "reads")
    assert len(rows) == 12
    for first, last, share, text in rows:
        key = (None, None) if first is None else (int(first), int(last))
        assert share == pytest.approx(expected[key], abs=1e-4)
        assert percent(expected[key]) in text.replace("\xa0", " ")
    assert [row[2] for row in rows] == sorted((row[2] for row in rows), reverse=True)


def percent(share):
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.{1 if share < 0.0995 else 0}f} %"


def test_the_buttons_say_window_entries_and_sink_of_each_head(page, recorded):
    window, entries, _, sink = recorded.layers[LAYER].shares
    labels = page.run("Array.from(document.querySelectorAll('[data-head]'), (one) => one.ariaLabel)")
    assert len(labels) == 5
    for head, label in enumerate(labels[1:]):
        sums = (window[TOKEN, head].sum(), entries[TOKEN, head].sum(), sink[TOKEN, head])
        said = "window {}, entries {}, sink {}".format(*map(percent, sums))
        assert label.replace("\xa0", " ") == f"head {head}: {said}"


def test_the_indexers_scores(page, recorded):
    page.click('[data-id="indexer"]')
    choice = recorded.layers[LAYER].choice
    chosen = [entry for entry in choice.chosen[TOKEN] if entry >= 0]
    rows = shares_shown(page, "scores")
    kept = [int(last) // 4 for _, last, _, text in rows if not text.startswith("×")]
    refused = [int(last) // 4 for _, last, _, text in rows if text.startswith("×")]
    assert kept == chosen
    assert len(refused) == 3
    assert not set(refused) & set(chosen)
    for _, last, score, _ in rows:
        assert score == pytest.approx(choice.scores[TOKEN, int(last) // 4], abs=1e-3)
    assert f"chooses {len(chosen)} of {(TOKEN + 1) // 4} entries" in page.run(
        "document.querySelector('#sentence').innerText"
    )


def test_an_entrys_tokens(page, recorded):
    page.click('[data-id="entries"]')
    newest = (TOKEN + 1) // 4 - 1
    rows = shares_shown(page, "slots")
    assert [int(row[0]) for row in rows] == list(range(4 * newest - 4, 4 * newest + 4))
    np.testing.assert_allclose([row[2] for row in rows], recorded.layers[LAYER].slots[newest], atol=1e-4)


@pytest.mark.parametrize(("box", "part"), [("write1", 0), ("write2", 1)])
def test_comb_stands_with_old_streams_in_rows(page, recorded, box, part):
    page.click(f'[data-id="{box}"]')
    values = page.run("Array.from(document.querySelectorAll('#comb td'), (one) => Number(one.dataset.value))")
    mixing = recorded.layers[LAYER].mixing[part]
    np.testing.assert_allclose(values[:16], mixing.comb[TOKEN].ravel(), atol=1e-4)
    np.testing.assert_allclose(values[16:], mixing.post[TOKEN], atol=1e-4)


@pytest.mark.parametrize(("box", "part"), [("read1", 0), ("read2", 1)])
def test_pre(page, recorded, box, part):
    page.click(f'[data-id="{box}"]')
    rows = shares_shown(page, "pre")
    np.testing.assert_allclose([row[2] for row in rows], recorded.layers[LAYER].mixing[part].pre[TOKEN], atol=1e-4)


def test_experts_and_their_weights(page, recorded):
    page.click('[data-id="experts"]')
    routing = recorded.layers[LAYER].routing
    rows = shares_shown(page, "gate")
    np.testing.assert_allclose([row[2] for row in rows], routing.scores[TOKEN], atol=1e-3)
    for expert, weight in zip(routing.indices[TOKEN], routing.weights[TOKEN], strict=True):
        assert f"weight {weight:.2f}" in rows[expert][3]


def test_candidates_after_each_layer_and_drafts(page, recorded):
    rows = page.run(
        "Array.from(document.querySelectorAll('#lens tbody tr'), (row) => ["
        "row.hasAttribute('data-draft'), row.innerText,"
        "Array.from(row.querySelectorAll('.candidate'), (one) => [Number(one.dataset.id), Number(one.dataset.share)])])"
    )
    places = [(opinion, TOKEN) for opinion in recorded.opinions] + [(recorded.drafts.opinions, TOKEN - 1)]
    assert [draft for draft, _, _ in rows] == [False] * 5 + [True]
    for (_, text, cells), (opinion, place) in zip(rows, places, strict=True):
        assert [token for token, _ in cells] == list(opinion.ids[place])
        np.testing.assert_allclose([share for _, share in cells], opinion.shares[place], atol=1e-4)
        if opinion is not recorded.drafts.opinions:
            assert f"#{opinion.rank[place]:,}" in text
    assert ("accepted" in rows[-1][1]) == recorded.drafts.accepted[TOKEN - 1]


def test_bytes_of_each_layer(page, model):
    page.click('[data-id="cache"]')
    found = page.run("Array.from(document.querySelectorAll('#cache [data-bytes]'), (one) => Number(one.dataset.bytes))")
    config = model.config
    ratios = config.compress_ratios[: config.num_hidden_layers]
    assert found == [sum(layer_cache_bytes(config, ratio, TOKEN + 1, "packed").values()) for ratio in ratios]


def test_every_box_of_every_layer_draws_at_the_edges_of_the_text(page):
    """Boxes × tokens: no number is missing, and each picture says what it shows."""
    count = page.run("document.querySelectorAll('.box').length")
    assert count >= 17
    assert problems(page, [0, 3, 7, 128, 149]) == []


def test_keys(page):
    def place():
        return page.run("Object.fromEntries(new URLSearchParams(location.hash.slice(1)))")

    for key, name, expected in [
        ("ArrowRight", "token", TOKEN + 1),
        ("ArrowLeft", "token", TOKEN),
        ("n", "box", "unrotate"),
        ("p", "box", "attention"),
        ("]", "layer", LAYER + 1),
        ("[", "layer", LAYER),
        ("3", "head", 3),
        ("3", "head", -1),
        ("h", "head", 0),
        ("a", "head", -1),
        ("d", "theme", "dark"),
    ]:
        page.press(key)
        assert place()[name] == str(expected), key
    page.run("document.querySelector('#text').focus()")
    page.press("ArrowUp")
    above = int(place()["token"])
    assert above < TOKEN
    page.press("ArrowDown")
    assert int(place()["token"]) > above
    page.press("Home")
    assert place()["token"] == "0"
    page.press("?")
    assert page.run("document.querySelector('#help').open")
    assert "largest are kept" in page.run("document.querySelector('#help').innerText")
    page.run("document.querySelector('#help').close()")


def test_a_token_a_head_and_a_layer_are_chosen_by_clicks(page):
    page.click('[data-token="100"]')
    page.click('[data-head="1"]')
    page.click('[data-layer="2"]')
    chosen = page.run("location.hash")
    assert "token=100&layer=2&box=attention&head=1" in chosen
    assert page.run("document.querySelector('#token-100').ariaSelected") == "true"
    assert "token 100" in page.run("document.querySelector('#sentence').innerText")


def test_the_marks_are_drawn_behind_the_tokens_that_are_read(page, recorded):
    """The canvas is coloured behind the token with the largest window share, and not behind one beyond the window."""
    window = recorded.layers[LAYER].shares.window[TOKEN, HEAD]
    strongest = TOKEN - 1 - int(window[1:].argmax())
    page.run(f"document.querySelector('#token-{strongest}').scrollIntoView({{block: 'center'}})")
    opacities = page.run(
        f"""new Promise((done) => setTimeout(() => {{
            const marks = document.querySelector("#marks");
            const copy = new OffscreenCanvas(marks.width, marks.height).getContext("2d", {{willReadFrequently: true}});
            copy.drawImage(marks, 0, 0);
            const frame = marks.getBoundingClientRect();
            done([{strongest}, {TOKEN - 20}].map((token) => {{
                const box = document.querySelector("#token-" + token).getClientRects()[0];
                const at = [box.left - frame.left + box.width / 2, box.top - frame.top + box.height / 2];
                return copy.getImageData(...at.map(Math.round), 1, 1).data[3];
            }}));
        }}, 100))"""
    )
    assert opacities[0] > 40
    assert opacities[1] == 0


def test_two_places_are_compared(page, recorded):
    page.press("c")
    page.press("]")
    text = page.run("document.querySelector('#compared').innerText").replace("\xa0", " ")
    before, now = (recorded.layers[layer].shares.sink[TOKEN, HEAD] for layer in (LAYER, LAYER + 1))
    assert re.search(rf"sink\s+{re.escape(percent(before))}\s+{re.escape(percent(now))}", text)
    sizes = [recorded.layers[layer].sizes[1, TOKEN, 0] for layer in (LAYER, LAYER + 1)]
    assert re.search(rf"size of stream 0\s+{sizes[0]:.3g}", text)
    page.press("Escape")
    assert page.run("document.querySelector('#compared')") is None


def test_the_tour_leads_through_a_dozen_places(page):
    page.click("#tour-open")
    stops = int(re.search(r"1 of (\d+)", page.run("document.querySelector('#tour').innerText"))[1])
    assert 10 <= stops <= 14
    for _ in range(stops - 1):
        page.press("t")
    assert f"{stops} of {stops}" in page.run("document.querySelector('#tour').innerText")
    page.press("t")
    assert page.run("document.querySelector('#tour').hidden")


@pytest.mark.parametrize("width", [360, 400, 800, 1280])
def test_no_width_needs_sideways_scrolling(page, width):
    page.resize(width, 900)
    try:
        for box in ("attention", "indexer", "experts", "write1", "head", "cache"):
            go(page, box)
            assert page.run("document.documentElement.scrollWidth") <= width, box
    finally:
        page.resize(1280, 900)


def test_a_text_of_one_token(chromium, model, tokenizer, tmp_path):
    write_page(tmp_path / "one.html", model, tokenizer, record(model, tokenizer.encode("x")))
    chromium.open(tmp_path / "one.html")
    assert "gives" in chromium.run("document.querySelector('#sentence').innerText")
    assert chromium.complaints == []
