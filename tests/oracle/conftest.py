"""Fixtures of the oracle suite: the side that needs torch, or a visible skip that says what is missing."""

import importlib

import pytest

NEEDED = "needs torch and transformers: pip install 'dsv4[oracle]'"
V41_CLASS = "DeepseekV41ForCausalLM"


@pytest.fixture(scope="session")
def theirs():
    """The module `oracle.theirs`, imported only when an oracle test runs: the core never needs torch."""
    pytest.importorskip("torch", reason=f"the oracle suite {NEEDED}")
    transformers = pytest.importorskip("transformers", reason=f"the oracle suite {NEEDED}")
    if not hasattr(transformers, "DeepseekV4ForCausalLM"):
        pytest.skip(f"the oracle suite needs a transformers that has DeepSeek-V4, found {transformers.__version__}")
    return importlib.import_module("oracle.theirs")


@pytest.fixture(scope="session")
def transformers41():
    """transformers, where it has V4.1; else a visible skip that says which version has not."""
    pytest.importorskip("torch", reason=f"the oracle suite {NEEDED}")
    transformers = pytest.importorskip("transformers", reason=f"the oracle suite {NEEDED}")
    if V41_CLASS not in dir(transformers):
        pytest.skip(f"V4.1 needs a transformers that has {V41_CLASS}, found {transformers.__version__}")
    return transformers
