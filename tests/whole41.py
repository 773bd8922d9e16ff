"""A directory with a whole small model of V4.1: random weights, and the bundled tokenizer with V4.1's token."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import dsv4
import tiny41
from dsv4.checkpoint.random_weights import write_random
from dsv4.text.engram_classes import classes_of
from text.asked import tokenizer_json_of_v41


def write_whole41(directory: Path) -> Path:
    """Write it into a new directory, and return that."""
    bundled = dsv4.bundled_model()
    extra = directory.with_name(f"{directory.name}.extra")
    extra.mkdir()
    data = tokenizer_json_of_v41(bundled)
    (extra / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    shutil.copyfile(bundled / "tokenizer_config.json", extra / "tokenizer_config.json")
    tokenizer = dsv4.Tokenizer.from_file(extra)
    names = {number: name for name, number in tokenizer.vocabulary.items()}
    ids = range(max(names) + 1)
    classes = classes_of([tokenizer.decode([number]) for number in ids], [names.get(number, "") for number in ids])
    engram = replace(tiny41.CONFIG.engram, compressed_vocab_size=int(classes.max()) + 1)
    config = tiny41.config(
        vocab_size=len(ids), engram=engram, eos_token_id=tokenizer.eos_id, max_position_embeddings=2000
    )
    write_random(directory, config, extra_files=extra.iterdir())
    return directory
