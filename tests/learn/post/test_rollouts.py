"""Rollouts: the same tokens as generation's, how they came about, and what a killed process leaves of them."""

import json
from dataclasses import replace

import numpy as np
import pytest

import tiny
from dsv4.errors import PromptError, SettingError, TrainingError
from dsv4.learn.post.recording import RecordingModel
from dsv4.learn.post.rollouts import Drawing
from dsv4.text.generate import generate
from learn.post.drawing import DRAWING, PROMPTS, draw, killed_at, model, same
from learn.runs import KilledError


@pytest.fixture(scope="module")
def actor():
    return model()


@pytest.fixture(scope="module")
def rollouts(actor, tmp_path_factory):
    """Drawn without a disturbance."""
    return draw(tmp_path_factory.mktemp("rollouts") / "0.jsonl", actor)


def test_the_tokens_are_those_that_generate_draws(actor, rollouts):
    settings = {"temperature": DRAWING.temperature, "top_p": DRAWING.top_p, "seed": DRAWING.seed}
    expected = [[] for _ in PROMPTS]
    for token in generate(actor, [list(prompt) for prompt in PROMPTS], DRAWING.window, **settings):
        expected[token.sequence].append(token.id)
    assert [one.answer.tolist() for one in rollouts] == expected
    assert len({len(answer) for answer in expected}) > 1


def log_shares(logits, temperature, top_p):
    """log of the shares of a nucleus, written as its definition says; −∞ outside."""
    exponential = np.exp((logits - logits.max()) / temperature)
    probabilities = exponential / exponential.sum()
    kept, mass = [], 0.0
    for token in sorted(range(len(logits)), key=lambda one: (-probabilities[one], one)):
        if mass >= top_p:
            break
        kept.append(token)
        mass += probabilities[token]
    shares = np.full(len(logits), -np.inf)
    shares[kept] = np.log(probabilities[kept] / mass)
    return shares


def test_the_samplers_numbers_are_those_of_a_pass_over_the_whole(actor, rollouts):
    for one in rollouts:
        tokens = np.concatenate([one.prompt, one.answer])
        logits = actor(tokens[:-1])[0, len(one.prompt) - 1 :]
        for place, token in enumerate(one.answer):
            expected = log_shares(logits[place], DRAWING.temperature, DRAWING.top_p)
            np.testing.assert_allclose(one.log_old[place], expected[token], rtol=1e-9)
            assert one.kept[place] == np.nonzero(np.isfinite(expected))[0].tolist()
    assert min(len(kept) for one in rollouts for kept in one.kept) < 40


def test_the_choices_are_those_of_a_pass_over_the_whole(actor, rollouts):
    for one in rollouts:
        seen = {}
        actor.states(np.concatenate([one.prompt, one.answer])[:-1], observe=seen.__setitem__)
        assert set(one.choices.experts) == {f"layers.{n}.ffn.gate." for n in (1, 2, 3)}
        for gate, experts in one.choices.experts.items():
            np.testing.assert_array_equal(experts, seen[f"{gate}indices"])
        assert set(one.choices.entries) == {"layers.1.attn.", "layers.3.attn."}
        for attn, entries in one.choices.entries.items():
            expected = seen[f"{attn}indexer.topk"][0]
            np.testing.assert_array_equal(entries[:, : expected.shape[1]], expected)
            assert entries.shape[1] == actor.config.index_topk and (entries[:, expected.shape[1] :] == -1).all()


def test_a_prompt_in_chunks_is_recorded_whole(actor):
    recording = RecordingModel(actor, 1)
    cache, tokens = recording.new_cache(), tiny.tokens(9, 11)
    for some in (tokens[:3], tokens[3:4], tokens[4:]):
        recording.states(some, cache)
    in_parts = recording.take(0)
    recording.states(tokens)
    whole = recording.take(0)
    for part, expected in zip(in_parts, whole, strict=True):
        for name, array in expected.items():
            np.testing.assert_array_equal(part[name], array)


@pytest.mark.parametrize("count", [1, 3, 20, 41])
def test_a_run_that_is_killed_goes_on_with_every_rollout(count, actor, rollouts, tmp_path):
    """Not even a token is drawn anew: the file only grows, and ends with the same bits."""
    file = tmp_path / "0.jsonl"
    with pytest.raises(KilledError):
        draw(file, actor, watch=killed_at(count))
    before = file.read_bytes()
    assert before.count(b"\n") == count + 1
    same(draw(file, actor), rollouts)
    assert file.read_bytes().startswith(before)


def test_a_line_that_was_cut_is_drawn_again(actor, rollouts, tmp_path):
    file = tmp_path / "0.jsonl"
    draw(file, actor)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    same(draw(file, actor), rollouts)
    assert file.read_bytes() == whole


def test_what_was_drawn_before_stays_even_if_it_would_be_drawn_otherwise_now(actor, rollouts, tmp_path):
    """As after a change of the machine: tokens on disk are facts, and what follows follows them."""
    file = tmp_path / "0.jsonl"
    with pytest.raises(KilledError):
        draw(file, actor, watch=killed_at(6))
    head, *lines = (json.loads(line) for line in file.read_text().splitlines())
    assert [line["sequence"] for line in lines] == [0, 1, 2, 0, 1, 2]
    other = next(one for one in lines[3]["kept"] if one not in (lines[3]["id"], actor.config.eos_token_id))
    lines[3] |= {"id": other, "log_old": -1.25}
    file.write_text("".join(json.dumps(line) + "\n" for line in (head, *lines)))
    found = draw(file, actor)
    assert found[0].answer[:2].tolist() == [lines[0]["id"], other]
    assert found[0].log_old[1] == -1.25
    logits = actor(np.concatenate([found[0].prompt, found[0].answer])[:-1])[0, len(found[0].prompt) - 1 :]
    expected = log_shares(logits[2], DRAWING.temperature, DRAWING.top_p)
    np.testing.assert_allclose(found[0].log_old[2], expected[found[0].answer[2]], rtol=1e-9)
    for one, before in zip(found[1:], rollouts[1:], strict=True):  # experts may read a token with others beside it now
        np.testing.assert_array_equal(one.answer, before.answer)
        np.testing.assert_allclose(one.log_old, before.log_old, rtol=1e-9)


def test_all_backends_draw_the_same_tokens(backend, tmp_path):
    expected = draw(tmp_path / "numpy.jsonl", model(dtype=np.float32))
    found = draw(tmp_path / "other.jsonl", model(backend, np.float32))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.answer, other.answer)
        np.testing.assert_allclose(one.log_old, other.log_old, atol=1e-4)


def test_a_file_of_other_rollouts_is_refused(actor, tmp_path):
    file = tmp_path / "0.jsonl"
    draw(file, actor, replace(DRAWING, window=1))
    with pytest.raises(TrainingError, match=r"0\.jsonl: expected rollouts of the same prompts and settings, found oth"):
        draw(file, actor)


def test_a_damaged_file_is_named(actor, tmp_path):
    file = tmp_path / "0.jsonl"
    draw(file, actor, replace(DRAWING, window=1))
    file.write_text(file.read_text() + '{"sequence": 9}\n')
    with pytest.raises(
        TrainingError, match=r"0\.jsonl, line 5: expected a token of a rollout, found \{'sequence': 9\}$"
    ):
        draw(file, actor, replace(DRAWING, window=1))


def test_a_window_that_does_not_fit_is_an_error(actor, tmp_path):
    expected = r"prompt 1: expected at most 10 tokens, so that a window of 590 fits in the context of 600, found 14"
    with pytest.raises(PromptError, match=f"^{expected}$"):
        draw(tmp_path / "0.jsonl", actor, Drawing(window=590))


def test_the_best_token_alone_is_no_policy(actor, tmp_path):
    with pytest.raises(SettingError, match=r"^temperature: expected a number above 0 for a rollout, found 0$"):
        draw(tmp_path / "0.jsonl", actor, Drawing(window=2, temperature=0))


def test_logits_that_are_no_numbers_end_it_with_one_line(tmp_path):
    broken = model(source=tiny.checkpoint().changed(**{"head__weight": lambda weight: np.full_like(weight, np.nan)}))
    with pytest.raises(
        TrainingError, match=r"0\.jsonl: sequence 0: logits: expected numbers below infinity, found nan"
    ):
        draw(tmp_path / "0.jsonl", broken, Drawing(window=3))
