"""What the build of the site adds: a page for each source file that a page links to, and what site_only.py makes.

Pages link to sources as they lie in the repository, so that the links work where the pages are read as files. On the
site each such link leads to the page that shows the file, or to the description in the API; notebooks and Markdown are
rendered (rendered.py), other files shown as they are. A link that leads to nothing, in the repository or on the site,
fails the build.
"""

import re
import sys
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).resolve().parent))

import links
import site_only
from rendered import SUFFIXES, rendered

SEARCH_BOOST = {"concepts/": 4.0, "api/": 0.3, "source/": 0.5}
"""How much a page counts in the search: who types "visibility rule" wants the concept first, then the API."""

_CODE_LINE = re.compile(r'id="(__codelineno-\d+-\d+)"')

_SHORT_CODE = re.compile(r"<code>(?=[^<\n]{1,24}</code>)")
"""Code of so few characters fits in a line of a phone, so it need not be broken: a line does not end with `--`."""


def on_files(files, config):
    """Add the sample page, and the pages that show sources, to those that lie in docs/."""
    files.append(File.generated(config, site_only.SAMPLE, content=site_only.sample()))
    pages = {file.src_uri: file.content_string for file in files.documentation_pages()}
    shown = {path for uri, content in pages.items() for path in _linked_sources(links.DOCS / uri, content)}
    while shown:
        path = shown.pop()
        uri = links.source_uri(path)
        if uri not in files.src_uris:
            content, more = _source_page(path)
            files.append(File.generated(config, uri, content=content))
            shown |= more
    return files


def on_nav(nav, files, **_):
    """Demand that every page of a source is built: a link to one that is left out would lead to nothing."""
    left_out = [file.src_uri for file in files if file.src_uri.startswith("source/") and file.inclusion.is_excluded()]
    if left_out:
        raise PluginError(f"pages that are linked to, but not built: {', '.join(left_out)}")
    return nav


def on_page_markdown(markdown, page, config, **_):
    """Lead links to sources to the pages that show them, show pictures as the site's scheme is, and fill the marks."""
    top = page.file.src_uri.partition("/")[0] + "/"
    if top in SEARCH_BOOST:
        page.meta.setdefault("search", {})["boost"] = SEARCH_BOOST[top]
    if top == "source/":
        return markdown
    markdown = _as_on_site(links.DOCS / page.file.src_uri, markdown)
    way_to_root = "../" * page.file.src_uri.count("/")
    markdown = site_only.put_in(markdown, way_to_root, config.repo_url, links.ROOT / "notebooks")
    return links.pictures_on_site(markdown)


def on_page_content(html, page, **_):
    """Let the build know of the anchors of code lines, so that it can check the links to them; mark short code."""
    page.present_anchor_ids |= set(_CODE_LINE.findall(html))
    return _SHORT_CODE.sub('<code class="short">', html)


def _as_on_site(path: Path, markdown: str) -> str:
    """The text of a page, with its links as they lead on the site."""
    api = links.api_pages()
    try:
        for link in reversed([link for link in links.links(markdown) if link.is_relative]):
            start, end = link.span
            markdown = markdown[:start] + links.on_site(path, link, api) + markdown[end:]
    except links.BrokenLinkError as error:
        raise PluginError(str(error)) from error
    return markdown


def _linked_sources(page: Path, markdown: str) -> set[Path]:
    """The files that a page links to and that the site does not have of itself, relative to the repository."""
    try:
        found = {links.resolve(page, link) for link in links.links(markdown) if link.is_relative}
    except links.BrokenLinkError as error:
        raise PluginError(str(error)) from error
    return {path.relative_to(links.ROOT) for path in found if not links.is_of_site(path)}


def _source_page(path: Path) -> tuple[str, set[Path]]:
    """The page that shows a file or the content of a directory, and the files that it links to."""
    file = links.ROOT / path
    if path.suffix in SUFFIXES:
        markdown = rendered(file)
        return f"---\nhide: [navigation]\n---\n{_as_on_site(file, markdown)}", _linked_sources(file, markdown)
    head = f"---\nsearch:\n  exclude: true\nhide: [navigation, toc]\n---\n# `{path.as_posix()}`\n\n"
    if file.is_dir():
        inside = sorted(one.relative_to(links.ROOT) for one in file.glob("*.py"))
        items = [f"- [`{one.name}`]({one.name}.md)" for one in inside]
        return head + "\n".join(items) + "\n", set(inside)
    language = {".py": "python", ".toml": "toml", ".yml": "yaml"}.get(path.suffix, "text")
    text = file.read_text(encoding="utf-8")
    return f'{head}~~~~~~ {{.{language} linenums="1"}}\n{text}~~~~~~\n', set()
