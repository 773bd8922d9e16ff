"""The pictures of these pages, each for light and for dark surroundings, and the table of shapes.

What shows numbers of a forward pass is drawn from the bundled model, in float64 and without rounded activations, so
that every machine draws the same bytes; the choices by stale keys are stored results of the official code. After the
model, its tokenizer or the drawing has changed:

    python docs/pictures.py    # writes docs/pictures/*.svg and docs/shapes.md
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

import dsv4
from dsv4.checkpoint.atomic import replacing
from dsv4.checkpoint.config41_json import read_config41
from dsv4.config import LayerKind
from dsv4.pictures.architecture41_plan import draw_architecture41
from dsv4.pictures.architecture_plan import draw_architecture
from dsv4.pictures.cache import draw_cache
from dsv4.pictures.masks import draw_mask
from dsv4.pictures.overlap import draw_overlap
from dsv4.pictures.shapes_page import shapes_page
from dsv4.pictures.shares import Shares, attention_shares, first_layer
from dsv4.pictures.stale_keys import Choices, draw_stale_keys
from dsv4.pictures.streams import draw_streams, strongest_mixing
from dsv4.pictures.svg import THEMES, Drawing, Theme

DOCS = Path(__file__).resolve().parent
DATA = DOCS.parent / "tests" / "data"
CONFIGS = DATA / "configs"
V41 = DATA / "golden" / "v41_float"
"""A small model of V4.1, with what the official code makes of some texts."""

LENGTHS: dict[LayerKind, int] = {"SWA": 160, "CSA": 320, "HCA": 480}
"""How many tokens of the text the picture of each kind of layer shows: several windows, or several entries."""

CONTEXT, LENGTH = 1_000_000, 10_000
"""The tokens of the cache's picture, and those of the table of shapes."""

TEXT = """ARIEL.
Full fathom five thy father lies;
Of his bones are coral made;
Those are pearls that were his eyes:
Nothing of him that doth fade
But doth suffer a sea-change
Into something rich and strange.
Sea-nymphs hourly ring his knell.

CALIBAN.
Be not afeard; the isle is full of noises,
Sounds and sweet airs, that give delight and hurt not.
Sometimes a thousand twangling instruments
Will hum about mine ears, and sometime voices
That, if I then had waked after long sleep,
Will make me sleep again: and then, in dreaming,
The clouds methought would open and show riches
Ready to drop upon me that, when I waked,
I cried to dream again.

PROSPERO.
Our revels now are ended. These our actors,
As I foretold you, were all spirits, and
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
"""From The Tempest, which the bundled model has not read."""


def files() -> dict[Path, str]:
    """Every file that this script writes, and what belongs into it."""
    written = {DOCS / "shapes.md": shapes_page({"Flash": _config("flash"), "Pro": _config("pro")}, LENGTH)}
    for drawing in _drawings():
        written[DOCS / "pictures" / f"{drawing.name}-{drawing.theme.name}.svg"] = drawing.svg()
    return written


def _drawings() -> Iterator[Drawing]:
    """Every picture in both themes."""
    model = dsv4.load(backend="numpy", fake_quant="off", dtype=np.float64)
    tokenizer = dsv4.Tokenizer.from_file(dsv4.bundled_model())
    ids = tokenizer.encode(TEXT)
    tokens = [tokenizer.decode([token]) for token in ids]
    shares = [attention_shares(model, ids[:most], first_layer(model, kind)) for kind, most in LENGTHS.items()]
    mixing = strongest_mixing(model, ids)
    for theme in THEMES:
        yield draw_architecture(theme)
        yield draw_architecture41(theme)
        yield from (_mask(one, tokens, theme) for one in shares)
        yield draw_streams(mixing, tokens[mixing.position], theme)
        yield draw_overlap(theme)
        yield draw_cache(_config("flash"), CONTEXT, "V4-Flash", theme)
        yield draw_stale_keys(stale_choices(), theme)


def stale_choices() -> Choices:
    """What the first source of the small V4.1 chose while its second text was decoded, as the official code has it."""
    config, results = read_config41(V41 / "config.json"), load_file(V41 / "expected.safetensors")
    layer, *_, last = config.kv_source_layer_ids
    own, released = (
        results[f"p1.{decode}.layers.{layer}.attn.indexer.topk"] for decode in ("decode", "decode.released")
    )
    return Choices(layer, last, config.compress_ratios[layer], int(results["p1.length"][0]), own, released)


def _mask(shares: Shares, tokens: list[str], theme: Theme) -> Drawing:
    return draw_mask(shares, tokens[: len(shares.sink)], theme)


def _config(size: str) -> dsv4.Config:
    """The configuration of Flash or Pro."""
    return dsv4.read_config(CONFIGS / f"deepseek-v4-{size}.json")


if __name__ == "__main__":
    (DOCS / "pictures").mkdir(exist_ok=True)
    for path, content in files().items():
        with replacing(path) as temporary:
            temporary.write_text(content, encoding="utf-8", newline="\n")
