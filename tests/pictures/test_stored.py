"""The pictures that lie in docs/ are those that the code draws, and the pages show each of them as they must."""

import re

import pytest

from pictures.stored import DOCS, NAMES, ROOT, SVGS, drawn, script

PAGES = {
    "architecture": ["index.md"],
    "architecture41": ["v41.md"],
    "mask-window": ["concepts/rope-windows-sinks.md"],
    "mask-csa": ["concepts/csa.md"],
    "mask-hca": ["concepts/hca.md"],
    "streams": ["concepts/hyper-connections.md"],
    "overlap": ["concepts/csa.md"],
    "cache": ["concepts/cache.md"],
    "stale-keys": ["report-and-code.md"],
}
"""Where each picture is shown."""

PICTURE = re.compile(
    r'<picture>\n  <source media="\(prefers-color-scheme: dark\)" srcset="([^"]+)-dark\.svg">\n'
    r'  <img alt="([^"]+)" src="([^"]+)-light\.svg">\n</picture>'
)


@pytest.mark.parametrize("path", [*SVGS, DOCS / "shapes.md"], ids=lambda path: path.name)
def test_the_stored_file_is_what_the_code_draws(path):
    assert path.read_text(encoding="utf-8") == drawn()[path], "run: python docs/pictures.py"


def test_the_script_writes_these_files_and_no_others_are_there():
    assert drawn().keys() == {*SVGS, DOCS / "shapes.md"}
    assert sorted((DOCS / "pictures").iterdir()) == sorted(SVGS)


def test_a_second_drawing_gives_the_same_bytes():
    assert script().files() == drawn()


@pytest.mark.parametrize("name", NAMES)
def test_pages_show_each_picture_for_light_and_dark_and_say_what_is_to_be_seen(name):
    for page in PAGES[name]:
        text = (DOCS / page).read_text(encoding="utf-8")
        found = {light: (dark, alt) for dark, alt, light in PICTURE.findall(text)}
        path = f"{'../' * page.count('/')}pictures/{name}"
        dark, alt = found[path]
        assert dark == path
        assert 60 < len(alt) < 400
        assert not set(alt) & set("[]()")


def test_no_page_has_a_picture_that_is_written_in_another_way():
    pages = [*DOCS.rglob("*.md"), ROOT / "README.md"]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert text.count("<picture") == len(PICTURE.findall(text)), page
        for dark, _, light in PICTURE.findall(text):
            assert (page.parent / f"{dark}-dark.svg").resolve() in SVGS
            assert (page.parent / f"{light}-light.svg").resolve() in SVGS
