"""The table of shapes as a page of Markdown, for one or several models side by side."""

from collections.abc import Iterator, Mapping

from dsv4.config import Config
from dsv4.parameters import Parameter, parameters
from dsv4.pictures.shapes import MEANINGS, TABLES, Row, Table, dimensions


def shapes_page(configs: Mapping[str, Config], length: int) -> str:
    """Every activation of a pass over `length` tokens, and the weights that make it, for each of the named models."""
    names = list(configs)
    sizes = [dimensions(config, length) for config in configs.values()]
    stored = [parameters(config) for config in configs.values()]
    parts = [_introduction(names, sizes, length)]
    for table in TABLES:
        heads = ["activation", "shape", *names, "weights", *(f"weights in {name}" for name in names), "stored as"]
        lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for row in table.rows:
            weights = [list(_weights(table, row, known)) for known in stored]
            lines.append(f"| {' | '.join(_cells(row, sizes, weights))} |")
        parts += [f"## {table.title}\n\n{table.says}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def find_weight(table: Table, name: str, known: Mapping[str, Parameter]) -> Parameter | None:
    """The parameter of this name in the first layer that has it, of those that the table is about; else None.

    known: what `parameters` gives; name: without that of the layer.
    """
    if table.place in ("model", "mtp"):
        return known.get(name if table.place == "model" else f"mtp.0.{name}")
    marks = {"CSA": "attn.indexer.wq_b.weight", "HCA": "attn.compressor.ape"}  # what a layer of this kind has
    for layer in _layers(known):
        if table.place == "HCA" and f"{layer}{marks['CSA']}" in known:
            continue
        if table.place in marks and f"{layer}{marks[table.place]}" not in known:
            continue
        if f"{layer}{name}" in known:
            return known[f"{layer}{name}"]
    return None


def _layers(known: Mapping[str, Parameter]) -> Iterator[str]:
    """The prefixes of the layers, in order."""
    number = 0
    while f"layers.{number}.attn_norm.weight" in known:
        yield f"layers.{number}."
        number += 1


def _weights(table: Table, row: Row, known: Mapping[str, Parameter]) -> Iterator[Parameter | None]:
    return (find_weight(table, name, known) for name in row.weights)


def _cells(row: Row, sizes: list[dict[str, int]], weights: list[list[Parameter | None]]) -> Iterator[str]:
    yield row.name
    yield f"`[{', '.join(row.shape)}]`"
    for size in sizes:
        yield _shape(tuple(size[axis] for axis in row.shape))
    yield "<br>".join(f"`{name}`" for name in row.weights)
    for found in weights:
        yield "<br>".join(_shape(weight.shape) if weight else "none" for weight in found)
    formats = [next((one.format for one in same if one), "") for same in zip(*weights, strict=True)]
    yield "<br>".join(formats)


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(str(size) for size in shape)}]"


def _introduction(names: list[str], sizes: list[dict[str, int]], length: int) -> str:
    lines = [f"| letter | what it is | {' | '.join(names)} |", "|---|---|" + "---:|" * len(names)]
    for letter, meaning in MEANINGS.items():
        lines.append(f"| `{letter}` | {meaning} | {' | '.join(str(size[letter]) for size in sizes)} |")
    return f"""# Shapes

Every tensor of a forward pass over a text of S = {length} tokens, in the order of the pass, with the weights that make
it. A batch puts one more axis in front of an activation. Weights have the names of the checkpoint, less the layer's,
and the formats in which they are released; a product with a weight `[out, in]` turns `in` channels into `out`.

This page is made from the code (`python docs/pictures.py`): the weights are those of
[`parameters`](../ref/dsv4/parameters.py), and tests compare the activations with those of a real pass.

""" + "\n".join(lines)
