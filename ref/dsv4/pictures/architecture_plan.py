"""The architecture picture: where each box stands, how the lines run, and the drawing itself."""

from collections.abc import Callable
from typing import NamedTuple

from dsv4.pictures.architecture import BOXES, Box
from dsv4.pictures.svg import Drawing, Hue, Theme

HEIGHT = 1036

STREAMS = (66, 84, 102, 120)
"""Where the four streams run down."""

COLUMNS = (196, 384, 574, 762)
"""Where the four columns of boxes begin."""

BOX_WIDTH = 176
BOX_HEIGHT = 50

DESCRIPTION = (
    "From top to bottom: tokens, the embedding, and n residual streams that run through L blocks. In a block, "
    "attention reads a weighted sum of the streams (mHC read) and has three branches: window keys; the query latent, "
    "which makes the queries; and the compressor, which makes entries, of which the lightning indexer picks some in "
    "CSA layers. "
    "Window keys, entries and a sink share one softmax; its output is turned back by inverse RoPE, projected in groups "
    "and written back to the streams (mHC write). Then the streams feed the experts in the same way: a gate chooses "
    "routed experts, and a shared expert always answers. At the end the head gives the next token, and the MTP module "
    "drafts the one after it. Each box names its source file."
)


class Place(NamedTuple):
    """Where a box stands."""

    x: float
    y: float
    width: float = BOX_WIDTH
    height: float = BOX_HEIGHT


Detail = Callable[[Drawing, Place], None]
"""Draws what else is on a box."""


def _left(y: float) -> Place:
    """A box on the streams."""
    return Place(10, y, 164)


def _column(number: int, y: float, columns: int = 1) -> Place:
    """A box in one column or over several."""
    last = COLUMNS[number + columns - 1] + BOX_WIDTH
    return Place(COLUMNS[number], y, last - COLUMNS[number])


PLACES: dict[str, Place] = {
    "tokens": _left(20),
    "embedding": _left(92),
    "attention read": _left(204),
    "attention norm": Place(COLUMNS[0], 212, 742, 34),
    "window keys": _column(0, 274),
    "query latent": _column(1, 274),
    "compressor": _column(2, 274, 2),
    "index queries": Place(418, 384, 156),
    "top-k": Place(596, 384, 140),
    "index keys": Place(755, 384, 156),
    "queries": _column(1, 470),
    "entries": _column(2, 470, 2),
    "softmax": Place(COLUMNS[0], 548, 554, 60),
    "sink": Place(COLUMNS[3], 548, BOX_WIDTH, 60),
    "inverse RoPE": _column(2, 636, 2),
    "output": _column(0, 636, 2),
    "attention write": _left(636),
    "experts read": _left(738),
    "experts norm": Place(COLUMNS[0], 746, 742, 34),
    "gate": _column(0, 808),
    "routed experts": _column(1, 808, 2),
    "shared expert": _column(3, 808),
    "experts write": _left(868),
    "head": _left(968),
    "next token": _column(0, 968),
    "mtp": _column(2, 968),
    "drafts": _column(3, 968),
}

ROUTES: dict[tuple[str, str], tuple[tuple[str, Hue], ...]] = {
    ("tokens", "embedding"): (("M93 70V91", "plain"),),
    ("attention read", "attention norm"): (("M174 229H195", "stream"),),
    ("attention norm", "window keys"): (("M284 246V273", "plain"),),
    ("attention norm", "query latent"): (("M472 246V273", "plain"),),
    ("attention norm", "compressor"): (("M756 246V273", "plain"),),
    ("window keys", "softmax"): (("M284 324V547", "window"),),
    ("query latent", "queries"): (("M396 324V469", "plain"),),
    ("query latent", "index queries"): (("M496 324V383", "plain"),),
    ("compressor", "index keys"): (("M836 324V383", "csa"),),
    ("compressor", "entries"): (("M925 324V469", "csa"), ("M933 324V469", "hca")),
    ("index queries", "top-k"): (("M574 409H595", "csa"),),
    ("index keys", "top-k"): (("M755 409H737", "csa"),),
    ("top-k", "entries"): (("M666 434V469", "csa"),),
    ("queries", "softmax"): (("M472 520V547", "plain"),),
    ("entries", "softmax"): (("M661 520V547", "csa"), ("M671 520V547", "hca")),
    ("sink", "softmax"): (("M762 578H751", "sink"),),
    ("softmax", "inverse RoPE"): (("M666 608V635", "plain"),),
    ("inverse RoPE", "output"): (("M574 661H561", "plain"),),
    ("output", "attention write"): (("M196 661H175", "plain"),),
    ("experts read", "experts norm"): (("M174 763H195", "stream"),),
    ("experts norm", "gate"): (("M284 780V807", "plain"),),
    ("experts norm", "routed experts"): (("M567 780V807", "plain"),),
    ("experts norm", "shared expert"): (("M850 780V807", "plain"),),
    ("gate", "routed experts"): (("M372 833H383", "plain"),),
    ("routed experts", "experts write"): (("M567 858V893H175", "plain"),),
    ("shared expert", "experts write"): (("M850 858V893H577", "plain"),),
    ("head", "next token"): (("M174 993H195", "stream"),),
    ("next token", "mtp"): (("M372 993H573", "plain"),),
    ("experts write", "mtp"): (("M66 944H662V967", "stream"),),
    ("mtp", "drafts"): (("M750 993H761", "plain"),),
}
"""The lines of each edge that is no stream, from the border of one box to that of the next."""

LEGEND: tuple[tuple[Hue, str, float], ...] = (
    ("stream", "residual streams, probability", 196),
    ("window", "window: the last w tokens", 466),
    ("sink", "sink: takes, gives nothing", 712),
    ("csa", "CSA: entries of 8 tokens, the best k", 196),
    ("hca", "HCA: entries of 128 tokens, all", 510),
)


def draw_architecture(theme: Theme) -> Drawing:
    """The architecture of DeepSeek-V4 with the source file of each part. Source: report §2, figure by this project."""
    title = "DeepSeek-V4: what happens to one token"
    drawing = Drawing("architecture", theme, HEIGHT, title, DESCRIPTION)
    _heading(drawing, title)
    _frames(drawing)
    _streams(drawing)
    for path, hue in (line for lines in ROUTES.values() for line in lines):
        colour = theme.faint if hue == "plain" else theme.hues[hue].line
        drawing.path(path, colour, 1.6 if hue == "plain" else 2.4, arrow=True)
    draw_sum(drawing, 567, 893)
    for name, box in BOXES.items():
        draw_box(drawing, box, PLACES[name], DETAILS.get(name))
    return drawing


def _heading(drawing: Drawing, title: str) -> None:
    """Title and legend."""
    theme = drawing.theme
    drawing.text(196, 44, title, 23, bold=True)
    words = "n = 4 streams; L = 43 blocks in Flash, 61 in Pro. Below each name: its file in ref/dsv4/."
    drawing.text(196, 70, words, 15)
    for number, (hue, words, x) in enumerate(LEGEND):
        y = 99 if number < 3 else 127
        shades = theme.hues[hue]
        drawing.rect(x, y - 12, 20, 14, drawing.hatch if hue == "sink" else shades.full, shades.line, 3)
        drawing.text(x + 28, y, words, 15)


def _frames(drawing: Drawing) -> None:
    """The block, and in it what belongs to attention, to its indexer, and to the experts."""
    theme = drawing.theme
    drawing.rect(4, 158, 952, 772, theme.paper, theme.faint, 14, 1, dashed=True)
    drawing.text(946, 151, "one block, L times", 15, "end", theme.faint)
    for name, y, height in (("Attention", 174, 522), ("Mixture of experts", 708, 210)):
        drawing.rect(184, y, 764, height, theme.panel, None, 12)
        drawing.text(196, y + 25, name, 17, bold=True)
    drawing.rect(408, 346, 509, 98, theme.paper, theme.hues["csa"].line, 10, 1.2, dashed=True)
    drawing.text(508, 371, "lightning indexer", 15, bold=True)
    drawing.text(684, 371, "only in CSA", 15, colour=theme.faint)


def _streams(drawing: Drawing) -> None:
    """The streams, from the embedding to the head."""
    theme = drawing.theme
    for x in STREAMS:
        drawing.path(f"M{x} 142V967", theme.hues["stream"].line, 3.2)


def draw_sum(drawing: Drawing, x: float, y: float) -> None:
    """Where two results are added."""
    theme = drawing.theme
    drawing.path(f"M{x - 9} {y}a9 9 0 1 1 18 0a9 9 0 1 1 -18 0z", theme.faint, 1.6, fill=theme.paper)
    drawing.path(f"M{x - 5} {y}h10M{x} {y - 5}v10", theme.faint, 1.6)


def draw_box(drawing: Drawing, box: Box, place: Place, detail: Detail | None) -> None:
    """One box: its name, and its file below, or beside where the box is flat; detail: what else is drawn on it."""
    theme = drawing.theme
    x, y, width, height = place
    shades = theme.hues[box.hue]
    file = box.file.removeprefix("ref/dsv4/")
    drawing.begin(f"{box.name}: {box.says} {box.file}")
    drawing.rect(x, y, width, height, shades.fill, shades.line, 8)
    if height < BOX_HEIGHT:
        drawing.text(x + 10, y + 22, box.name, 15.5, bold=True)
        drawing.text(x + width - 10, y + 22, file, anchor="end", colour=theme.faint, mono=True)
    else:
        drawing.text(x + 10, y + 21, box.name, 15.5, bold=True)
        drawing.text(x + 10, y + 41, file, colour=theme.faint, mono=True)
    if detail is not None:
        detail(drawing, place)
    drawing.end()


def _two_kinds(drawing: Drawing, place: Place, csa: str, hca: str) -> None:
    """What the two kinds of compressing layers do, one below the other at the right of a box."""
    kinds: tuple[tuple[Hue, str], ...] = (("csa", csa), ("hca", hca))
    for number, (hue, words) in enumerate(kinds):
        y = place.y + 4 + 22 * number
        shades = drawing.theme.hues[hue]
        drawing.rect(place.x + 188, y, place.width - 194, 20, shades.fill, shades.line, 5)
        drawing.text(place.x + 196, y + 15.2, words)


def _compressor(drawing: Drawing, place: Place) -> None:
    _two_kinds(drawing, place, "CSA: 8 → 1, step 4", "HCA: 128 → 1")


def _entries(drawing: Drawing, place: Place) -> None:
    _two_kinds(drawing, place, "CSA: the best k", "HCA: all")


def _softmax(drawing: Drawing, place: Place) -> None:
    """Shares that sum to one. How large they are differs from token to token: see `masks`."""
    theme, x, width = drawing.theme, place.x + 230, place.width - 246
    shares: tuple[tuple[Hue, float], ...] = (("window", 0.45), ("csa", 0.28), ("hca", 0.15), ("sink", 0.12))
    for hue, share in shares:
        fill = drawing.hatch if hue == "sink" else theme.hues[hue].full
        drawing.rect(x, place.y + 18, width * share, 24, fill, theme.paper, 2)
        x += width * share


def _gate(drawing: Drawing, place: Place) -> None:
    drawing.text(place.x + place.width - 10, place.y + 21, "hash or top-k", anchor="end", colour=drawing.theme.faint)


def draw_routed(drawing: Drawing, place: Place) -> None:
    """A few of many."""
    theme = drawing.theme
    for number in range(12):
        shades = theme.hues["expert"]
        fill = shades.full if number in (3, 8) else theme.panel
        x, y = place.x + 196 + 27 * (number % 6), place.y + 7 + 20 * (number // 6)
        drawing.rect(x, y, 20, 15, fill, shades.line, 3, 1)


def draw_sink(drawing: Drawing, place: Place) -> None:
    """The hatching of all that is the sink's, at the right of a box."""
    drawing.rect(place.x + 96, place.y + 8, place.width - 104, 17, drawing.hatch, None, 3)


DETAILS: dict[str, Detail] = {
    "compressor": _compressor,
    "entries": _entries,
    "softmax": _softmax,
    "gate": _gate,
    "routed experts": draw_routed,
    "sink": draw_sink,
}
"""What else is drawn on some boxes."""
