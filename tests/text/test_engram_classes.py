"""Token classes of V4.1's Engram: the official function's, and the same rules written in Python."""

import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.checkpoint import read_config41
from dsv4.errors import TokenizerError
from dsv4.text.engram_classes import classes_of, normalise, token_classes
from dsv4.text.tokenizer import Tokenizer

DATA = Path(__file__).parents[1] / "data"
GOLDENS = {
    "engram_classes": DATA / "engram_classes.json",
    "v41_float": DATA / "golden" / "v41_float" / "tokens.json",
    "v41_quant": DATA / "golden" / "v41_quant" / "tokens.json",
}
WHITE_SPACE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
"""Unicode's property of this name. Python's `str.strip` also takes U+001C to U+001F."""


def is_old(character):
    """Whether a character has been since Unicode 3.2 what it is now, so that tables of any version agree on it."""
    old = unicodedata.ucd_3_2_0
    same = old.category(character) == unicodedata.category(character) != "Cn"
    return same and old.normalize("NFKD", character) == unicodedata.normalize("NFKD", character)


def by_rules(text):
    """The rules in Python's words."""
    text = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text))
    text = "".join(character.lower() for character in text if unicodedata.category(character)[0] != "M")
    for character in "\t\r\n":
        text = text.replace(character, " ")
    while "  " in text:
        text = text.replace("  ", " ")
    text = "\ue000" if text == " " else text
    return text.strip(WHITE_SPACE).replace("\ue000", " ")


@pytest.mark.parametrize("name", GOLDENS)
def test_classes_are_those_of_the_official_function(name):
    golden = json.loads(GOLDENS[name].read_text(encoding="utf-8"))
    classes = classes_of(golden["decoded"], golden["raw"])
    assert classes.dtype == np.int64
    assert classes.tolist() == golden["classes"]


odd = st.sampled_from(
    [*" \t\r\n\x0b\x1c\x1f\x85\u200b\u3000\ue000", *"ΑΣςσ", *"İıIiﬁ①½ǅ", "\u0301", "\u093e", "\u20dd"]
)


@given(st.lists(odd | st.characters(exclude_categories=["Cs"]).filter(is_old), max_size=6).map("".join))
def test_texts_are_normalised_by_the_rules(text):
    assert normalise(text) == by_rules(text)


def test_classes_are_numbered_as_they_first_appear_and_broken_characters_go_by_their_names():
    texts = ["B", "\ufffd", "b", "\ufffd", "\u0301", "", "x\ufffd"]
    assert classes_of(texts, ["B", "Ã", "b", "â", "Ì", "", "Ã"]).tolist() == [0, 1, 0, 2, 3, 4, 1]


# --- of a tokenizer ---------------------------------------------------------------------------------------------

TOKENIZER = Tokenizer.from_file(DATA / "tokenizer")


def config_of(count, vocab_size=TOKENIZER.vocab_size):
    config = read_config41(DATA / "golden" / "v41_float")
    engram = replace(config.engram, compressed_vocab_size=count)
    dspark = replace(config.dspark, noise_token_id=0)
    return replace(config, vocab_size=vocab_size, engram=engram, dspark=dspark)


def count_of_classes():
    texts = [TOKENIZER.decode([number]) for number in range(TOKENIZER.vocab_size)]
    return len({normalise(text) or text for text in texts if "\ufffd" not in text}), texts


def test_every_token_of_a_vocabulary_has_a_class_and_their_number_is_the_configs():
    whole, texts = count_of_classes()
    broken = sum("\ufffd" in text for text in texts)
    assert broken and whole < len(texts) - broken
    classes = token_classes(TOKENIZER, config_of(whole + broken))
    assert classes.shape == (len(texts),) and set(classes.tolist()) == set(range(whole + broken))
    ids = {text: number for number, text in enumerate(texts)}
    assert classes[ids["a"]] == classes[ids["A"]] == classes[ids[" a"]] != classes[ids["b"]]


@pytest.mark.parametrize("more", [-1, 1])
def test_another_number_of_classes_than_the_configs_is_an_error(more):
    whole, texts = count_of_classes()
    found = whole + sum("\ufffd" in text for text in texts)
    with pytest.raises(
        TokenizerError, match=f"token classes: expected {found + more}, as engram_comp.*, found {found}$"
    ):
        token_classes(TOKENIZER, config_of(found + more))


def test_ids_without_a_token_share_the_class_of_no_text():
    whole, texts = count_of_classes()
    found = whole + sum("\ufffd" in text for text in texts)
    classes = token_classes(TOKENIZER, config_of(found + 1, TOKENIZER.vocab_size + 3))
    assert classes[-3:].tolist() == [found] * 3
