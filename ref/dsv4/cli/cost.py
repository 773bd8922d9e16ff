"""`dsv4 cost`: parameters, FLOPs per token and cache bytes of a model, from its configuration alone."""

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from dsv4.checkpoint import read_any_config
from dsv4.cli.app import JsonOption, app
from dsv4.cli.quantities import short, size_of
from dsv4.config import Config
from dsv4.config41 import Config41
from dsv4.cost import CacheFormat, Cost, Drafter, OfV41, cost, cost_of_v32
from dsv4.errors import ConfigError, SettingError, shortened
from dsv4.loading import bundled_model
from dsv4.presets import PRESETS, preset

V32_NAME = "v3.2"


@app.command(name="cost")
def cost_command(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG",
            help="flash, pro, flash-0731, pro-0813, v4.1 or v3.2, or the path of a config.json or of a checkpoint.",
            show_default="the bundled model",
        ),
    ] = None,
    context: Annotated[
        int, typer.Option("--context", "-c", min=1, help="Length of the sequence; FLOPs are for its last token.")
    ] = 2**20,
    cache_format: Annotated[
        str, typer.Option("--cache-format", help="How the cache is stored: packed (as released), bf16 or float32.")
    ] = "packed",
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="What to compare with: a name or a path, as for CONFIG.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a model's parameters, FLOPs per token and KV cache size. No weights are read.

    FP8 FLOPs count each operation by the time that a tensor core needs for it, as in the report: FP4 counts as one
    half, FP8 and FP4 × FP8 as one, bf16 as two, float32 as four.
    """
    chosen = next((known for known in get_args(CacheFormat) if known == cache_format), None)
    if chosen is None:
        raise SettingError(f"--cache-format: expected one of {', '.join(get_args(CacheFormat))}, found {cache_format}")
    name = str(bundled_model()) if model is None else model
    found = _cost(name, context, chosen)
    other = None if baseline is None else _cost(baseline, context, chosen)
    if as_json:
        report = {"model": name, "context": context, "cache_format": chosen, **_report(found)}
        if other is not None:
            report["baseline"] = {"model": baseline, **_report(other)}
            report["ratios"] = _ratios(found, other)
        print(json.dumps(report, indent=1))
        return
    print(f"{name}, {context:,} tokens, cache {chosen}\n")
    _print_parts(found)
    _print_cache(found)
    if found.of_v41 is not None:
        _print_of_v41(found.of_v41)
    if found.drafter is not None:
        _print_drafter(found.drafter)
    if other is not None:
        print()
        _print_comparison(found, other, str(baseline))


def _cost(name: str, context: int, cache_format: CacheFormat) -> Cost:
    """The cost of the model that a name or a path stands for; a path that exists comes before a name."""
    if name == V32_NAME and not os.path.lexists(name):
        return cost_of_v32(context, cache_format)
    return cost(_config(name), context, cache_format)


def _config(name: str) -> Config | Config41:
    """Raises ConfigError, with the known names, where there is neither a file nor a preset of this name."""
    if os.path.lexists(name):
        return read_any_config(Path(name))
    if name in PRESETS:
        return preset(name)
    known = ", ".join([*PRESETS, V32_NAME])
    raise ConfigError(f"{shortened(name)}: expected one of {known}, or the path of a config.json, found no such file")


def _report(found: Cost) -> dict[str, Any]:
    return {
        "parameters": {
            **found.count._asdict(),
            "parts": {part: count._asdict() for part, count in found.parameters.items()},
        },
        "flops": {
            "total": found.flops,
            "fp8_equivalent": found.fp8_flops,
            "products": [
                {
                    "part": product.part,
                    "format": product.format,
                    "flops": product.flops,
                    "fp8_equivalent": product.fp8_flops,
                }
                for product in found.products
            ],
        },
        "cache_bytes": {"total": found.cache_bytes, "parts": found.cache},
        "drafter": None if found.drafter is None else _report_drafter(found.drafter),
        **({} if found.of_v41 is None else {"v4.1": _report_of_v41(found.of_v41)}),
    }


def _report_drafter(drafter: Drafter) -> dict[str, Any]:
    return {"name": drafter.name, "parameters": drafter.count._asdict(), "cache_bytes": drafter.cache_bytes}


def _report_of_v41(figures: OfV41) -> dict[str, Any]:
    return {
        "table_parameters": figures.tables,
        "active_in_a_prompt": figures.prompt_active,
        "cache_bytes_per_token": float(figures.global_bytes),
    }


def _ratios(found: Cost, other: Cost) -> dict[str, float]:
    return {
        "parameters": found.count.total / other.count.total,
        "active parameters": found.count.active / other.count.active,
        "FLOPs": found.flops / other.flops,
        "FP8 FLOPs": found.fp8_flops / other.fp8_flops,
        "cache bytes": found.cache_bytes / other.cache_bytes,
    }


def _print_parts(found: Cost) -> None:
    """One row for each part: its parameters and what it computes for the last token."""
    flops: defaultdict[str, int] = defaultdict(int)
    fp8_flops: defaultdict[str, float] = defaultdict(float)
    formats: defaultdict[str, list[str]] = defaultdict(list)
    for product in found.products:
        flops[product.part] += product.flops
        fp8_flops[product.part] += product.fp8_flops
        formats[product.part].append(product.format)
    print(f"{'part':<20}{'parameters':>11}{'active':>9}{'FLOPs':>9}{'FP8 FLOPs':>11}  formats")
    for part in dict.fromkeys([*found.parameters, *flops]):
        count = found.parameters.get(part)
        total, active = (short(count.total), short(count.active)) if count else ("", "")
        computed = (short(flops[part]), short(fp8_flops[part])) if part in flops else ("", "")
        row = f"{part:<20}{total:>11}{active:>9}{computed[0]:>9}{computed[1]:>11}  {', '.join(formats[part])}"
        print(row.rstrip())
    count = found.count
    total, active, all_flops, all_fp8 = map(short, (count.total, count.active, found.flops, found.fp8_flops))
    print(f"{'all':<20}{total:>11}{active:>9}{all_flops:>9}{all_fp8:>11}\n")


def _print_cache(found: Cost) -> None:
    print(f"{'cache':<20}{'bytes':>11}")
    for part, size in {**found.cache, "all": found.cache_bytes}.items():
        print(f"{part:<20}{size_of(size):>11}")


def _print_of_v41(figures: OfV41) -> None:
    """The figures of V4.1's report, with what each assumes."""
    print(f"\n{'in Engram tables':<20}{short(figures.tables):>11}  parameters, of which a token reads single rows")
    active = short(figures.prompt_active)
    print(f"{'active in a prompt':<20}{active:>11}  parameters, if the layers from the last kv source on are left out")
    grows = f"{float(figures.global_bytes):,g}"
    print(f"{'cache per token':<20}{grows:>11}  bytes that a further token adds: entries and index keys")


def _print_drafter(drafter: Drafter) -> None:
    """What is not counted above."""
    total, active = short(drafter.count.total), short(drafter.count.active)
    print(f"\n{'drafter':<20}{'parameters':>11}{'active':>9}{'cache':>11}")
    print(f"{drafter.name:<20}{total:>11}{active:>9}{size_of(drafter.cache_bytes):>11}")


def _print_comparison(found: Cost, other: Cost, name: str) -> None:
    values = {
        "parameters": (short(found.count.total), short(other.count.total)),
        "active parameters": (short(found.count.active), short(other.count.active)),
        "FLOPs": (short(found.flops), short(other.flops)),
        "FP8 FLOPs": (short(found.fp8_flops), short(other.fp8_flops)),
        "cache bytes": (size_of(found.cache_bytes), size_of(other.cache_bytes)),
    }
    ratios = _ratios(found, other)
    width = max(9, len(name)) + 2
    print(f"{'compared':<20}{'this':>11}{name:>{width}}{'ratio':>9}")
    for quantity, (this, that) in values.items():
        print(f"{quantity:<20}{this:>11}{that:>{width}}{ratios[quantity]:>9.2%}")
