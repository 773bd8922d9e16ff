"""`dsv4 explain`: a pass over a text, as a page to look into."""

from pathlib import Path
from typing import Annotated

import typer

from dsv4.cli.app import AllowSpecial, BackendOption, FakeQuantOption, ModelOption, app, open_model, prompt_ids


@app.command(name="explain")
def explain_command(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The text to run the model over.")],
    model: ModelOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The HTML file to write.")] = Path("explain.html"),
    allow_special: AllowSpecial = False,
    sources: Annotated[
        str | None,
        typer.Option(
            "--sources",
            help="Where the page's links to docs, notebooks and code lead: the directory or web address of a clone.",
            show_default="the clone that dsv4 runs from, if any",
        ),
    ] = None,
    backend: BackendOption = "auto",
    fake_quant: FakeQuantOption = "auto",
) -> None:
    """Write a web page that shows a whole forward pass over a text, step by step.

    The page is one file that needs no network. Choose a token, a layer and a head, and see which parts of the text they
    read.
    """
    from dsv4.explain import record, write_page

    opened, tokenizer = open_model(model, backend, fake_quant)
    write_page(out, opened, tokenizer, record(opened, prompt_ids(tokenizer, text, allow_special)), sources)
    print(out)
