"""`dsv4 diloco`: training with learners that never wait, what it gains where chips fail, and how little it sends."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from dsv4.cli.app import JsonOption, app
from dsv4.cli.quantities import short

diloco = typer.Typer(
    help="Decoupled DiLoCo: train with learners that do not wait for each other; simulate its goodput and bandwidth.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
app.add_typer(diloco, name="diloco")

Seed = Annotated[int, typer.Option("--seed", "-s", help="The seed of everything that is random.")]


@diloco.command()
def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a JSON file as for dsv4 train.")],
    texts: Annotated[list[str], typer.Argument(metavar="TEXT…", help="Text files, and JSONL files of documents.")],
    out: Annotated[Path, typer.Option("--out", help="Directory of the run: tape, snapshots, and the model.")],
    learners: Annotated[int, typer.Option("--learners", help="M: how many copies of the model train.")] = 2,
    fragments: Annotated[int, typer.Option("--fragments", help="P: parts of the model, merged one by one.")] = 24,
    inner_steps: Annotated[
        int, typer.Option("--inner-steps", help="H: steps between two merges of a part; a multiple of P.")
    ] = 24,
    quorum: Annotated[int, typer.Option("--quorum", help="K: how many learners a merge waits for.")] = 1,
    outer_learning_rate: Annotated[float, typer.Option("--outer-learning-rate", help="η of the syncer's step.")] = 0.7,
    outer_momentum: Annotated[float, typer.Option("--outer-momentum", help="μ of the syncer's step.")] = 0.9,
    warm_start: Annotated[
        int, typer.Option("--warm-start", help="Steps at the start that all do as one, with the batches of all.")
    ] = 0,
    kill: Annotated[
        list[str] | None,
        typer.Option(
            "--kill",
            help="WHO@AFTER+SECONDS: 1@20+5 kills learner 1 after 20 steps for 5 seconds, syncer@8 the syncer after "
            "8 merges.",
        ),
    ] = None,
    slow: Annotated[
        list[str] | None, typer.Option("--slow", help="WHOxTIMES: 2x10 makes learner 2 ten times slower.")
    ] = None,
    lose: Annotated[float, typer.Option("--lose", help="Share of messages that never arrive.")] = 0.0,
    seed: Seed = 0,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            help="Use real processes: local, or the Ray address of a cluster.",
            show_default="simulate in one process",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Draw the tape into DIR/diloco/plot.png.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train with learners that do not wait for each other, and a syncer that merges what they learn.

    By default one process simulates all of them in virtual time, in an order that depends on the seed. With --ray, each
    is a process. The model in DIR/model is an ordinary checkpoint, and DIR/diloco/tape.jsonl has a line for each event.
    """
    from dsv4.learn.diloco.chaos import Chaos, read_kills, read_slow
    from dsv4.learn.diloco.plot import draw
    from dsv4.learn.diloco.settings import Settings
    from dsv4.learn.diloco.training import tape_of
    from dsv4.learn.diloco.training import train as run

    settings = Settings(
        learners,
        fragments,
        inner_steps,
        quorum=quorum,
        outer_learning_rate=outer_learning_rate,
        outer_momentum=outer_momentum,
        warm_start=warm_start,
    )
    chaos = Chaos(read_kills(kill or ()), read_slow(slow or ()), lose)
    model = run(recipe, texts, out, settings, chaos, seed, resume, _watch, ray)
    tape = tape_of(out)
    if plot:
        draw(tape, learners, out / "diloco" / "plot.png")
    if as_json:
        print(json.dumps({"model": str(model), **_summary(tape, learners)}, indent=1))
        return
    print(model)


def _watch(world: Any, line: dict[str, Any]) -> None:
    """After each round of all fragments, a line for each learner on standard error."""
    if line["event"] != "merged" or (line["round"] + 1) % len(world.syncer.fragments):
        return
    for m in range(world.settings.learners):
        learner = world.learners.get(m)
        if learner is None:
            print(f"{line['time']:8.1f} s  learner {m}: gone", file=sys.stderr, flush=True)
            continue
        steps = world.counts[f"steps.{m}"]
        ages = " ".join(map(str, learner.steps))
        print(
            f"{line['time']:8.1f} s  learner {m}: {steps} steps, {world.tokens[m]:,} tokens, ages {ages}",
            file=sys.stderr,
            flush=True,
        )


def _summary(tape: list[dict[str, Any]], learners: int) -> dict[str, Any]:
    """What a script wants to know of a run: per learner, and of all merges."""
    merges = [line for line in tape if line["event"] == "merged"]
    rows = []
    for m in range(learners):
        steps = [line for line in tape if line["event"] == "step" and line["learner"] == m]
        merged = sum(m in line["learners"] for line in merges)
        loss = steps[-1]["loss"] if steps else None
        tokens = sum(line["tokens"] for line in steps)
        rows.append({"learner": m, "steps": len(steps), "tokens": tokens, "merges": merged, "last_loss": loss})
    up, down = ((merges[-1][key] if merges else 0) for key in ("up", "down"))
    seconds = max((line["time"] for line in tape), default=0.0)
    return {"learners": rows, "merges": len(merges), "bytes_up": up, "bytes_down": down, "seconds": seconds}


@diloco.command()
def goodput(
    chips: Annotated[
        list[int] | None,
        typer.Option("--chips", help="All chips together.", show_default="1200000 2400000"),
    ] = None,
    learners: Annotated[
        list[int] | None, typer.Option("--learners", help="How many learners share the chips.", show_default="1 2 8 16")
    ] = None,
    days: Annotated[float, typer.Option("--days", help="Days to simulate.")] = 10.0,
    mtbi: Annotated[float, typer.Option("--mtbi", help="Years between two failures of one chip, on average.")] = 1.0,
    seed: Seed = 0,
    as_json: JsonOption = False,
) -> None:
    """Simulate failing chips, and print goodput: the share of chip time that trains the model.

    Options that are given several times make several rows. Rigid: one learner that waits for a spare after each
    failure. Elastic: learners that continue without the chips that failed.
    """
    from dsv4.learn.diloco.goodput import cluster
    from dsv4.learn.diloco.goodput.fit import FITTED, PUBLISHED

    rows = []
    for count in chips or (1_200_000, 2_400_000):
        kinds = [(1, False), *((one, True) for one in learners or (1, 2, 8, 16))]
        for simulated in (cluster.Cluster(count, one, elastic, mtbi * cluster.YEAR) for one, elastic in kinds):
            found = cluster.goodput(simulated, FITTED, days, seed)
            known = PUBLISHED.get(simulated)
            about = {"chips": count, "learners": simulated.learners, "elastic": simulated.elastic}
            rows.append({**about, "goodput": found, "published": known})
    if as_json:
        assumed = {"days": days, "mtbi_years": mtbi, "seed": seed}
        print(json.dumps({"rows": rows, "fitted": asdict(FITTED), **assumed}, indent=1))
        return
    _print_goodput(rows)
    times = ", ".join(f"{name} {value:g}" for name, value in asdict(FITTED).items())
    print(f"\n{days:g} days, a failure per chip every {mtbi:g} years, seed {seed}.")
    print("Times in seconds, fitted to the published points and not published themselves:")
    print(times)


def _print_goodput(rows: list[dict[str, Any]]) -> None:
    print(f"{'chips':>8}  {'learners':<14}{'goodput':>8}{'published':>11}{'points off':>12}")
    for row in rows:
        kind = "1, rigid" if not row["elastic"] else f"{row['learners']}, elastic"
        known, off = "", ""
        if row["published"] is not None:
            known, off = f"{row['published']:.0%}", f"{100 * (row['goodput'] - row['published']):+.1f}"
        print(f"{short(row['chips']):>8}  {kind:<14}{row['goodput']:>8.1%}{known:>11}{off:>12}".rstrip())


@diloco.command()
def bandwidth(
    parameters: Annotated[float, typer.Option("--parameters", help="Parameters of the model.")] = 12e9,
    step: Annotated[float, typer.Option("--step", help="Seconds of a training step.")] = 1.0,
    target: Annotated[float, typer.Option("--target", help="Compute utilisation to reach, from 0 to 1.")] = 0.95,
    sites: Annotated[
        list[int] | None, typer.Option("--sites", help="How many sites train together.", show_default="4 8")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate training steps, and print how fast the network between sites must be.

    Prints the published table of arXiv 2503.09799 with our results beside it. Then, for the model of the options, it
    compares data parallel training with Decoupled DiLoCo with four-bit differences.
    """
    from dsv4.learn.diloco.bandwidth.published import BITS, LAYERS, table
    from dsv4.learn.diloco.bandwidth.sites import BLOG_GIGABITS, Assumptions, Pair

    assumed = Assumptions(parameters, step, target=target)
    pairs = [Pair(one, assumed) for one in sites or (4, 8)]
    rows = list(table())
    blog = BLOG_GIGABITS[0] / BLOG_GIGABITS[1]
    if as_json:
        ours = [
            {"sites": one.sites, "data_parallel": one.data_parallel, "decoupled": one.decoupled, "ratio": one.ratio}
            for one in pairs
        ]
        report = {"rows": [row._asdict() for row in rows], "bits": BITS, "layers": LAYERS}
        print(json.dumps({**report, "pairs": ours, "assumed": asdict(assumed), "blog_ratio": blog}, indent=1))
        return
    _print_table(rows)
    print(f"\nOurs is with {BITS:g} bits for a parameter and {LAYERS} layers: fitted numbers, not published ones.\n")
    print(f"{'sites':>5}{'data parallel':>16}{'decoupled':>12}{'ratio':>8}   Gbit/s that a site sends")
    for one in pairs:
        print(f"{one.sites:>5}{one.data_parallel:>16.1f}{one.decoupled:>12.2f}{one.ratio:>8.0f}")
    print(f"\nAssumed: {', '.join(f'{name} {value:g}' for name, value in asdict(assumed).items())}; a ring all-reduce.")
    published = " and ".join(f"{one:g}" for one in BLOG_GIGABITS)
    print(f"The blog post gives {published}, a ratio of {blog:.0f}; its formula is unknown.")


def _print_table(rows: list[Any]) -> None:
    """For each model and utilisation: published, ours, and how far apart."""
    print(f"{'model':<18}{'utilisation':>12}{'published':>11}{'ours':>8}{'steps off':>11}")
    for row in rows:
        known, found = (f"{one:.1f}" if one <= 1000 else "1000+" for one in (row.published, row.found))
        print(f"{row.job:<18}{row.target:>12.0%}{known:>11}{found:>8}{row.steps:>+11}")
