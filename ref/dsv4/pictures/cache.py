"""What a text leaves in the cache, drawn: rows and bytes of each part, for each kind of layer (report §3.6.1)."""

from collections import Counter
from dataclasses import dataclass, replace

from dsv4.config import CSA_RATIO, LAYER_KINDS, Config, LayerKind
from dsv4.cost import CacheFormat, cost
from dsv4.pictures.svg import WIDTH, Drawing, Hue, Theme

LEFT, RIGHT = 176, 604
"""Where a text begins and ends."""

ROW = 38


@dataclass(frozen=True)
class CachePart:
    """One part of what one layer keeps of a sequence: so many rows, and their bytes."""

    name: str
    rows: int
    nbytes: int


def cache_parts(config: Config, context: int, cache_format: CacheFormat = "packed") -> dict[LayerKind, list[CachePart]]:
    """What one layer of each kind of a model keeps of a sequence of `context` tokens, by kind, in the order of ratios.

    Bytes are those of `dsv4.cost`. Raises SettingError for a context below 1.
    """
    found = {}
    for ratio in sorted(set(config.compress_ratios[: config.num_hidden_layers])):
        layer = replace(
            config, num_hidden_layers=1, num_hash_layers=0, num_nextn_predict_layers=0, compress_ratios=(ratio,)
        )
        nbytes = cost(layer, context, cache_format).cache
        rows = {"window": min(context, config.sliding_window)}
        if ratio:
            rows["compressed"] = context // ratio
            rows["pending"] = context % ratio
        if ratio == CSA_RATIO:
            rows["indexer keys"] = context // ratio
            rows["pending"] = min(context, context % ratio + ratio)  # the block before waits, too
        found[LAYER_KINDS[ratio]] = [CachePart(name, rows[name], nbytes[name]) for name in nbytes if name in rows]
    return found


NAMES: dict[LayerKind, str] = {"SWA": "Window only", "CSA": "CSA", "HCA": "HCA"}

HUES: dict[LayerKind, Hue] = {"SWA": "window", "CSA": "csa", "HCA": "hca"}

LABELS = {"window": "window", "compressed": "entries", "indexer keys": "indexer keys", "pending": "pending"}


def draw_cache(config: Config, context: int, model_name: str, theme: Theme) -> Drawing:
    """The packed cache of one sequence at a glance. context: its tokens; model_name: as the title gives it."""
    parts = cache_parts(config, context)
    kinds = Counter(config.layer_kind(layer) for layer in range(config.num_hidden_layers))
    title = f"The cache of {model_name} after {context:,} tokens"
    height = 106 + sum(44 + ROW * len(rows) for rows in parts.values()) + 92
    drawing = Drawing("cache", theme, height, title, _description(parts, kinds, title))
    drawing.text(16, 38, title, 21, bold=True)
    words = "Rows and bytes of one layer of each kind; the window is a ring. Left to right: the text, not to scale."
    drawing.text(16, 64, words, 15)
    drawing.text(LEFT, 96, "first token", colour=theme.faint)
    drawing.text(RIGHT, 96, "last token", anchor="end", colour=theme.faint)
    drawing.text(WIDTH - 134, 96, "rows × bytes of a row", anchor="end", colour=theme.faint)
    drawing.text(WIDTH - 20, 96, "together", anchor="end", colour=theme.faint)
    y: float = 106
    for kind, rows in parts.items():
        _frame(drawing, kind, kinds[kind], y, 36 + ROW * len(rows))
        for number, part in enumerate(rows):
            _part(drawing, kind, part, y + 30 + ROW * number)
        y += 44 + ROW * len(rows)
    _whole(drawing, parts, kinds, y + 8)
    return drawing


def _frame(drawing: Drawing, kind: LayerKind, layers: int, y: float, height: float) -> None:
    drawing.rect(8, y, WIDTH - 16, height, drawing.theme.panel, None, 10)
    drawing.text(20, y + 23, NAMES[kind], 16, bold=True)
    number = f"{layers} layer{'s' if layers > 1 else ''}"
    drawing.text(LEFT, y + 23, number, colour=drawing.theme.faint)


def _part(drawing: Drawing, kind: LayerKind, part: CachePart, y: float) -> None:
    """Where in the text the rows of a part come from, how many they are, and what they take."""
    theme = drawing.theme
    hue: Hue = "window" if part.name == "window" else "plain" if part.name == "pending" else HUES[kind]
    shades = theme.hues[hue]
    drawing.text(20, y + 20, LABELS[part.name])
    drawing.path(f"M{LEFT} {y + 15}H{RIGHT}", theme.rule, 1.2)
    if part.name == "window":
        _cells(drawing, RIGHT - 78, y + 4, 78, 12, shades.full)
        _ring(drawing, RIGHT + 24, y + 15)
    elif part.name == "pending":
        if part.rows:
            drawing.rect(RIGHT - 22, y + 4, 22, 22, shades.fill, shades.line, 3, dashed=True)
    else:
        thin = part.name == "indexer keys"
        count = 61 if kind == "CSA" else 12
        fill = theme.shade(hue, 0.45) if thin else shades.full
        _cells(drawing, LEFT, y + (10 if thin else 4), RIGHT - 26 - LEFT, count, fill, 10 if thin else 22)
    if part.rows:
        drawing.text(WIDTH - 134, y + 20, f"{part.rows:,} × {part.nbytes // part.rows:,} B", anchor="end")
    else:
        drawing.text(WIDTH - 134, y + 20, "none now", anchor="end", colour=theme.faint)
    drawing.text(WIDTH - 20, y + 20, _megabytes(part.nbytes), anchor="end", bold=True)


def _cells(drawing: Drawing, x: float, y: float, width: float, count: int, fill: str, height: float = 22) -> None:
    step = width / count
    drawing.cells([(x + number * step, y, step - 2, height) for number in range(count)], fill)


def _ring(drawing: Drawing, x: float, y: float) -> None:
    """The window is a ring: a new row takes the place of the oldest."""
    line = drawing.theme.hues["window"].line
    drawing.path(f"M{x + 9} {y - 3}A9.5 9.5 0 1 1 {x + 3} {y - 9}", line, 2, arrow=True)


def _whole(drawing: Drawing, parts: dict[LayerKind, list[CachePart]], kinds: "Counter[LayerKind]", y: float) -> None:
    """All layers together: a bar with the share of each kind, which is to scale."""
    theme = drawing.theme
    sums = {kind: kinds[kind] * sum(part.nbytes for part in rows) for kind, rows in parts.items()}
    total = sum(sums.values())
    drawing.text(16, y + 18, "All layers", 16, bold=True)
    drawing.text(WIDTH - 20, y + 18, _megabytes(total), 16, "end", bold=True)
    x, room = float(LEFT), WIDTH - 160 - LEFT
    drawing.rect(LEFT, y + 2, room, 22, theme.panel)
    for kind, nbytes in sums.items():
        width = room * nbytes / total
        drawing.rect(x, y + 2, width, 22, theme.hues[HUES[kind]].full)
        x += width
    words = ", ".join(f"{NAMES[kind]} {_percent(nbytes / total)}" for kind, nbytes in sums.items())
    drawing.text(LEFT, y + 48, words)


def _megabytes(count: int) -> str:
    """One unit for all, so that they can be compared."""
    return f"{count / 1e6:,.2f} MB"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "under 0.1 %"


def _description(parts: dict[LayerKind, list[CachePart]], kinds: "Counter[LayerKind]", title: str) -> str:
    lines = []
    for kind, rows in parts.items():
        kept = ", ".join(f"{part.rows:,} rows of {LABELS[part.name]} ({_megabytes(part.nbytes)})" for part in rows)
        lines.append(f"Each of the {kinds[kind]} layers of kind {NAMES[kind]} keeps {kept}.")
    return " ".join([f"{title}.", *lines])
