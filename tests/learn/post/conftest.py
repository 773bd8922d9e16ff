"""The tokenizer of the worlds, trained once."""

import pytest

from dsv4.learn.post.worlds.vocabulary import world_tokenizer
from dsv4.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizer")
    world_tokenizer(directory)
    return directory


@pytest.fixture(scope="session")
def tokenizer(tokenizer_directory):
    return Tokenizer.from_file(tokenizer_directory)
