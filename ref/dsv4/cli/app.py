"""The command-line application and the options that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dsv4 import __version__
from dsv4.cli.ending import STATUSES, say
from dsv4.cli.panics import QuietTokenizer
from dsv4.cli.quantities import bytes_of, size_of
from dsv4.errors import PromptError, SettingError, quoted
from dsv4.loading import load
from dsv4.model.language_model import LanguageModel
from dsv4.model.model import Model
from dsv4.text.generation_config import GenerationConfig
from dsv4.text.tokenizer import Tokenizer

app = typer.Typer(
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(epilog=STATUSES)
def common(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """DeepSeek-V4 in NumPy: generate text, look inside models, check implementations, train."""
    if version:
        print(f"dsv4 {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


ModelArgument = Annotated[
    Path | None, typer.Argument(metavar="MODEL", help="Directory of a checkpoint.", show_default="the bundled model")
]
ModelOption = Annotated[
    Path | None, typer.Option("--model", "-m", help="Directory of a checkpoint.", show_default="the bundled model")
]
BACKEND_NAMES = (
    "numpy, numba, or another installed backend. auto takes the one that the environment variable DSV4_BACKEND names; "
    "if it is not set, numba if Numba is installed and works, otherwise numpy."
)
BackendOption = Annotated[str, typer.Option("--backend", "-b", help=f"The backend to compute with: {BACKEND_NAMES}")]
FakeQuantOption = Annotated[
    str,
    typer.Option(
        "--fake-quant",
        help="Round activations as the released model does: on, off, or auto, which is on for quantised checkpoints.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", "-n", help="The most tokens to generate.")]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        "-t",
        help="How random the text is; 0 always takes the most likely token.",
        show_default="from generation_config.json, otherwise 1",
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p",
        help="Sample only from the most likely tokens whose probabilities add up to this.",
        show_default="from generation_config.json, otherwise 1",
    ),
]
Seed = Annotated[
    int | None, typer.Option("--seed", "-s", help="The same seed gives the same text.", show_default="random")
]
AllowSpecial = Annotated[
    bool, typer.Option("--allow-special", help="Turn text that looks like a control token into that token.")
]
Speculative = Annotated[
    bool,
    typer.Option(
        "--speculative", help="Let the MTP module or the DSpark drafter draft tokens, which the model checks."
    ),
]
MaxDrafts = Annotated[
    int | None,
    typer.Option("--max-drafts", help="Check at most so many drafts in a step.", show_default="all that are drafted"),
]
DraftThreshold = Annotated[
    float,
    typer.Option(
        "--draft-threshold",
        help="Check no draft whose chance to be kept is below this by DSpark's estimate, 0 to 1, and none after it.",
    ),
]
DraftSchedule = Annotated[
    bool,
    typer.Option("--draft-schedule", help="Check the number of drafts that gives the most tokens per second here."),
]

PLAIN_STEPS = range(4, 24, 4)
"""The steps without drafts, by which the commands tell what drafts gain."""


Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="How much weights and caches may take, such as 8GiB; weights are then read when needed, and given back.",
        show_default="no bound",
    ),
]


def open_model(
    path: Path | None, backend: str, fake_quant: str, memory: str | None = None
) -> tuple[LanguageModel, Tokenizer]:
    """The model and the tokenizer of a checkpoint, or of the bundled model; memory: a size as `--memory` takes it."""
    model = load(path, backend, fake_quant, memory=bounded(memory))
    return model, QuietTokenizer.from_file(model.checkpoint.directory)


def only_v4(model: LanguageModel, command: str) -> Model:
    """The model, for a command that shows or judges what V4 is made of. Raises SettingError for one of V4.1."""
    if not isinstance(model, Model):
        raise SettingError(f"{command}: expected a model of V4, found one of V4.1 in {model.checkpoint.directory}")
    return model


def bounded(memory: str | None) -> int | None:
    """The bytes of `--memory`. Raises SettingError for what is no size."""
    return None if memory is None else bytes_of(memory, "--memory")


def reading_of(model: LanguageModel) -> str:
    """What was read from disk so far, in words; nothing for a model whose memory has no bound."""
    if model.store is None:
        return ""
    reading = model.store.reading
    rate, asked = int(reading.nbytes / reading.seconds), reading.hits + reading.reads
    return f"read {size_of(reading.nbytes)}, {size_of(rate)}/s; {reading.hits} of {asked} parts were in memory"


def prompt_ids(tokenizer: Tokenizer, prompt: str, allow_special: bool) -> list[int]:
    """The tokens of a text as a user gives it, after the begin token where the tokenizer wants one.

    Raises PromptError for an empty text.
    """
    if not prompt:
        raise PromptError("prompt: expected some text, found none")
    begin = [tokenizer.bos_id] if tokenizer.add_bos else []
    return begin + tokenizer.encode(prompt, allow_special)


def draft_settings(speculative: bool, most: int | None, threshold: float, schedule: bool) -> dict[str, Any]:
    """What `generate` is told about drafts. Raises SettingError for options that say how to draft where none does."""
    told = {"--max-drafts": most is not None, "--draft-threshold": threshold != 0, "--draft-schedule": schedule}
    idle = [name for name, is_given in told.items() if is_given]
    if idle and not speculative:
        raise SettingError(f"{idle[0]}: expected it with --speculative, found it without")
    options = {"max_drafts": most, "draft_threshold": threshold, "draft_schedule": schedule}
    return {"speculative": speculative, "plain_steps": PLAIN_STEPS} | options


def wanted_settings(model: LanguageModel, temperature: float | None, top_p: float | None) -> dict[str, Any]:
    """temperature, top_p and stop_ids for `generate`: the user's, or else those of generation_config.json.

    Says on standard error which settings of the file are not applied.
    """
    wanted = GenerationConfig.load(model.checkpoint)
    if wanted.ignored:
        names = ", ".join(map(quoted, wanted.ignored))
        say(f"{wanted.source}: not applied, as dsv4 has no such setting: {names}")
    given = {"temperature": temperature, "top_p": top_p}
    return wanted.settings | {name: value for name, value in given.items() if value is not None}
