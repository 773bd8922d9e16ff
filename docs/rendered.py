"""Notebooks and other pages of the repository outside docs/, as Markdown that the site can show.

A notebook becomes what a reader of it sees: its text, its code, folded where the notebook folds it, and its outputs.
Formulas become MathML, which browsers draw by themselves: the site loads nothing from elsewhere.
"""

import json
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

SUFFIXES = (".md", ".ipynb")
"""Files that are rendered; others are shown as they are."""

FOLDED = "hide-input"
"""The tag of a cell whose code is folded."""

_CODE_OR_FORMULA = re.compile(
    r"(?P<code>^(?P<fence>```+|~~~+).*?^(?P=fence) *$|`[^`\n]+`)|\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$]+?)\$",
    re.MULTILINE | re.DOTALL,
)


def rendered(path: Path) -> str:
    """The Markdown of a file with one of SUFFIXES, with its links as they stand in the file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    return "\n\n".join(part for cell in json.loads(text)["cells"] for part in _cell(cell))


def _cell(cell: dict[str, Any]) -> list[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return [_prose(source)]
    code = _fenced(source, "python")
    if FOLDED in cell["metadata"].get("tags", []):
        code = f'<details markdown="1"><summary>Code</summary>\n\n{code}\n\n</details>'
    return [code, *map(_output, cell["outputs"])]


def _output(output: dict[str, Any]) -> str:
    """What a cell has printed or displayed, in the form that shows most of it."""
    if output["output_type"] == "stream":
        return _fenced("".join(output["text"]), "text")
    data = output["data"]
    if "text/html" in data:
        return f"<div>{''.join(data['text/html'])}</div>"
    if "text/markdown" in data:
        return f'<div class="output" markdown="1">\n\n{_prose("".join(data["text/markdown"]))}\n\n</div>'
    return _fenced("".join(data["text/plain"]), "text")


def _fenced(text: str, language: str) -> str:
    return f"~~~~~~ {language}\n{text.rstrip()}\n~~~~~~"


def _prose(markdown: str) -> str:
    """Formulas as MathML; what stands in a fold is Markdown, too."""
    without_samp = re.sub(r"^</?samp>$", "", markdown, flags=re.MULTILINE)
    return _CODE_OR_FORMULA.sub(_formula, without_samp).replace("<details>", '<details markdown="1">')


def _formula(match: re.Match[str]) -> str:
    if match["code"]:
        return match["code"]
    if match["block"]:
        return f"\n\n<div class='formula'>{convert(match['block'], display='block')}</div>\n\n"
    formula = re.sub(r"[*_]", lambda mark: f"&#{ord(mark[0])};", convert(match["inline"]))
    return f"<span>{formula}</span>"  # <math> at the beginning of a line would end the paragraph
