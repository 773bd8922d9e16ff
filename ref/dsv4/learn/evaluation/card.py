"""Measure what the card of the bundled model states: `python -m dsv4.learn.evaluation.card TRAINED RELEASED TEXTS`.

TRAINED is the checkpoint in float32 as `dsv4 train` leaves it, RELEASED what `dsv4 convert` makes of it, and TEXTS the
directory that `dsv4.learn.texts.bundled_text` writes; of it, The Tempest is read, which no model was trained on.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from dsv4.checkpoint import Checkpoint
from dsv4.errors import DSV4Error
from dsv4.learn.evaluation.drafts import draft_acceptance, draft_agreement
from dsv4.learn.evaluation.interventions import intervened, random_choice, without_csa, without_entries, without_hca
from dsv4.learn.evaluation.likelihood import nats_per_token
from dsv4.learn.evaluation.recall import recall_accuracy
from dsv4.learn.evaluation.standing import indexer_standing
from dsv4.learn.texts.plays import scenes
from dsv4.learn.texts.recall import evaluation_plan, recall_documents
from dsv4.model.model import Model
from dsv4.ops import Ops
from dsv4.text.tokenizer import Tokenizer

READ = slice(2000, 14_000)
"""The characters of The Tempest from which likelihood is measured: tests/data/eval/eval.txt, ten windows of 512."""

LENGTHS = (1024, 2048, 4096)
"""Tokens of the documents with questions."""

DOCUMENTS = 12
"""Of each length."""

PROMPTS, PROMPT, FOLLOWING = 16, 64, 48
"""Places of the play from which greedy drafts are counted, tokens before each, and tokens that follow."""

ACTIVATIONS = (("float32 (`--fake-quant off`)", False), ("rounded as in the released model", True))

CHANGES: dict[str, Callable[[Ops], Ops]] = {
    "as it is": lambda ops: ops,
    "indexers' scores random": random_choice,
    "without HCA": without_hca,
    "without CSA": without_csa,
    "without both": without_entries,
}


def main(arguments: list[str]) -> int:
    """Print the card's tables as Markdown; 2 with one line of reason where that cannot be done."""
    if len(arguments) != 3:
        print("usage: python -m dsv4.learn.evaluation.card TRAINED RELEASED TEXTS", file=sys.stderr)
        return 2
    trained, released, texts = map(Path, arguments)
    try:
        tempest = (texts / "the-tempest.txt").read_text(encoding="utf-8")
        for table in (likelihoods(trained, released, tempest), long_range(released, tempest)):
            for line in table:
                print(line, flush=True)
            print()
    except (DSV4Error, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def likelihoods(trained: Path, released: Path, tempest: str) -> Iterator[str]:
    """What the formats cost: a row for each pair of weights and activations."""
    ids = Tokenizer.from_file(released).encode(tempest[READ])
    yield "| weights | activations | nats per token | perplexity |"
    yield "|---|---|---|---|"
    for weights, path in (("float32, before conversion", trained), ("this checkpoint", released)):
        for activations, rounds in ACTIVATIONS:
            nats = nats_per_token(Model(Checkpoint.open(path), Ops(), fake_quant=rounds), ids)
            yield f"| {weights} | {activations} | {nats:.5f} | {np.exp(nats):.3f} |"


def long_range(path: Path, tempest: str) -> Iterator[str]:
    """The indexers' standing, questions answered with and without parts of the attention, drafts."""
    model, tokenizer = Model(Checkpoint.open(path), Ops(), fake_quant=True), Tokenizer.from_file(path)
    ids = tokenizer.encode(tempest)
    yield f"| questions answered | {' | '.join(f'{length:,} tokens' for length in LENGTHS)} |"
    yield f"|---|{'---|' * len(LENGTHS)}"
    for name, change in CHANGES.items():
        shares = [_recall(intervened(model, change), tokenizer, tempest, length) for length in LENGTHS]
        yield f"| {name} | {' | '.join(f'{share:.1%}' for share in shares)} |"
    yield ""
    for length in LENGTHS:
        for name, found in indexer_standing(model, ids[:length]).items():
            row = f"chance {found.chance:.3f} | best {found.best:.3f} | {found.standing:.3f}"
            yield f"| {name} on {length:,} tokens | {row} |"
    yield ""
    prompts = [ids[start : start + PROMPT] for start in np.linspace(1000, len(ids) - PROMPT, PROMPTS).astype(int)]
    yield f"| drafts that agree with the model, on the text | {draft_agreement(model, ids[:10_240]):.1%} |"
    yield f"| greedy drafts kept while it writes | {draft_acceptance(model, prompts, FOLLOWING):.1%} |"


def _recall(model: Model, tokenizer: Tokenizer, tempest: str, length: int) -> float:
    speeches = [[speech.text for scene in scenes(tempest) for speech in scene]]
    return recall_accuracy(model, recall_documents(tokenizer, speeches, evaluation_plan(length), DOCUMENTS, seed=0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
