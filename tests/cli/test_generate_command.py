"""`dsv4 generate`: where its text ends, what it takes from generation_config.json, and that no text is lost."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tokenizers

from cli import test_commands
from dsv4 import Checkpoint, bundled_model, generate, load
from dsv4.checkpoint import write_checkpoint
from dsv4.cli import text as text_commands
from dsv4.errors import CheckpointError
from dsv4.text.tokenizer import Tokenizer

# Fixtures: the command, and NumPy's backend for all of it.
dsv4, reference = test_commands.dsv4, test_commands.reference

PROMPTS = ("ROMEO.", "Enter the")
COUNT = 12
"""Tokens of each text, some twenty-five characters."""

TOKENIZER = Tokenizer.from_file(bundled_model())


@pytest.fixture(scope="module")
def greedy():
    """What follows on each prompt: ids and text, with NumPy's backend."""
    ids = [[], []]
    for token in generate(load(backend="numpy"), [*map(TOKENIZER.encode, PROMPTS)], COUNT, temperature=0):
        ids[token.sequence].append(token.id)
    return [(each, TOKENIZER.decode(each, skip_special=True)) for each in ids]


@pytest.mark.parametrize("cut", [(0, 1), (4, 9), (14, 22)])
def test_output_ends_before_a_stop_text(dsv4, greedy, cut) -> None:
    """Stop texts that begin and end anywhere in tokens, streaming, in JSON, and beside a prompt that goes on."""
    romeo = greedy[0][1]
    stop = romeo[slice(*cut)]
    expected = romeo[: romeo.index(stop)]
    options = ("-n", COUNT, "-t", 0, "--stop", "no such text", "--stop", stop)
    assert dsv4("generate", "ROMEO.", *options)[:2] == (0, f"ROMEO.{expected}\n")
    status, out, _ = dsv4("generate", "ROMEO.", *options, "--json")
    (result,) = json.loads(out)["results"]
    assert (status, result["text"]) == (0, expected)
    assert TOKENIZER.decode(result["ids"]).startswith(expected + stop)


def test_a_sequence_without_the_stop_text_goes_on(dsv4, greedy) -> None:
    (_, romeo), (_, other) = greedy
    stop = next(romeo[n : n + 5] for n in range(COUNT) if romeo[n : n + 5] not in other)
    _, out, _ = dsv4("generate", *PROMPTS, "-n", COUNT, "-t", 0, "--stop", stop)
    assert out == f"ROMEO.{romeo[: romeo.index(stop)]}\n\nEnter the{other}\n\n"


def test_a_control_token_may_be_the_stop_text() -> None:
    """The text that is printed does not show it, so that its id is looked for."""
    tokenizer = Tokenizer.from_file(bundled_model())
    assert text_commands._control_ids(tokenizer, ["<｜User｜>", "a", "ROMEO.", "a<｜User｜>", "<｜Assistant｜>"]) == (
        3,
        4,
    )


def test_an_id_without_text_is_no_reason_to_lose_text(dsv4, greedy, tmp_path) -> None:
    """A vocabulary larger than the tokenizer's, whose new ids are as likely as the likeliest old ones."""
    larger = tmp_path / "larger"
    source = Checkpoint.open(bundled_model())
    likely = list(dict.fromkeys(greedy[0][0] + greedy[1][0]))
    extended = ("embed.weight", "head.weight", "layers.0.ffn.gate.tid2eid")
    weights = {name: source.weight(name) for name in source.parameters}
    weights |= {name: np.concatenate([weights[name], weights[name][likely]]) for name in extended}
    config = replace(source.config, vocab_size=1024 + len(likely))
    write_checkpoint(larger, config, weights.items())
    shutil.copy(bundled_model() / "tokenizer.json", larger)
    status, out, err = dsv4("generate", *PROMPTS, "-m", larger, "-t", 1.3, "-s", 1, "-n", COUNT, "--json")
    assert (status, err) == (0, "")
    library = tokenizers.Tokenizer.from_file(str(larger / "tokenizer.json"))
    results = json.loads(out)["results"]
    for result in results:
        assert result["text"] == library.decode(result["ids"], skip_special_tokens=True)
    assert any(token >= 1024 for result in results for token in result["ids"])


@pytest.fixture
def opened(monkeypatch):
    """The bundled model, which a test may break, in the place of what the command would open."""
    model = load(backend="numpy")
    monkeypatch.setattr(text_commands, "open_model", lambda *arguments: (model, TOKENIZER))
    return model


def test_an_error_in_one_sequence_takes_no_text_away(dsv4, opened, greedy) -> None:
    """What one of the two has written ends with a token from which the model makes no numbers."""
    (romeo, text_of_romeo), (other, _) = greedy
    poison = next(token for token in other[2:] if token not in romeo + TOKENIZER.encode("".join(PROMPTS)))
    opened.embed = opened.embed.copy()
    opened.embed[poison] = np.nan
    written = TOKENIZER.decode(other[: other.index(poison) + 1], skip_special=True)
    status, out, err = dsv4("generate", *PROMPTS, "-n", COUNT, "-t", 0)
    assert (status, err) == (2, "dsv4: sequence 1: logits: expected numbers below infinity, found nan for token 0\n")
    assert out == f"ROMEO.{text_of_romeo}\n\nEnter the{written}\n\n"
    status, out, _ = dsv4("generate", *PROMPTS, "-n", COUNT, "-t", 0, "--json")
    assert (status, [result["text"] for result in json.loads(out)["results"]]) == (2, [text_of_romeo, written])
    assert dsv4("generate", PROMPTS[1], "-n", COUNT, "-t", 0)[:2] == (2, f"Enter the{written}\n")


@pytest.mark.parametrize(("error", "status"), [(CheckpointError("broken"), 2), (KeyboardInterrupt(), 130)])
def test_what_was_written_before_an_error_or_an_interruption_is_printed(dsv4, opened, greedy, error, status) -> None:
    """Also the characters that were held back because a stop text might have begun with them."""
    states, left = opened.states, iter(range(5))

    def fail_in_the_end(*arguments):
        if next(left, None) is None:
            raise error
        return states(*arguments)

    opened.states = fail_in_the_end
    expected = TOKENIZER.decode(greedy[0][0][:5])
    found = dsv4("generate", "ROMEO.", "ROMEO.", "-n", COUNT, "-t", 0, "--stop", expected[-2:] + "no such text")
    assert found == (status, f"ROMEO.{expected}\n\n" * 2, "dsv4: broken\n" if status == 2 else "")


def test_generation_config_gives_the_defaults_and_the_command_line_comes_first(dsv4, greedy, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundled_model(), copy)
    file = copy / "generation_config.json"
    file.write_text(json.dumps({"do_sample": False, "top_k": 20, "repetition_penalty": 1.05, "_from": 1}))
    warning = f"dsv4: {file}: not applied, as dsv4 has no such setting: 'top_k', 'repetition_penalty'\n"
    best = TOKENIZER.decode(greedy[0][0][:5])
    assert dsv4("generate", "ROMEO.", "-m", copy, "-n", 5) == (0, f"ROMEO.{best}\n", warning)
    drawn = dsv4("generate", "ROMEO.", "-n", 5, "-t", 1, "--top-p", 0.9, "-s", 3)[1]
    assert (
        dsv4("generate", "ROMEO.", "-m", copy, "-n", 5, "-t", 1, "--top-p", 0.9, "-s", 3)[1]
        == drawn
        != f"ROMEO.{best}\n"
    )
    ends = greedy[0][0][3:5]
    file.write_text(json.dumps({"eos_token_id": ends}))
    ended = json.loads(dsv4("generate", "ROMEO.", "-m", copy, "-n", 9, "-t", 0, "--json")[1])["results"][0]["ids"]
    assert ended == greedy[0][0][: 1 + min(greedy[0][0].index(end) for end in ends)]
    file.write_text("{")
    status, out, err = dsv4("generate", "ROMEO.", "-m", copy)
    assert (status, out) == (2, "")
    assert err.startswith(f"dsv4: {file}: expected a JSON file, found no valid JSON: ") and err.count("\n") == 1


DRAFT_REPORT = re.compile(
    r"accepted (\d+) of (\d+) drafted tokens \(\d+%\); \d\.\d\d tokens per step, "
    r"[\d.]+ times as fast as the steps without drafts\n"
)


def test_a_drafted_text_is_the_plain_one_and_says_what_drafts_gained(dsv4, greedy) -> None:
    """The bundled model has an MTP layer. The fifth step of the run has no drafts, so that there is a speed-up."""
    status, out, err = dsv4("generate", "ROMEO.", "-n", COUNT, "-t", 0, "--speculative")
    assert (status, out) == (0, f"ROMEO.{greedy[0][1]}\n")
    report = DRAFT_REPORT.fullmatch(err)
    assert report and int(report[1]) <= int(report[2])
    status, out, _ = dsv4("generate", *PROMPTS, "-n", COUNT, "-t", 0, "--speculative", "--json")
    found = json.loads(out)
    assert [result["ids"] for result in found["results"]] == [ids for ids, _ in greedy]
    assert found["drafted_by_place"] == [found["drafted"]] and found["accepted_by_place"] == [found["accepted"]]
    assert 1 <= found["tokens_per_step"] <= 2 and found["speedup"] > 0


@pytest.mark.parametrize("rule", [("--draft-schedule",), ("--draft-threshold", 0.5), ("--max-drafts", 1)], ids=str)
def test_rules_for_drafts_do_not_change_greedy_text(dsv4, greedy, rule) -> None:
    status, out, _ = dsv4("generate", "ROMEO.", "-n", COUNT, "-t", 0, "--speculative", *rule)
    assert (status, out) == (0, f"ROMEO.{greedy[0][1]}\n")
    status, _, err = dsv4("generate", "ROMEO.", "-n", COUNT, *rule)
    assert (status, err) == (2, f"dsv4: {rule[0]}: expected it with --speculative, found it without\n")
