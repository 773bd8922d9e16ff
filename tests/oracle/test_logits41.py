"""V4.1 in transformers, as soon as a version has it: the logits of the small model with float weights."""

import numpy as np
import pytest

from model41.golden41 import GOLDEN, PROMPTS, expected, prompt

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("row", PROMPTS)
def test_prompts_have_the_official_logits(transformers41, row):
    import torch

    model = transformers41.AutoModelForCausalLM.from_pretrained(GOLDEN / "v41_float", dtype=torch.float32).eval()
    ids, length = prompt("v41_float", row)
    with torch.no_grad():
        logits = model(torch.tensor(ids[None, :length])).logits[0].numpy()
    np.testing.assert_allclose(logits, expected("v41_float")[f"{row}.prefill.logits"], rtol=0, atol=2e-4)
