"""A picture as a reader has it: the shapes and texts of an SVG file, in the order in which they are drawn."""

import re
from dataclasses import dataclass
from xml.etree import ElementTree

from dsv4.pictures.svg import text_width

NAMESPACE = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Area:
    """A rectangle, or the room that a text takes at most."""

    left: float
    top: float
    right: float
    bottom: float
    colour: str
    order: int
    content: str = ""
    size: float = 0

    def holds(self, other: "Area", slack: float = 0.5) -> bool:
        return (
            self.left - slack <= other.left
            and other.right <= self.right + slack
            and self.top - slack <= other.top
            and other.bottom <= self.bottom + slack
        )

    def meets(self, other: "Area") -> bool:
        return (
            min(self.right, other.right) - max(self.left, other.left) > 0.5
            and min(self.bottom, other.bottom) - max(self.top, other.top) > 0.5
        )


@dataclass(frozen=True)
class Picture:
    """Everything that a file draws."""

    root: ElementTree.Element
    rects: list[Area]
    texts: list[Area]
    lines: list[Area]
    cells: dict[str, list[tuple[float, float, float, float]]]
    """The rectangles (x, y, width, height) of shapes of many cells, by colour."""

    @property
    def words(self) -> list[str]:
        return [text.content for text in self.texts]

    def ground(self, text: Area) -> Area:
        """The rectangle that a text stands on: the last one drawn before it that it meets."""
        return [rect for rect in self.rects if rect.order < text.order and rect.meets(text)][-1]


def read(svg: str) -> Picture:
    """Read what `Drawing.svg` writes. Raises ParseError for what is no XML."""
    root = ElementTree.fromstring(svg)
    rects, texts, lines = [], [], []
    cells: dict[str, list[tuple[float, float, float, float]]] = {}
    hidden = {element for definitions in root.iter(f"{NAMESPACE}defs") for element in definitions.iter()}
    for order, element in enumerate(element for element in root.iter() if element not in hidden):
        kind = element.tag.removeprefix(NAMESPACE)
        if kind == "rect":
            x, y, width, height = (float(element.get(name, "0")) for name in ("x", "y", "width", "height"))
            rects.append(Area(x, y, x + width, y + height, element.get("fill", ""), order))
        if kind == "text":
            texts.append(_text(element, order))
        if kind == "path" and element.get("stroke"):
            lines += _pieces(element.get("d", ""), order)
        if kind == "path" and not element.get("stroke"):
            cells.setdefault(element.get("fill", ""), []).extend(_cells(element.get("d", "")))
    return Picture(root, rects, texts, lines, cells)


def _text(element: ElementTree.Element, order: int) -> Area:
    x, y, size = (float(element.get(name, "0")) for name in ("x", "y", "font-size"))
    content = element.text or ""
    width = text_width(content, size, element.get("font-weight") == "700", "mono" in element.get("font-family", ""))
    left = x - {"start": 0, "middle": width / 2, "end": width}[element.get("text-anchor", "start")]
    return Area(left, y - 0.78 * size, left + width, y + 0.24 * size, element.get("fill", ""), order, content, size)


def _pieces(path: str, order: int) -> list[Area]:
    """The pieces of a path of straight horizontal and vertical lines; curves are left out."""
    if re.search(r"[ACacz]", path):
        return []
    found, x, y = [], 0.0, 0.0
    for command, arguments in re.findall(r"([MHVhv])([^MHVhv]*)", path):
        numbers = [float(number) for number in arguments.split()]
        old_x, old_y = x, y
        if command == "M":
            x, y = numbers
            continue
        if command in "Hh":
            x = numbers[0] + (old_x if command == "h" else 0)
        else:
            y = numbers[0] + (old_y if command == "v" else 0)
        left, top = min(old_x, x) - 0.8, min(old_y, y) - 0.8
        found.append(Area(left, top, max(old_x, x) + 0.8, max(old_y, y) + 0.8, "", order))
    return found


def _cells(path: str) -> list[tuple[float, float, float, float]]:
    number = r"(-?[\d.]+)"
    found = re.findall(rf"M{number} {number}h{number}v{number}h{number}z", path)
    return [(float(x), float(y), float(width), float(height)) for x, y, width, height, _ in found]


def luminance(colour: str) -> float:
    """The relative luminance of "#rrggbb", as WCAG 2 defines it."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
