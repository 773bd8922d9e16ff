"""The bundled model on the kernels: the text is NumPy's, and nothing but its tokens leaves the device."""

import numpy as np
import pytest

from cuda.host_array import HostArray
from dsv4.checkpoint import Checkpoint
from dsv4.loading import bundled_model
from dsv4.model.model import Model
from dsv4.ops import Ops
from dsv4.text.generate import generate

PROMPT = [5, 17, 3, 250, 44, 9, 120, 31, 8]
LENGTH = 6


@pytest.fixture(scope="module")
def models(hasty):
    """The model on what stands for a GPU, and on NumPy. It rounds, as the released models do."""
    checkpoint = Checkpoint.open(bundled_model())
    return Model(checkpoint, hasty, fake_quant=True), Model(checkpoint, Ops(), fake_quant=True)


def text(model) -> list[int]:
    return [token.id for token in generate(model, PROMPT, max_new_tokens=LENGTH, temperature=0, stop_ids=[])]


def test_the_same_text_and_only_tokens_leave_the_device(models):
    ours, numpys = models
    expected = text(numpys)
    HostArray.fetched = 0
    assert text(ours) == expected
    assert HostArray.fetched == LENGTH


def test_a_step_behind_a_prompt_has_numpys_logits(models):
    logits = []
    for model in models:
        cache = model.new_cache()
        model([PROMPT], cache)
        logits.append(model.ops.to_numpy(model([[7]], cache)))
    np.testing.assert_allclose(*logits, rtol=0, atol=1e-3 * logits[1].std())
