"""A trained tokenizer has V4's control tokens where the bundled one has them, and merges that follow from the text."""

import json

import pytest

from dsv4 import Tokenizer, bundled_model
from dsv4.errors import SettingError, TextError
from dsv4.learn.texts.train_tokenizer import CONTROL_TOKENS, SMALLEST, train_tokenizer

BUNDLED = json.loads((bundled_model() / "tokenizer.json").read_text(encoding="utf-8"))


def trained(directory, *texts, **options):
    train_tokenizer(texts, directory, **options)
    return json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))


def test_everything_but_the_merges_is_the_bundled_tokenizers(tmp_path):
    made = trained(tmp_path, "to be or not to be", vocab_size=SMALLEST)
    for file in (made, BUNDLED):
        file["model"] |= {"vocab": dict(list(file["model"]["vocab"].items())[:SMALLEST]), "merges": []}
    assert made == BUNDLED
    assert [token["content"] for token in made["added_tokens"]] == list(CONTROL_TOKENS)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    bundled = json.loads((bundled_model() / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config == bundled | {"model_max_length": 4096}


def test_the_most_frequent_pair_becomes_a_token_first(tmp_path):
    made = trained(tmp_path, "ababab ab cd", vocab_size=SMALLEST + 2)
    assert made["model"]["merges"] == [["a", "b"], ["ab", "ab"]]  # 4 times, then twice before the Ġab, abĠ and cd
    tokenizer = Tokenizer.from_file(tmp_path)
    assert tokenizer.vocab_size == SMALLEST + 2
    assert [tokenizer.decode([one]) for one in tokenizer.encode("abababcd")] == ["abab", "ab", "c", "d"]


def test_any_text_comes_back(tmp_path):
    trained(tmp_path, "Wer reitet so spät durch Nacht und Wind?", vocab_size=300)
    tokenizer = Tokenizer.from_file(tmp_path)
    for text in ("Wer reitet", "𝔘nseen  \n\n bytes\t", "<｜User｜></think>"):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text and min(ids) >= len(CONTROL_TOKENS)


def test_text_of_control_tokens_makes_no_other_vocabulary(tmp_path):
    made = trained(tmp_path, "<｜User｜> " * 50 + "a b", vocab_size=400)
    vocab = made["model"]["vocab"]
    assert [vocab[token] for token in CONTROL_TOKENS] == list(range(16))
    assert 3 not in Tokenizer.from_file(tmp_path).encode("<｜User｜>")


def test_the_same_texts_give_the_same_files(tmp_path):
    texts = ["the quick brown fox", "jumps over the lazy dog " * 3, "ab ba ab ba"]
    for place in ("first", "second"):
        train_tokenizer(iter(texts), tmp_path / place, vocab_size=300)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(TextError, match="expected some text to train a tokenizer on, found none"):
        train_tokenizer([" ", "\n"], tmp_path)
    with pytest.raises(TextError, match="expected text that UTF-8 can hold"):
        train_tokenizer(["a\ud800"], tmp_path)
    with pytest.raises(SettingError, match="vocab_size: expected an integer of at least 272, found 271"):
        train_tokenizer(["a"], tmp_path, vocab_size=271)
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match="file: expected a directory to write to"):
        train_tokenizer(["a"], tmp_path / "file")
