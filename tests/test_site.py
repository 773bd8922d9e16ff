"""The site as a reader meets it: links lead on, no page is wider than a screen, and the scheme is that of the system.

Needs a built site, whose directory DSV4_SITE names:

    pip install -e '.[docs,test]' && mkdocs build --strict -f .mkdocs.yml -d build/site
    DSV4_SITE=build/site pytest tests/test_site.py
"""

import os
import re
from functools import cache, partial
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import quote, unquote, urlsplit

import pytest

VARIABLE = "DSV4_SITE"
PHONE, LAPTOP = 400, 1280
MOST_PIXELS = 60_000
"""No page may be longer, on a laptop: nobody finds anything there."""

_TARGET = re.compile(r'<[^>]*?\s(?:href|src|srcset)="([^"]*)"')
_ANCHOR = re.compile(r'\s(?:id|name)="([^"]*)"')
_SCRIPT = re.compile(r"<(script|style)\b.*?</\1>", re.DOTALL)


@pytest.fixture(scope="module")
def site():
    found = os.environ.get(VARIABLE)
    if not found:
        pytest.skip(f"no built site: {VARIABLE} names its directory")
    assert (Path(found) / "index.html").is_file(), f"{VARIABLE}: expected a built site, found none at {found}"
    return Path(found).resolve()


@pytest.fixture(scope="module")
def pages(site):
    """What is meant to be read: all but the pages below source/ that show a file as it is."""
    shown = [page for page in sorted(site.rglob("*.html")) if "source" not in page.relative_to(site).parts]
    found = [*shown, *sorted(site.glob("source/**/*.ipynb.html")), *sorted(site.glob("source/**/*.md.html"))]
    assert len(found) > 70
    return [page for page in found if page.name != "404.html"]  # its links hold only where the site is served


@cache
def anchors(page):
    return set(_ANCHOR.findall(page.read_text(encoding="utf-8")))


def broken(page):
    """The links and pictures of a page that lead to no file of the site, or to no such place in it."""
    html = _SCRIPT.sub("", page.read_text(encoding="utf-8"))
    for target in sorted({unescape(found) for found in _TARGET.findall(html)}):
        parts = urlsplit(target)
        if parts.scheme or parts.netloc or target in ("", "."):
            continue
        path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        path = path / "index.html" if path.is_dir() else path
        if not path.is_file():
            yield f"{page}: {target} leads to nothing"
        elif path.suffix == ".html" and parts.fragment and unquote(parts.fragment) not in anchors(path):
            yield f"{page}: {target} leads to no place on that page"


def test_every_link_of_the_site_leads_to_its_place(pages):
    assert [line for page in pages for line in broken(page)] == []


def test_formulas_stand_within_their_sentences(pages):
    """A formula at the beginning of a line would be taken for a block, and end its paragraph."""
    texts = {page.name: page.read_text(encoding="utf-8") for page in pages if page.name.endswith(".ipynb.html")}
    assert len(texts) > 15
    sentences = {
        name: re.findall(r"<(?:p|li|td)\b[^>]*>(.*?)</(?:p|li|td)>", text, re.DOTALL) for name, text in texts.items()
    }
    within = {name: sum(one.count("<math") for one in found) for name, found in sentences.items()}
    assert within == {name: text.count("<math") - text.count('display="block"') for name, text in texts.items()}
    assert sum(within.values()) > 100


CUT = "article .highlight:not(.highlighttable) code, article .md-typeset__scrollwrap"
"""Blocks of code and tables. Files that are shown with line numbers scroll."""

SEEN = f"""(() => {{
    const cut = Array.from(document.querySelectorAll("{CUT}")).filter((one) => one.scrollWidth > one.clientWidth + 1);
    return {{
        width: document.documentElement.scrollWidth,
        height: document.documentElement.scrollHeight,
        cut: cut.filter((one) => one.clientWidth).map((one) => one.textContent.trim().slice(0, 60)),
        dead: Array.from(document.images).filter((one) => !one.naturalWidth).map((one) => one.src),
    }};
}})()"""


@pytest.mark.parametrize("width", [PHONE, LAPTOP])
def test_every_page_fits_the_screen(chromium, pages, width):
    """Nothing but code and tables, and these on a phone alone, has to be scrolled sideways; every picture is there."""
    problems = []
    for page in pages:
        chromium.visit(page, width)
        found = chromium.run(SEEN)
        is_clipped = width == LAPTOP and (found["cut"] or found["height"] > MOST_PIXELS)
        if found["width"] > width or found["dead"] or is_clipped:
            problems.append((page.name, found))
    assert problems == []


@pytest.mark.parametrize(("scheme", "body", "shown"), [("light", "default", "light"), ("dark", "slate", "dark")])
def test_the_site_is_as_light_as_the_readers_system(chromium, site, scheme, body, shown):
    chromium.visit(site / "index.html", LAPTOP, scheme)
    assert chromium.run("document.body.dataset.mdColorScheme") == body
    pictures = chromium.run("Array.from(document.images).filter((one) => one.clientWidth).map((one) => one.src)")
    assert [re.search(r"-(light|dark)\.svg", picture)[1] for picture in pictures] == [shown]


COMES_TRUE = """new Promise((done) => {{
    let tries = 2400; // a minute: a page of the site makes its search index when it is first searched
    const look = () => ({0}) || !tries-- ? done({0}) : setTimeout(look, 25);
    look();
}})"""


def test_a_system_that_turns_dark_turns_an_open_page_dark(chromium, site):
    """The scheme of the first visit is not kept for ever, though the site remembers it."""
    for scheme, body in [("light", "default"), ("dark", "slate")]:
        chromium.visit(site / "index.html", LAPTOP, scheme)
        assert chromium.run(COMES_TRUE.format("Object.keys(localStorage).some((key) => key.endsWith('__palette'))"))
        assert chromium.run(COMES_TRUE.format(f"document.body.dataset.mdColorScheme === '{body}'"))
    chromium.prefer("light")
    assert chromium.run(COMES_TRUE.format("document.body.dataset.mdColorScheme === 'default'"))


SEARCHED = {
    "perplexity": "concepts/number-formats.html",
    "inverse RoPE": "concepts/rope-windows-sinks.html",
    "200k context": "cost.html",
    "quantization error": "concepts/number-formats.html",
    "KV cache size": "cost.html",
    "visibility rule": "concepts/csa.html",
}
"""What people type into the search, and a page that should be among the first three."""


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(site):
    """The site over HTTP: the search does not work from files."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SilentHandler, directory=str(site))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("words", SEARCHED)
def test_what_people_search_for_is_found_first(chromium, address, words):
    found = "Array.from(document.querySelectorAll('.md-search-result__item > a.md-search-result__link'))"
    chromium.visit(f"{address}/index.html?q={quote(words)}")
    assert chromium.run(COMES_TRUE.format(f"{found}.length > 0")), "nothing found"
    pages = list(dict.fromkeys(chromium.run(f"{found}.map((one) => one.pathname.slice(1))")))
    assert SEARCHED[words] in pages[:3]
