"""What only the site has: a page of `dsv4 explain` to look at, and links that open the notebooks on a hosted server.

A page says where they belong by a line of its own, `<!-- site: sample -->` or `<!-- site: hosted notebooks -->`, which
readers of the repository do not see.
"""

import json
from functools import cache
from pathlib import Path
from urllib.parse import quote

import dsv4
from dsv4.explain import record
from dsv4.explain.page import page

SAMPLE = "sample.html"
"""Where the sample page lies on the site."""

MOST_BYTES = 2_000_000
"""The sample page may not be larger."""

TEXT = """\
PROSPERO.
You do look, my son, in a moved sort,
As if you were dismay'd: be cheerful, sir:
Our revels now are ended. These our actors,
As I foretold you, were all spirits and
Are melted into air, into thin air:
And, like the baseless fabric of this vision,
The cloud-capp'd towers, the gorgeous palaces,
The solemn temples, the great globe itself,
Yea, all which it inherit, shall dissolve,
And, like this insubstantial pageant faded,
Leave not a rack behind. We are such stuff
As dreams are made on; and our little life
Is rounded with a sleep.
"""
"""From *The Tempest*, the play that the bundled model has not read."""

SAMPLE_MARK, HOSTED_MARK = "<!-- site: sample -->", "<!-- site: hosted notebooks -->"


@cache
def sample() -> str:
    """The page of a pass of the bundled model over TEXT, without links to files, which the site has elsewhere.

    Raises ValueError where it is larger than a reader should have to load.
    """
    model, tokenizer = dsv4.load(backend="numpy"), dsv4.Tokenizer.from_file(dsv4.bundled_model())
    found = page(model, tokenizer, record(model, tokenizer.encode(TEXT)))
    if len(found.encode()) > MOST_BYTES:
        raise ValueError(f"{SAMPLE}: expected at most {MOST_BYTES:,} bytes, found {len(found.encode()):,}")
    return found


def put_in(markdown: str, way_to_root: str, repository: str | None, notebooks: Path) -> str:
    """A page with what belongs at its marks.

    way_to_root: from the page to the top of the site, "" or "../". repository: the address of the public repository,
    or None where there is none yet. notebooks: the directory with the notebooks.
    """
    link = f"[Open the sample page]({way_to_root}{SAMPLE}){{ .md-button }}"
    markdown = markdown.replace(SAMPLE_MARK, link)
    return markdown.replace(HOSTED_MARK, "" if repository is None else hosted(repository, notebooks))


def hosted(repository: str, notebooks: Path) -> str:
    """A list of links, one for each notebook, that open it on Binder, which needs nothing but the repository."""
    start = f"https://mybinder.org/v2/git/{quote(repository, safe='')}/HEAD?urlpath=lab/tree/notebooks/"
    files = sorted(notebooks.glob("[0-9]*.ipynb"))
    return "\n".join(f"- [{_title(file)}]({start}{quote(file.name)})" for file in files)


def _title(notebook: Path) -> str:
    """The first heading of a notebook."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    lines = (line for cell in cells if cell["cell_type"] == "markdown" for line in "".join(cell["source"]).splitlines())
    return next(line.lstrip("# ") for line in lines if line.startswith("# "))
