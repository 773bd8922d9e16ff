"""Which tokens an entry is made of, drawn: with overlap in CSA, without in HCA (report §2.3.1, §2.3.2)."""

from dsv4.config import CSA_RATIO, HCA_RATIO
from dsv4.pictures.svg import WIDTH, Drawing, Theme

LEFT = 110

BLOCKS = 5
"""So many blocks of tokens are drawn for CSA."""


def draw_overlap(theme: Theme) -> Drawing:
    """The slots of CSA's entries, which overlap by a block, and those of an HCA entry."""
    slots = 2 * CSA_RATIO
    title = "Which tokens an entry reads"
    description = (
        f"A row of {BLOCKS * CSA_RATIO} tokens in blocks of {CSA_RATIO}. Below it the entries of CSA: each has {slots} "
        f"slots, the {CSA_RATIO} tokens of the block before (left, through the first c of 2c channels) and the "
        f"{CSA_RATIO} of its own block (right, through the other c), so that the next entry begins {CSA_RATIO} tokens "
        f"on and every token is in two entries. Entry 0 has no block before it. Below, two entries of HCA, of "
        f"{HCA_RATIO} tokens each, side by side without overlap."
    )
    drawing = Drawing("overlap", theme, 596, title, description)
    drawing.text(16, 38, title, 21, bold=True)
    _csa(drawing)
    _hca(drawing)
    return drawing


def _csa(drawing: Drawing) -> None:
    """The tokens, and an entry for each block."""
    theme, count = drawing.theme, BLOCKS * CSA_RATIO
    shades = theme.hues["csa"]
    step = (WIDTH - LEFT - 16) / count
    words = f"CSA: one entry for every {CSA_RATIO} tokens, each made of {2 * CSA_RATIO}"
    drawing.text(16, 74, words, 16, bold=True)
    drawing.text(16, 121, "tokens")
    for token in range(count):
        plain = theme.hues["plain"]
        drawing.rect(LEFT + token * step + 1.5, 100, step - 3, 32, plain.fill, plain.line, 4, 1)
        drawing.text(LEFT + (token + 0.5) * step, 121, str(token), anchor="middle")
    for block in range(1, BLOCKS):
        x = LEFT + block * CSA_RATIO * step
        drawing.path(f"M{x:.2f} 92V386", theme.rule, 1.2, dashed=True)
    for entry in range(BLOCKS):
        y, own, width = 152 + 48 * entry, LEFT + entry * CSA_RATIO * step, CSA_RATIO * step
        drawing.text(16, y + 23, f"entry {entry}")
        if entry:
            drawing.rect(own - width + 2, y, width - 3, 36, shades.fill, shades.line, 5)
            drawing.text(own - width / 2, y + 23, "0 … c−1", anchor="middle")
        drawing.rect(own + 1, y, width - 3, 36, theme.shade("csa", 0.4), shades.line, 5)
        drawing.text(own + width / 2, y + 23, "c … 2c−1", anchor="middle")
    words = f"Left half: the {CSA_RATIO} tokens of the block before, through the first c channels. Right half: its own"
    drawing.text(16, 414, words, 15)
    words = f"{CSA_RATIO} tokens, through the other c. Entry 0 has no block before it. It can be read from token 3 on."
    drawing.text(16, 435, words, 15)


def _hca(drawing: Drawing) -> None:
    """Two entries, each of as many tokens as there are ticks above it."""
    theme = drawing.theme
    shades, blocks = theme.hues["hca"], 2
    step = (WIDTH - LEFT - 16) / (blocks * HCA_RATIO)
    drawing.text(16, 482, f"HCA: one entry for every {HCA_RATIO} tokens, without overlap", 16, bold=True)
    drawing.text(16, 516, "tokens")
    ticks = [(LEFT + token * step, 500, step * 0.55, 22) for token in range(blocks * HCA_RATIO)]
    drawing.cells(ticks, theme.hues["plain"].line)
    drawing.text(16, 559, "entries")
    for entry in range(blocks):
        x, width = LEFT + entry * HCA_RATIO * step, HCA_RATIO * step
        drawing.rect(x + 1, 536, width - 3, 36, shades.fill, shades.line, 5)
        first, last = entry * HCA_RATIO, (entry + 1) * HCA_RATIO - 1
        drawing.text(x + width / 2, 559, f"entry {entry}: tokens {first} … {last}", anchor="middle")
