"""The architecture picture of V4.1: as that of V4 in `architecture_plan`, with what has changed."""

from dsv4.pictures.architecture41 import BOXES41
from dsv4.pictures.architecture_plan import (
    BOX_WIDTH,
    COLUMNS,
    STREAMS,
    Detail,
    Place,
    draw_box,
    draw_routed,
    draw_sink,
    draw_sum,
)
from dsv4.pictures.svg import Drawing, Hue, Theme

HEIGHT = 1212

DESCRIPTION = (
    "From top to bottom: tokens, the embedding, and n residual streams that run through 40 blocks. Two blocks begin "
    "with an Engram: hashes of the last tokens name rows of a table, which are added to the streams. Attention reads "
    "a sum of the streams, weighted by what the sub-layer before has made. It has three branches: window keys; the "
    "query latent, which makes the queries; and in four layers the compressor, which makes entries and their index "
    "keys for all layers behind. Eight layers choose among the entries, the last four of them in a pool that layer 20"
    " has found. Window keys, chosen entries and a sink share one softmax; its output is turned back, projected and "
    "written to the streams. Then the experts read the streams in the same way. At the end the head gives the next "
    "token, and the stages of DSpark draft those after it. Each box names its source file."
)


def _left(y: float) -> Place:
    """A box on the streams."""
    return Place(10, y, 164)


PLACES: dict[str, Place] = {
    "tokens": _left(20),
    "embedding": _left(92),
    "engram": _left(208),
    "rows": Place(196, 208, 300),
    "hash": Place(532, 208, 406),
    "attention read": _left(312),
    "attention norm": Place(196, 320, 742, 34),
    "window keys": Place(196, 382, 190),
    "query latent": Place(394, 382, 190),
    "compressor": Place(592, 382, 346),
    "index queries": Place(408, 492, 170),
    "top-k": Place(594, 492, 160),
    "index keys": Place(766, 492, 160),
    "pool": Place(766, 562, 160),
    "queries": Place(394, 646, 190),
    "entries": Place(592, 646, 346),
    "softmax": Place(196, 724, 554, 60),
    "sink": Place(COLUMNS[3], 724, BOX_WIDTH, 60),
    "inverse RoPE": Place(COLUMNS[2], 812, 364),
    "output": Place(COLUMNS[0], 812, 364),
    "attention write": _left(812),
    "experts read": _left(914),
    "experts norm": Place(196, 922, 742, 34),
    "gate": Place(COLUMNS[0], 984),
    "routed experts": Place(COLUMNS[1], 984, 366),
    "shared expert": Place(COLUMNS[3], 984),
    "experts write": _left(1044),
    "head": _left(1144),
    "next token": Place(COLUMNS[0], 1144),
    "stages": Place(COLUMNS[2], 1144),
    "drafts": Place(COLUMNS[3], 1144),
}

ROUTES: dict[tuple[str, str], tuple[tuple[str, Hue], ...]] = {
    ("tokens", "embedding"): (("M93 70V91", "plain"),),
    ("tokens", "hash"): (("M174 45H180V167H735V207", "plain"),),
    ("hash", "rows"): (("M532 233H497", "plain"),),
    ("rows", "engram"): (("M196 233H175", "plain"),),
    ("attention read", "attention norm"): (("M174 337H195", "stream"),),
    ("attention norm", "window keys"): (("M291 354V381", "plain"),),
    ("attention norm", "query latent"): (("M489 354V381", "plain"),),
    ("attention norm", "compressor"): (("M765 354V381", "plain"),),
    ("window keys", "softmax"): (("M291 432V723", "window"),),
    ("query latent", "queries"): (("M397 432V645", "plain"),),
    ("query latent", "index queries"): (("M485 432V491", "plain"),),
    ("compressor", "index keys"): (("M845 432V491", "csa"),),
    ("compressor", "entries"): (("M935 432V645", "csa"),),
    ("index queries", "top-k"): (("M578 517H593", "csa"),),
    ("index keys", "top-k"): (("M766 517H755", "csa"),),
    ("index keys", "pool"): (("M845 542V561", "csa"),),
    ("pool", "top-k"): (("M766 587H710V543", "csa"),),
    ("top-k", "entries"): (("M640 542V645", "csa"),),
    ("queries", "softmax"): (("M489 696V723", "plain"),),
    ("entries", "softmax"): (("M666 696V723", "csa"),),
    ("sink", "softmax"): (("M762 754H751", "sink"),),
    ("softmax", "inverse RoPE"): (("M666 784V811", "plain"),),
    ("inverse RoPE", "output"): (("M574 837H561", "plain"),),
    ("output", "attention write"): (("M196 837H175", "plain"),),
    ("experts read", "experts norm"): (("M174 939H195", "stream"),),
    ("experts norm", "gate"): (("M284 956V983", "plain"),),
    ("experts norm", "routed experts"): (("M567 956V983", "plain"),),
    ("experts norm", "shared expert"): (("M850 956V983", "plain"),),
    ("gate", "routed experts"): (("M372 1009H383", "plain"),),
    ("routed experts", "experts write"): (("M567 1034V1069H175", "plain"),),
    ("shared expert", "experts write"): (("M850 1034V1069H577", "plain"),),
    ("head", "next token"): (("M174 1169H195", "stream"),),
    ("next token", "stages"): (("M372 1169H573", "plain"),),
    ("experts write", "stages"): (("M66 1120H662V1143", "stream"),),
    ("stages", "drafts"): (("M750 1169H761", "plain"),),
}
"""The lines of each edge that is no stream, from the border of one box to that of the next."""

HANDED_ON: dict[tuple[str, str], str] = {
    ("attention read", "experts read"): "M154 362V913",
    ("experts read", "head"): "M154 964V1143",
}
"""The lines along which weights go that the next sub-layer reads with."""

LEGEND: tuple[tuple[Hue, str, float, float], ...] = (
    ("stream", "residual streams, probability", 196, 99),
    ("window", "window: the last w tokens", 466, 99),
    ("sink", "sink: takes, gives nothing", 712, 99),
    ("csa", "entries of 1 or 2 tokens, the best k", 196, 127),
)


def draw_architecture41(theme: Theme) -> Drawing:
    """The architecture of DeepSeek-V4.1 with the source file of each part. Source: its report §2; by this project."""
    title = "DeepSeek-V4.1: what happens to one token"
    drawing = Drawing("architecture41", theme, HEIGHT, title, DESCRIPTION)
    _heading(drawing, title)
    _frames(drawing)
    for x in STREAMS:
        drawing.path(f"M{x} 142V1143", theme.hues["stream"].line, 3.2)
    for path in HANDED_ON.values():
        drawing.path(path, theme.hues["stream"].line, 2.4, arrow=True, dashed=True)
    for path, hue in (line for lines in ROUTES.values() for line in lines):
        colour = theme.faint if hue == "plain" else theme.hues[hue].line
        drawing.path(path, colour, 1.6 if hue == "plain" else 2.4, arrow=True)
    draw_sum(drawing, 567, 1069)
    for name, box in BOXES41.items():
        draw_box(drawing, box, PLACES[name], DETAILS.get(name))
    return drawing


def _heading(drawing: Drawing, title: str) -> None:
    """Title and legend."""
    theme = drawing.theme
    drawing.text(196, 44, title, 23, bold=True)
    drawing.text(196, 70, "n = 4 streams; L = 40 blocks in Flash. Below each name: its file in ref/dsv4/.", 15)
    for hue, words, x, y in LEGEND:
        shades = theme.hues[hue]
        drawing.rect(x, y - 12, 20, 14, drawing.hatch if hue == "sink" else shades.full, shades.line, 3)
        drawing.text(x + 28, y, words, 15)
    drawing.path("M510 122H534", theme.hues["stream"].line, 2.4, arrow=True, dashed=True)
    drawing.text(542, 127, "weights to read with, one sub-layer later", 15)


def _frames(drawing: Drawing) -> None:
    """The block, and in it what belongs to the Engram, to attention, to its indexer, and to the experts."""
    theme = drawing.theme
    drawing.rect(4, 158, 952, 948, theme.paper, theme.faint, 14, 1, dashed=True)
    drawing.text(946, 151, "one block, L times", 15, "end", theme.faint)
    panels = (("Engram", 176, 92), ("Attention", 282, 590), ("Mixture of experts", 884, 210))
    for name, y, height in panels:
        drawing.rect(184, y, 764, height, theme.panel, None, 12)
        drawing.text(196, y + 23, name, 17, bold=True)
    drawing.text(286, 199, "in layers 1 and 14", 15, colour=theme.faint)
    drawing.rect(402, 454, 528, 168, theme.paper, theme.hues["csa"].line, 10, 1.2, dashed=True)
    drawing.text(500, 479, "lightning indexer", 15, bold=True)
    drawing.text(664, 479, "in 8 layers", 15, colour=theme.faint)


def _at_right(words: str) -> Detail:
    """A detail: words at the right of a box, beside its name."""

    def draw(drawing: Drawing, place: Place) -> None:
        drawing.text(place.x + place.width - 10, place.y + 21, words, anchor="end", colour=drawing.theme.faint)

    return draw


def _softmax(drawing: Drawing, place: Place) -> None:
    """Shares that sum to one."""
    theme, x, width = drawing.theme, place.x + 230, place.width - 246
    shares: tuple[tuple[Hue, float], ...] = (("window", 0.45), ("csa", 0.43), ("sink", 0.12))
    for hue, share in shares:
        fill = drawing.hatch if hue == "sink" else theme.hues[hue].full
        drawing.rect(x, place.y + 18, width * share, 24, fill, theme.paper, 2)
        x += width * share


DETAILS: dict[str, Detail] = {
    "hash": _at_right("classes of 2, 3, 4 tokens"),
    "rows": _at_right("24 rows"),
    "compressor": _at_right("in 4 layers, for all behind"),
    "pool": _at_right("of layer 20"),
    "entries": _at_right("of the latest source"),
    "softmax": _softmax,
    "gate": _at_right("top-k"),
    "routed experts": draw_routed,
    "sink": draw_sink,
}
"""What else is drawn on some boxes."""
