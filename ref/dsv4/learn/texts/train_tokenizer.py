"""A byte-level BPE tokenizer with V4's control tokens, trained from text."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dsv4.arguments import integer
from dsv4.checkpoint.atomic import replacing
from dsv4.errors import SettingError, TextError, reason
from dsv4.text.chat.templates import ASSISTANT, BEGIN, DSML, END, END_THINK, LATEST_REMINDER, TASKS, THINK, USER

PAD, EXTRACTED_URL = "<｜▁pad▁｜>", "<｜extracted_url｜>"
"""Two control tokens of the released vocabulary that the chat format never writes."""

CONTROL_TOKENS = (
    *(BEGIN, END, PAD, USER, ASSISTANT, THINK, END_THINK, DSML, LATEST_REMINDER),
    *TASKS.values(),
    EXTRACTED_URL,
)
"""The control tokens in the order of their ids, from 0."""

SMALLEST = len(CONTROL_TOKENS) + 256
"""A vocabulary of control tokens and single bytes."""


def train_tokenizer(texts: Iterable[str], directory: str | Path, vocab_size: int = 1024, context: int = 4096) -> None:
    """Train a tokenizer and write its tokenizer.json and tokenizer_config.json, which `dsv4.Tokenizer` reads.

    texts: what to learn the merges from, the same for any order of its words; directory: where to write, and made if
    there is none; vocab_size: control tokens, 256 bytes, and one token for each merge: fewer where the text has no
    pair of tokens left; context: the longest prompt, as tokenizer_config.json states it. The same texts give the same
    files, bit for bit.

    Training is that of the library `tokenizers`: again and again the most frequent pair of neighbouring tokens inside
    a word becomes a token. Words are cut as GPT-2's pattern does. Text that looks like a control token is text.

    Raises TextError for texts that are all blank or that UTF-8 cannot hold, SettingError for a vocab_size below control
    tokens and bytes, and for a directory that cannot be written to.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers  # slow to import

    size = integer("vocab_size", vocab_size, least=SMALLEST)
    context = integer("context", context, least=1)
    some = _not_blank(texts)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    control = [AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=control, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(some, trainer)
    _write(Path(directory), json.loads(tokenizer.to_str()), context)


def _not_blank(texts: Iterable[str]) -> list[str]:
    some = [text for text in texts if text.strip()]
    if not some:
        raise TextError("texts: expected some text to train a tokenizer on, found none")
    try:
        "".join(some).encode()
    except UnicodeEncodeError as error:
        raise TextError(f"texts: expected text that UTF-8 can hold, found {error}") from error
    return some


def _write(directory: Path, data: dict[str, Any], context: int) -> None:
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": END,
        "add_bos_token": False,
        "add_eos_token": False,
        "model_max_length": context,
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(f"{directory}: expected a directory to write to, found: {reason(error)}") from error
    for name, content, indent in (("tokenizer.json", data, 2), ("tokenizer_config.json", config, 1)):
        with replacing(directory / name) as temporary:
            temporary.write_text(json.dumps(content, ensure_ascii=False, indent=indent), encoding="utf-8")
