"""One HTML file from the data of a pass: markup, style, scripts and numbers, and nothing that is fetched."""

import html
import json
import os
import re
from importlib.resources import files
from pathlib import Path

import dsv4
from dsv4.checkpoint.atomic import replacing
from dsv4.explain.data import page_data
from dsv4.explain.record import Record
from dsv4.model.language_model import LanguageModel
from dsv4.text.tokenizer import Tokenizer

SCRIPTS = (
    *("data", "words", "state", "marks", "text", "paint", "legend", "sentence", "lens", "strip", "parts"),
    *("attention", "indexer", "streams", "experts", "ends", "compare", "details", "engram", "tour", "keys", "main"),
)
"""The scripts in the order in which they stand in the page. They share one scope, so each may use those before it."""


def write_page(
    path: str | Path, model: LanguageModel, tokenizer: Tokenizer, record: Record, sources: str | None = None
) -> None:
    """Write the page of a pass; the file is there whole or not at all.

    sources: where links to concepts, notebooks and sources lead, the directory of a clone or the address of one;
    without it the clone that the package lies in, or else there are no links. Raises SettingError where the file cannot
    be written.
    """
    path = Path(path)
    with replacing(path) as temporary:
        temporary.write_text(page(model, tokenizer, record, _base(path, sources)), encoding="utf-8")


def page(model: LanguageModel, tokenizer: Tokenizer, record: Record, base: str | None = None) -> str:
    """The page as text. base: what a path in the repository is put behind to make a link; None for no links."""
    data, numbers = page_data(model, tokenizer, record)
    described = json.dumps(data | {"base": base}, ensure_ascii=False, separators=(",", ":"))
    begin = " ".join("".join(piece for _, piece in data["tokens"][:12]).split())
    parts = {
        "title": html.escape(f"One forward pass: {begin}"),
        "style": _asset("page.css"),
        "data": described.replace("<", "\\u003c"),  # no text can end the element that holds it
        "numbers": numbers,
        "scripts": "\n".join(_asset(f"{name}.js") for name in SCRIPTS),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return (files("dsv4.explain") / "assets" / name).read_text(encoding="utf-8")


def _base(path: Path, sources: str | None) -> str | None:
    """What links begin with: an address, or the way from the page to a directory."""
    if sources is not None and re.match(r"\w+://", sources):
        return sources.rstrip("/") + "/"
    clone = Path(sources) if sources is not None else Path(dsv4.__file__).parents[2]
    if sources is None and not (clone / "docs" / "concepts").is_dir():
        return None
    return Path(os.path.relpath(clone.resolve(), path.resolve().parent)).as_posix() + "/"
