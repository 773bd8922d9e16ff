"""Writes the table of cache sizes in cost.md: python docs/cache_sizes.py"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "ref"))

from dsv4.cli.quantities import size_of  # noqa: E402
from dsv4.cost import cost, cost_of_v32  # noqa: E402
from dsv4.cost.memory import full_attention_bytes  # noqa: E402
from dsv4.presets import preset  # noqa: E402

PAGE = Path(__file__).with_name("cost.md")
BEGIN, END = "<!-- cache sizes: begin -->", "<!-- cache sizes: end -->"
CONTEXTS = {"4k": 4096, "16k": 16384, "64k": 65536, "200k": 200_000, "1M": 2**20}


def table() -> str:
    """The cache of one sequence of Flash and Pro by context, beside V3.2's and that of full attention."""
    lines = ["| context | tokens | Flash | full attention | Pro | full attention | V3.2 |"]
    lines += ["|---|---:|---:|---:|---:|---:|---:|"]
    for name, tokens in CONTEXTS.items():
        cells = [name, f"{tokens:,}"]
        for model in ("flash", "pro"):
            config = preset(model)
            full = full_attention_bytes(config.num_hidden_layers, tokens)
            packed = cost(config, tokens).cache_bytes
            cells += [f"{size_of(packed)} ({packed / full:.1%})", size_of(full)]
        cells.append(size_of(cost_of_v32(tokens).cache_bytes))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page() -> str:
    """The page with the table of today's code in its place."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
