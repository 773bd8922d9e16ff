"""`dsv4 inspect`, `dsv4 convert` and `dsv4 random`: what a checkpoint holds, and writing one."""

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from dsv4.checkpoint import Checkpoint, Checkpoint41, open_checkpoint, read_any_config
from dsv4.checkpoint.convert import COPIED_FILES, Storage, convert
from dsv4.checkpoint.random_weights import SHARD_BYTES, smaller, write_random
from dsv4.checkpoint.smaller41 import smaller41
from dsv4.checkpoint.writing import DEFAULT_SHARD_BYTES
from dsv4.cli.app import JsonOption, app
from dsv4.cli.ending import say
from dsv4.cli.progress import progress
from dsv4.cli.quantities import short, size_of
from dsv4.config import Config
from dsv4.config41 import Config41
from dsv4.errors import SettingError
from dsv4.loading import bundled_model
from dsv4.parameters import Parameter, count_parameters, parameters, summed
from dsv4.parameters41 import count_by_part41, parameters41
from dsv4.presets import PRESETS, preset

Stored = tuple[Parameter, str, int]
"""A parameter, the format it is stored in, and its bytes with those of its scales."""


@app.command()
def inspect(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL",
            help="Directory of a checkpoint, a config.json, or flash, pro, flash-0731, pro-0813 or v4.1.",
            show_default="the bundled model",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a model's layers, parameters, formats and bytes. No weights are read.

    For a config.json without weights, or the name of a preset, formats and bytes are those of a released checkpoint.
    """
    path = model or bundled_model()
    config: Config | Config41
    left_out: dict[str, Any] = {}
    if path.is_file() or _is_preset(path):
        config = preset(str(path)) if _is_preset(path) else read_any_config(path)
        table = parameters41(config) if isinstance(config, Config41) else parameters(config)
        tensors = [_released(parameter) for parameter in table.values()]
    else:
        checkpoint = open_checkpoint(path)
        checkpoint.validate()
        config = checkpoint.config
        tensors = [_stored(checkpoint, parameter) for parameter in checkpoint.parameters.values()]
        sizes = [entry.size for entry in checkpoint.left_out.values()]
        left_out = {"tensors": len(sizes), "bytes": sum(sizes)}
    report = _report(path, config, tensors)
    if left_out.get("tensors"):
        report["left_out"] = left_out
    if as_json:
        print(json.dumps(report, indent=1))
    else:
        _print_report(report)


@app.command(name="convert")
def convert_command(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Directory of a checkpoint.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Directory to write, new or empty.")],
    to: Annotated[str, typer.Option("--to", help="released (FP4, FP8, bf16), float32 or bfloat16.")] = "released",
    max_shard_bytes: Annotated[
        int, typer.Option("--max-shard-bytes", help="The largest size of a file.", min=1)
    ] = DEFAULT_SHARD_BYTES,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace a checkpoint that dsv4 wrote to the target earlier. A directory with other files, or with "
            "files that were changed since, is never replaced.",
        ),
    ] = False,
) -> None:
    """Convert a checkpoint to another format, and copy its tokenizer.

    The target appears only when it is complete. If the conversion fails, nothing is changed there.
    """
    storage = next((known for known in get_args(Storage) if known == to), None)
    if storage is None:
        raise SettingError(f"--to: expected one of {', '.join(get_args(Storage))}, found {to}")
    with progress("converting") as report:
        convert(source, target, storage, max_shard_bytes, report, overwrite)
    _say_what_was_written(target)


@app.command(name="random")
def random_command(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG",
            help="A config.json, the directory of a checkpoint, or flash, pro, flash-0731, pro-0813 or v4.1.",
        ),
    ],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Directory to write, new or empty.")],
    layers: Annotated[int | None, typer.Option("--layers", help="Only the first layers.", show_default="all")] = None,
    experts: Annotated[
        int | None, typer.Option("--experts", help="Routed experts of each layer.", show_default="all")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", "-s", min=0, help="The same seed gives the same weights.")] = 0,
    engram_vocab_size: Annotated[
        int | None,
        typer.Option(
            "--engram-vocab-size",
            help="V4.1: about the rows of an Engram table for each hash, 24 of them.",
            show_default="as CONFIG has it",
        ),
    ] = None,
    as_float: Annotated[bool, typer.Option("--float", help="Store float32, nothing quantised.")] = False,
    max_shard_bytes: Annotated[
        int, typer.Option("--max-shard-bytes", help="The largest size of a file.", min=1)
    ] = SHARD_BYTES,
) -> None:
    """Write a checkpoint of random weights, of any configuration, in the released formats.

    With `dsv4 verify --save` it makes a test case of real shapes. A tokenizer beside config.json is copied.
    """
    whole = preset(str(config)) if _is_preset(config) else read_any_config(config)
    wanted: Config | Config41
    if isinstance(whole, Config41):
        wanted = smaller41(whole, layers, experts, engram_vocab_size)
    elif engram_vocab_size is None:
        wanted = smaller(whole, layers, experts)
    else:
        raise SettingError(f"--engram-vocab-size: expected a model of V4.1, found one of V4 in {config}")
    if as_float:
        wanted = replace(wanted, quantised=False, torch_dtype="float32")
    beside = config if config.is_dir() else config.parent
    files = [beside / name for name in COPIED_FILES if not _is_preset(config) and (beside / name).is_file()]
    with progress("drawing") as report:
        write_random(target, wanted, seed, max_shard_bytes, files, report)
    _say_what_was_written(target)
    if isinstance(wanted, Config41) and wanted.engram and not (target / "tokenizer.json").exists():
        say(f"{config}: no tokenizer.json to copy: {target} needs one for its Engram, except in `dsv4 verify`")


def _say_what_was_written(target: Path) -> None:
    """How much there is now, in how many files."""
    sizes = [file.stat().st_size for file in target.glob("*.safetensors")]
    print(f"wrote {target}: {size_of(sum(sizes))} in {len(sizes)} file(s)")


def _is_preset(path: Path) -> bool:
    """Whether a path is the name of a released model; a path that exists comes before a name."""
    return str(path) in PRESETS and not os.path.lexists(path)


def _released(parameter: Parameter) -> Stored:
    """A parameter as a released checkpoint stores it."""
    return parameter, parameter.format, parameter.nbytes


def _stored(checkpoint: Checkpoint | Checkpoint41, parameter: Parameter) -> Stored:
    """A parameter as this checkpoint stores it."""
    entry = checkpoint.entries[parameter.name]
    scales = checkpoint.entries.get(parameter.scale_name)
    spelling = {"F8_E4M3": "fp8", "I8": "fp4", "U8": "fp4"}.get(entry.dtype, entry.dtype.lower())
    return parameter, spelling, entry.size + (scales.size if scales else 0)


def _report(path: Path, config: Config | Config41, tensors: list[Stored]) -> dict[str, Any]:
    count = summed(count_by_part41(config).values()) if isinstance(config, Config41) else count_parameters(config)
    by_part, by_format = _totals(tensors, lambda tensor: tensor[0].part), _totals(tensors, lambda tensor: tensor[1])
    by_place = _totals(tensors, lambda tensor: _place(tensor[0].name))
    formats: dict[str, set[str]] = {}
    for parameter, spelling, _ in tensors:
        formats.setdefault(_place(parameter.name), set()).add(spelling)
    layers = [
        {
            "layer": place,
            "attention": config.layer_kind(number),
            "routing": "hash" if isinstance(config, Config) and config.is_hash_layer(number) else "top-k",
            **({"engram": True} if isinstance(config, Config41) and config.is_engram_layer(number) else {}),
            "formats": sorted(formats[place]),
            **by_place[place],
        }
        for number, place in enumerate(place for place in by_place if place != "others")
    ]
    return {
        "path": str(path),
        "parameters": {"total": count.total, "active": count.active},
        "bytes": sum(size for _, _, size in tensors),
        "context": config.max_position_embeddings,
        "experts": {"routed": config.n_routed_experts, "active": config.num_experts_per_tok, "shared": 1},
        "drafter": _drafter(config, tensors),
        "layers": layers,
        "parts": by_part,
        "formats": by_format,
    }


def _drafter(config: Config | Config41, tensors: list[Stored]) -> dict[str, Any] | None:
    """What drafts tokens for the main model, and how many at once; None where there is nothing, or no weights of it."""
    if not any(parameter.part == "mtp" for parameter, _, _ in tensors):
        return None
    if config.dspark is None:
        return {"kind": "MTP", "layers": config.draft_layers, "tokens": 1}
    return {"kind": "DSpark", "layers": config.draft_layers, "tokens": config.dspark.block_size}


def _place(name: str) -> str:
    """Where a tensor belongs: "layers.0", "mtp.0", or "others" for what no layer owns."""
    first, second = name.split(".")[:2] if "." in name else (name, "")
    return f"{first}.{second}" if first in ("layers", "mtp") else "others"


def _totals(tensors: list[Stored], key: Callable[[Stored], str]) -> dict[str, dict[str, int]]:
    """The numbers and bytes of the tensors that share a key, tables of expert numbers included."""
    sizes: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    for tensor in tensors:
        sizes[key(tensor)] += tensor[0].size
        stored[key(tensor)] += tensor[2]
    return {name: {"numbers": sizes[name], "bytes": stored[name]} for name in sizes}


def _print_report(report: dict[str, Any]) -> None:
    experts = report["experts"]
    print(report["path"])
    print(f"{short(report['parameters']['total'])} parameters, {short(report['parameters']['active'])} active")
    print(f"{size_of(report['bytes'])}, context {report['context']:,} tokens")
    print(f"{experts['routed']} routed experts, {experts['active']} of them and 1 shared per token")
    if left_out := report.get("left_out"):
        tensors, size = left_out["tensors"], size_of(left_out["bytes"])
        print(f"not read: {tensors} tensors of the vision encoder, {size}; this is the text path")
    if drafter := report["drafter"]:
        print(f"drafts by {drafter['kind']}: layers {drafter['layers']}, tokens at once {drafter['tokens']}")
    print()
    print(f"{'layer':<12}{'attention':<11}{'routing':<9}{'numbers':>10}{'bytes':>12}  formats")
    for row in report["layers"]:
        numbers, size = short(row["numbers"]), size_of(row["bytes"])
        formats = " ".join(row["formats"]) + (", with Engram" if "engram" in row else "")
        print(f"{row['layer']:<12}{row['attention']:<11}{row['routing']:<9}{numbers:>10}{size:>12}  {formats}")
    for title in ("parts", "formats"):
        print(f"\n{title:<23}{'':<9}{'numbers':>10}{'bytes':>12}")
        for name, row in report[title].items():
            print(f"{name:<32}{short(row['numbers']):>10}{size_of(row['bytes']):>12}")
