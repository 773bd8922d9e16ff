"""A small writer of SVG: shapes, lines and text, in one of two themes, with the same bytes each time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

Anchor = Literal["start", "middle", "end"]

Hue = Literal["plain", "window", "csa", "hca", "stream", "sink", "expert"]
"""One hue for one idea in every picture: blue window, orange CSA, purple HCA, green streams, grey hatched sink."""

SANS = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"

WIDTH = 960
"""Of every picture, in its own units; a page shows it about as wide in pixels."""

SMALLEST = 14.5
"""The smallest size of text: 10 points where a picture is shown 900 pixels wide."""


@dataclass(frozen=True)
class Shades:
    """One hue in one theme: the fill of a box, the line around it, and the full colour of an amount."""

    fill: str
    line: str
    full: str


@dataclass(frozen=True)
class Theme:
    """The colours of a picture, after Okabe and Ito: hues that colour-blind readers tell apart."""

    name: Literal["light", "dark"]
    paper: str
    panel: str
    ink: str
    faint: str
    """Of text that is less important."""
    rule: str
    """Of thin lines that carry no meaning of their own."""
    hues: dict[Hue, Shades]

    def shade(self, hue: Hue, amount: float) -> str:
        """The colour of an amount from 0 to 1: from the fill of a hue to its full colour."""
        shades = self.hues[hue]
        ends = zip(_channels(shades.fill), _channels(shades.full), strict=True)
        return "#" + "".join(f"{round(low + (high - low) * amount):02x}" for low, high in ends)


LIGHT = Theme(
    name="light",
    paper="#ffffff",
    panel="#f6f7f8",
    ink="#1c2126",
    faint="#545c64",
    rule="#c9cfd5",
    hues={
        "plain": Shades("#ffffff", "#8b949e", "#545c64"),
        "window": Shades("#e3f0f9", "#0072b2", "#0072b2"),
        "csa": Shades("#fdf1d8", "#e69f00", "#e69f00"),
        "hca": Shades("#f8e9f1", "#a8487f", "#a8487f"),
        "stream": Shades("#e0f3ed", "#009e73", "#009e73"),
        "sink": Shades("#eceef0", "#7a828a", "#6a727a"),
        "expert": Shades("#ffffff", "#8b949e", "#545c64"),
    },
)

DARK = Theme(
    name="dark",
    paper="#0d1117",
    panel="#161b22",
    ink="#e9edf1",
    faint="#a3adb8",
    rule="#3a434d",
    hues={
        "plain": Shades("#21272f", "#77828e", "#a3adb8"),
        "window": Shades("#0f2d42", "#56b4e9", "#56b4e9"),
        "csa": Shades("#3a2b0c", "#e69f00", "#e69f00"),
        "hca": Shades("#3b2031", "#cc6fae", "#cc6fae"),
        "stream": Shades("#0c3328", "#009e73", "#009e73"),
        "sink": Shades("#2b3138", "#98a2ad", "#98a2ad"),
        "expert": Shades("#21272f", "#77828e", "#a3adb8"),
    },
)

THEMES = (LIGHT, DARK)

_WIDTHS = {
    0.3: "'\"IJijl′",
    0.35: " ,./:;\\|·",
    0.4: "()-[]ft⌊⌋",
    0.45: "!r",
    0.5: "*_`–",
    0.55: "?csz",
    0.6: "FLkvxyνλ",
    0.65: "$0123456789EPSTYabdeghnopqu{}σΣ√␣ρ",
    0.7: "ABCKRVXZ",
    0.75: "NU",
    0.8: "&DGHOQ",
    0.85: "#+<=>^w~×→←↑↓−≤≥⏎",
}
_WIDTH_OF = {character: width for width, characters in _WIDTHS.items() for character in characters}


def text_width(content: str, size: float, bold: bool = False, mono: bool = False) -> float:
    """How wide a text is at most in the fonts that a reader may have; that of DejaVu Sans, the widest, rounded up."""
    if mono:
        return 0.605 * size * len(content)
    return (1.17 if bold else 1) * size * sum(_WIDTH_OF.get(character, 1) for character in content)


@dataclass
class Drawing:
    """A picture that grows by what is drawn on it, from back to front.

    name: of its file, without ending; title and description: what it shows, for readers who do not see it.
    """

    name: str
    theme: Theme
    height: float
    title: str
    description: str
    _parts: list[str] = field(default_factory=list)

    def svg(self) -> str:
        """The whole file."""
        size = f'viewBox="0 0 {WIDTH} {_number(self.height)}" width="{WIDTH}" height="{_number(self.height)}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title desc"'
        words = f'<title id="title">{escape(self.title)}</title>\n<desc id="desc">{escape(self.description)}</desc>'
        paper = f'<rect width="{WIDTH}" height="{_number(self.height)}" rx="10" fill="{self.theme.paper}"/>'
        lines = [f'{head} font-family="{SANS}">', words, self._definitions(), paper, *self._parts, "</svg>"]
        return "\n".join(lines) + "\n"

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str,
        line: str | None = None,
        radius: float = 0,
        thickness: float = 1.5,
        dashed: bool = False,
    ) -> None:
        """A rectangle; fill: a colour, or `hatch`."""
        around = f' stroke="{line}" stroke-width="{_number(thickness)}"' if line else ""
        around += ' stroke-dasharray="5 4"' if dashed else ""
        corners = f' rx="{_number(radius)}"' if radius else ""
        place = f'x="{_number(x)}" y="{_number(y)}" width="{_number(width)}" height="{_number(height)}"'
        self._parts.append(f'<rect {place}{corners} fill="{fill}"{around}/>')

    def cells(self, cells: Sequence[tuple[float, float, float, float]], fill: str) -> None:
        """Many rectangles (x, y, width, height) of one colour, as one shape."""
        path = "".join(
            f"M{_number(x)} {_number(y)}h{_number(width)}v{_number(height)}h{_number(-width)}z"
            for x, y, width, height in cells
        )
        self._parts.append(f'<path d="{path}" fill="{fill}"/>')

    def path(
        self,
        path: str,
        line: str,
        thickness: float = 1.5,
        arrow: bool = False,
        fill: str = "none",
        dashed: bool = False,
    ) -> None:
        """A line along an SVG path; arrow: with a head at its end."""
        end = f' marker-end="url(#arrow{line[1:]})"' if arrow else ""
        end += ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(f'<path d="{path}" fill="{fill}" stroke="{line}" stroke-width="{_number(thickness)}"{end}/>')

    def text(
        self,
        x: float,
        y: float,
        content: str,
        size: float = SMALLEST,
        anchor: Anchor = "start",
        colour: str | None = None,
        bold: bool = False,
        mono: bool = False,
    ) -> None:
        """One line of text whose letters stand on y."""
        kind = ' font-weight="700"' if bold else ""
        kind += f" font-family={quoteattr(MONO)}" if mono else ""
        kind += f' text-anchor="{anchor}"' if anchor != "start" else ""
        place = f'x="{_number(x)}" y="{_number(y)}" font-size="{_number(size)}" fill="{colour or self.theme.ink}"'
        self._parts.append(f'<text {place}{kind} xml:space="preserve">{escape(content)}</text>')

    def begin(self, title: str) -> None:
        """What is drawn from here to `end` is one thing with this name, which a browser shows when it is pointed at."""
        self._parts.append(f"<g><title>{escape(title)}</title>")

    def end(self) -> None:
        """The end of what `begin` began."""
        self._parts.append("</g>")

    @property
    def hatch(self) -> str:
        """The fill of everything that is the sink's."""
        return "url(#hatch)"

    def _definitions(self) -> str:
        """The hatching, and an arrow head for each colour of lines."""
        sink = self.theme.hues["sink"]
        hatch = (
            f'<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
            f'<rect width="6" height="6" fill="{sink.fill}"/><rect width="2" height="6" fill="{sink.line}"/></pattern>'
        )
        drawn = "\n".join(self._parts)
        colours = dict.fromkeys([*(shades.line for shades in self.theme.hues.values()), self.theme.faint])
        arrows = "".join(
            f'<marker id="arrow{colour[1:]}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9" '
            f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>'
            for colour in colours
            if f"url(#arrow{colour[1:]})" in drawn
        )
        return f"<defs>{hatch if self.hatch in drawn else ''}{arrows}</defs>"


def one_line(token: str, longest: int) -> str:
    """The text of a token with signs for blanks and for what cannot be shown, cut after so many characters."""
    signs = {" ": "␣", "\n": "⏎"}
    shown = "".join(signs.get(character, character if character.isprintable() else "�") for character in token)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def _number(value: float) -> str:
    """A number with two digits behind the point at most, and never a negative zero."""
    written = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if written == "-0" else written


def _channels(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of "#rrggbb"."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
