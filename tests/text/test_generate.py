"""Generation: several prompts as if each were alone, ends, and drafts that change the speed but not the text."""

import functools
import itertools

import numpy as np
import pytest

import tiny
from dsv4.errors import CheckpointError, DSV4Error, PromptError, SettingError
from dsv4.text.generate import generate
from dsv4.text.sampling import Sampler

PROMPTS = [tiny.tokens(seed, length).tolist() for seed, length in ((1, 2), (2, 7), (3, 125), (4, 31))]


def small(weights):
    return weights * np.float32(0.25)


@functools.cache
def drafting(agreement):
    """A checkpoint whose MTP layer guesses the next token always, sometimes or never.

    Each block adds little, so that a token mostly decides on the next; the MTP layer is given that token alone, and
    predicts what the head makes of it. Blocks that add nothing make it certain, and a head upside down impossible.
    """
    block = small if agreement == "sometimes" else np.zeros_like
    changes = {"wo_b__weight": block, "w2__weight": block, "mtp__0__h_proj__weight": np.zeros_like}
    changes |= {"mtp__0__e_proj__weight": lambda weight: np.eye(len(weight), dtype=weight.dtype)}
    changed = tiny.checkpoint(seed=5).changed(**changes, mtp__0__enorm__weight=np.ones_like)
    head = {f"mtp.0.{part}": changed.weights[part] for part in ("hc_head_fn", "hc_head_base", "hc_head_scale")}
    sign = -1 if agreement == "never" else 1
    changed.weights |= head | {"mtp.0.norm.weight": sign * changed.weights["norm.weight"]}
    return changed


def texts(generation, count=1):
    """The ids of each sequence."""
    found = [[] for _ in range(count)]
    for token in generation:
        found[token.sequence].append(token.id)
    return found


def greedy(model, prompts, **options):
    options = {"temperature": 0, "stop_ids": [], "max_new_tokens": 12} | options
    return texts(generate(model, prompts, **options), len(prompts))


def by_hand(model, prompt, count):
    """Greedy tokens from one whole pass each."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(np.argmax(model.ops.to_numpy(model(ids))[0, -1])))
    return ids[len(prompt) :]


@pytest.fixture(scope="module")
def model(backend):
    return tiny.model(backend, max_position_embeddings=150)


def test_greedy_is_the_best_token_of_a_whole_pass_each(model):
    assert greedy(model, PROMPTS) == [by_hand(model, prompt, 12) for prompt in PROMPTS]


@pytest.mark.parametrize("speculative", [False, True])
def test_each_prompt_may_have_settings_of_its_own(model, speculative):
    options = {"seed": 5, "stop_ids": [], "max_new_tokens": 8, "speculative": speculative}
    settings = [(0, 1), (1.5, 1), (0.7, 0.5), (1, 0.9)]
    temperatures, top_ps = zip(*settings, strict=True)
    found = texts(generate(model, PROMPTS, temperature=temperatures, top_p=top_ps, **options), 4)
    for number, (temperature, top_p) in enumerate(settings):
        alike = texts(generate(model, PROMPTS, temperature=temperature, top_p=top_p, **options), 4)
        assert found[number] == alike[number]


def test_one_prompt_may_come_as_a_list_or_an_array(model):
    expected = greedy(model, [PROMPTS[0]])
    for ids in (PROMPTS[0], np.array(PROMPTS[0]), np.array([PROMPTS[0]])):
        assert texts(generate(model, ids, max_new_tokens=12, temperature=0, stop_ids=[])) == expected


@pytest.mark.parametrize("speculative", [False, True])
@pytest.mark.parametrize("chunk", [1, 4, 30, 125, 128])
def test_the_prefill_chunk_does_not_matter(model, chunk, speculative):
    found = greedy(model, PROMPTS, prefill_chunk=chunk, speculative=speculative, max_new_tokens=6)
    assert found == [by_hand(model, prompt, 6) for prompt in PROMPTS]


@pytest.mark.parametrize("speculative", [False, True])
def test_samples_do_not_depend_on_the_other_prompts(model, speculative):
    options = {"seed": 5, "max_new_tokens": 10, "speculative": speculative}
    together = texts(generate(model, PROMPTS, **options), 4)
    assert together[:2] == texts(generate(model, PROMPTS[:2], **options), 2)
    assert together == texts(generate(model, PROMPTS, **options), 4)
    assert together != texts(generate(model, PROMPTS, **(options | {"seed": 6})), 4)


@pytest.mark.parametrize("speculative", [False, True])
def test_a_stop_id_is_the_last_token(model, speculative):
    plain = greedy(model, PROMPTS)
    stop = plain[1][4]
    expected = [ids[: ids.index(stop) + 1] if stop in ids else ids for ids in plain]
    assert len(expected[1]) < 12
    assert greedy(model, PROMPTS, stop_ids=[stop, 10**6], speculative=speculative) == expected


def test_the_end_token_stops_by_default(backend):
    source = tiny.checkpoint(max_position_embeddings=150)
    expected = greedy(tiny.model(backend, source), [PROMPTS[1]])[0]
    end = expected[3]
    source = tiny.TinyCheckpoint(tiny.config(eos_token_id=end), source.weights)
    found = texts(generate(tiny.model(backend, source), PROMPTS[1], temperature=0))[0]
    assert found == expected[: expected.index(end) + 1]


@pytest.mark.parametrize("speculative", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_never_more_than_max_new_tokens(model, count, speculative):
    expected = [by_hand(model, prompt, count) for prompt in PROMPTS]
    assert greedy(model, PROMPTS, max_new_tokens=count, speculative=speculative) == expected


@pytest.mark.parametrize("speculative", [False, True])
@pytest.mark.parametrize("length", [148, 149, 150])
def test_the_context_ends_a_sequence(model, length, speculative):
    """The last token is not read again, so that one more fits than there are positions."""
    prompts = [tiny.tokens(9, length).tolist(), PROMPTS[0]]
    expected = [by_hand(model, prompts[0], 151 - length), by_hand(model, prompts[1], 6)]
    assert greedy(model, prompts, max_new_tokens=6, speculative=speculative) == expected


@pytest.mark.parametrize("prompts", [[[5]], [[5], [1, 2, 3]]])
def test_drafts_for_a_prompt_of_one_token(model, prompts):
    assert greedy(model, prompts, speculative=True) == [by_hand(model, prompt, 12) for prompt in prompts]


@pytest.mark.parametrize(("agreement", "least", "most"), [("never", 0, 0), ("sometimes", 0.2, 0.95), ("always", 1, 1)])
def test_drafts_do_not_change_greedy_text(backend, agreement, least, most):
    """Across blocks of 4 and of 128, with prompts at different places in their blocks."""
    model = tiny.model(backend, drafting(agreement))
    options = {"temperature": 0, "stop_ids": [], "max_new_tokens": 40}
    plain = texts(generate(model, PROMPTS, **options), 4)
    drafted = generate(model, PROMPTS, **options, speculative=True)
    assert drafted.acceptance_rate == 0
    assert texts(drafted, 4) == plain
    assert least <= drafted.acceptance_rate <= most
    assert drafted.acceptance_rate == drafted.accepted / drafted.drafted
    steps = 4 * 39 - drafted.accepted  # all tokens but each first one come from drafts or from steps of their own
    assert steps - 4 <= drafted.drafted <= steps


def test_drafts_are_those_of_whole_passes(backend):
    """The MTP layer has read the prompt, too: its drafts, and so what is accepted, are those of one pass each."""
    source = drafting("sometimes")
    louder = {name: weight * 6 for name, weight in source.weights.items() if name == "mtp.0.attn.wo_b.weight"}
    model = tiny.model(backend, tiny.TinyCheckpoint(source.config, source.weights | louder))
    accepted = drafted = 0
    for prompt in PROMPTS:
        ids = prompt + by_hand(model, prompt, 30)
        states = model.states(ids)
        drafts = np.argmax(model.ops.to_numpy(model.mtp_logits(states[:, :-2], ids[1:-1]))[0], axis=-1)
        newest = len(prompt)
        while newest < len(ids) - 2:  # the last token of all is not drafted
            keeps = int(drafts[newest - 1] == ids[newest + 1])
            drafted, accepted, newest = drafted + 1, accepted + keeps, newest + 1 + keeps
    generation = generate(model, PROMPTS, 30, temperature=0, stop_ids=[], speculative=True, prefill_chunk=9)
    texts(generation, len(PROMPTS))
    assert (generation.drafted, generation.accepted) == (drafted, accepted)
    assert 0.1 < generation.acceptance_rate < 0.9


@pytest.mark.parametrize("agreement", ["sometimes", "always"])
def test_drafts_and_stop_ids(backend, agreement):
    """A stop id ends the sequence whether it is a kept draft or the token behind one."""
    model = tiny.model(backend, drafting(agreement))
    plain = greedy(model, PROMPTS, max_new_tokens=20)
    for stop in sorted({ids[place] for ids in plain for place in (1, 2, 3, 4)}):
        expected = [ids[: ids.index(stop) + 1] if stop in ids else ids for ids in plain]
        assert greedy(model, PROMPTS, max_new_tokens=20, stop_ids=[stop], speculative=True) == expected


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.8)])
def test_drafts_do_not_change_the_distribution(backend, temperature, top_p):
    """All texts of three tokens: their frequencies in 4000 runs against their exact probabilities."""
    runs, vocab, prompt = 4000, 4, [1, 2, 3, 0, 2, 1]
    ratios = {"compress_ratios": (4, 0), "num_hash_layers": 1}
    model = tiny.model(backend, vocab_size=vocab, **ratios, eos_token_id=0)
    options = {"temperature": temperature, "top_p": top_p, "seed": 1, "stop_ids": [], "max_new_tokens": 3}
    generation = generate(model, [prompt] * runs, **options, speculative=True)
    found = texts(generation, runs)
    assert 0.2 < generation.acceptance_rate < 0.9
    for expected, counts in zip(
        exact(model, prompt, Sampler(temperature, top_p, 0, 1)), tally(found, vocab), strict=True
    ):
        assert not counts[expected == 0].any()
        possible = expected > 0
        chi_square = ((counts - runs * expected)[possible] ** 2 / (runs * expected)[possible]).sum()
        freedom = possible.sum() - 1
        assert chi_square < freedom + 5 * np.sqrt(2 * freedom)


def exact(model, prompt, sampler):
    """The probabilities of all first tokens, of all pairs, and of all texts of three tokens."""
    vocab = model.config.vocab_size
    shares = np.ones(1)
    for length in range(3):
        prefixes = np.array([prompt + list(text) for text in itertools.product(range(vocab), repeat=length)])
        logits = model.ops.to_numpy(model(prefixes))[:, -1]
        shares = (shares[:, None] * np.stack([sampler.distribution(row, 0) for row in logits])).reshape(-1)
        yield shares


def tally(found, vocab):
    """How often each text of one, two and three tokens occurs."""
    numbers = np.array(found)
    for length in (1, 2, 3):
        codes = numbers[:, :length] @ vocab ** np.arange(length - 1, -1, -1)
        yield np.bincount(codes, minlength=vocab**length)


SHORT = [[1, 2], [3, 4, 5], [6], [2, 2]]


def until_failure(generation, count):
    """The ids of each sequence, and the error in the end."""
    found = [[] for _ in range(count)]
    with np.errstate(all="ignore"), pytest.raises(DSV4Error) as caught:
        for token in generation:
            found[token.sequence].append(token.id)
    return found, str(caught.value)


@pytest.mark.parametrize("speculative", [False, True])
@pytest.mark.parametrize("settings", [{"temperature": 0}, {"seed": 3}], ids=["greedy", "drawn"])
@pytest.mark.parametrize("agreement", ["sometimes", "always"])
def test_a_token_that_makes_no_numbers_ends_its_own_sequence_only(backend, agreement, settings, speculative):
    """Its embedding is NaN: the sequences that come to it give it and then fail, the others are what they were."""
    source, options = drafting(agreement), settings | {"stop_ids": [], "speculative": speculative, "max_new_tokens": 12}
    whole = texts(generate(tiny.model(backend, source), SHORT, **options), len(SHORT))
    poisons = [token for token in whole[1][1:-2] if token not in [*itertools.chain(*SHORT), *whole[0]]]
    assert poisons, whole
    rows = np.arange(source.config.vocab_size)[:, None]
    broken = source.changed(embed__weight=lambda weight: np.where(rows == poisons[0], np.float32(np.nan), weight))
    found, message = until_failure(generate(tiny.model(backend, broken), SHORT, **options), len(SHORT))
    expected = [ids[: ids.index(poisons[0]) + 1] if poisons[0] in ids else ids for ids in whole]
    assert found == expected
    failed = sum(len(ids) < 12 for ids in expected)
    assert failed < len(SHORT)
    more = f" ({failed - 1} more failed, too)" if failed > 1 else ""
    assert message == f"sequence 1: logits: expected numbers below infinity, found nan for token 0{more}"


@pytest.mark.parametrize("temperature", [0, 1])
def test_no_token_is_taken_where_none_has_a_number(backend, temperature):
    model = tiny.model(backend)
    head = model.head
    model.head = lambda states: head(states) * 0 - np.inf
    found, message = until_failure(generate(model, [[1, 2], [3]], temperature=temperature), 2)
    assert found == [[], []]
    expected = "logits: expected a number for at least one token, found -inf for all of them"
    assert message == f"sequence 0: {expected} (1 more failed, too)"


@pytest.mark.parametrize("speculative", [False, True])
@pytest.mark.parametrize("agreement", ["sometimes", "always"])
def test_whoever_takes_the_tokens_may_end_a_sequence(backend, agreement, speculative):
    """Its own one at its fourth token, and the one behind it whose turn has not come in that step."""
    model = tiny.model(backend, drafting(agreement))
    options = {"temperature": 0, "stop_ids": [], "max_new_tokens": 12, "speculative": speculative}
    whole = texts(generate(model, SHORT, **options), len(SHORT))
    generation, found = generate(model, SHORT, **options), [[] for _ in SHORT]
    for token in generation:
        found[token.sequence].append(token.id)
        if len(found[1]) == 4:
            generation.end(1)
            generation.end(np.int64(2))
    assert [found[0], found[1], found[3]] == [whole[0], whole[1][:4], whole[3]]
    assert found[2] == whole[2][: len(found[2])] and 3 <= len(found[2]) < 12
    for sequence in (4, -1, 1.0, True, None):
        with pytest.raises(SettingError, match="sequence: expected an integer from 0 to 3, found"):
            generation.end(sequence)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ({name: value}, f"{name}: expected an integer of at least 1, found {value!r}$")
            for name in ("max_new_tokens", "prefill_chunk")
            for value in (0, -3, 2.5, 3.0, None, "5", True)
        ),
        ({"temperature": -1.0}, "temperature: expected a number of at least 0, found -1.0"),
        ({"temperature": "0"}, "temperature: expected a finite number, found '0'"),
        ({"temperature": None}, "temperature: expected a finite number, found None"),
        ({"top_p": 0.0}, "top_p: expected a number above 0 and at most 1, found 0.0"),
        ({"top_p": True}, "top_p: expected a finite number, found True"),
        ({"seed": -1}, "seed: expected .*, found -1"),
        ({"seed": 1.0}, "seed: expected .*, found 1.0"),
        ({"stop_ids": 1}, "stop_ids: expected a list of token ids, found 1"),
        ({"stop_ids": "\n"}, r"stop_ids: expected a list of token ids, found '\\n'"),
        ({"stop_ids": ["\n"]}, r"stop_ids: expected an integer of at least 0, found '\\n'"),
        ({"stop_ids": [1.0]}, "stop_ids: expected an integer of at least 0, found 1.0"),
        ({"stop_ids": [True]}, "stop_ids: expected an integer of at least 0, found True"),
        ({"stop_ids": {-1}}, "stop_ids: expected an integer of at least 0, found -1"),
        (
            {"speculative": "no"},
            "speculative: expected True, False or a Drafter, which has max_drafts, read and draft, found 'no'",
        ),
        ({"speculative": 1}, "speculative: expected True, False or a Drafter, .*, found 1"),
    ],
)
def test_settings_out_of_range(model, options, message):
    with pytest.raises(SettingError, match=message):
        generate(model, PROMPTS[0], **options)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "prompt 0: expected at least one token, found none"),
        ([[1], []], "prompt 1: expected at least one token, found none"),
        ([[1], [2] * 151], "prompt 1: expected at most 150 tokens, found 151"),
        ([1.5, 2.5], r"prompt 0: expected a list of integers, found float64 \(2,\)"),
        ([[1], [[2]]], r"prompt 1: expected a list of integers, found int64 \(1, 1\)"),
        ([[1, [2]]], "prompt 0: expected a list of integers"),
        ("ROMEO.", "prompt 0: expected a list of integers, found the text 'ROMEO.'"),
        (["ROMEO.", "O"], "prompt 0: expected a list of integers, found the text 'ROMEO.'"),
        (b"RO", "prompt 0: expected a list of integers, found the text b'RO'"),
        (5, "prompt: expected a list of token ids or several lists, found 5"),
        (None, "prompt: expected a list of token ids or several lists, found None"),
        (np.array(5), "prompt: expected a list of token ids or several lists, found array"),
        (iter([1, 2]), "prompt: expected a list of token ids or several lists, found <list_iterator"),
        ([True, False], "prompt 0: expected a list of integers, found bool"),
        ({1, 2}, "prompt 0: expected a list of integers, found object"),
        ([[1], [2**70]], "prompt 1: expected a list of integers, found object"),
        (np.array([2**63 + 1], np.uint64), "token ids: expected 0 … 39, found 9223372036854775809 at token 0"),
        ([[1, 2], [3, 40]], "token ids: expected 0 … 39, found 40 at token 1 of sequence 1"),
    ],
)
def test_prompts_that_are_none(model, prompts, message):
    with pytest.raises(PromptError, match=message):
        list(generate(model, prompts, max_new_tokens=2))


def test_a_model_that_is_none():
    with pytest.raises(SettingError, match=r"model: expected a model from dsv4\.load, found 'model'"):
        generate("model", [1])


def test_numbers_of_numpy_are_numbers(model):
    """Also prompts of different dtypes, which NumPy would join into floats."""
    expected = texts(generate(model, [[1, 2], [3]], 4, temperature=0.5, seed=2, stop_ids=[7], prefill_chunk=2), 2)
    prompts = [np.array([1, 2], np.uint64), np.array([3], np.int8)]
    numbers = {"temperature": np.float32(0.5), "seed": np.uint8(2), "prefill_chunk": np.int16(2)}
    found = generate(model, prompts, np.int64(4), **numbers, stop_ids=np.array([7]), speculative=np.bool(False))
    assert texts(found, 2) == expected


def test_ids_are_looked_at_before_anything_is_generated(model):
    with pytest.raises(PromptError, match="found 40 at token 0 of sequence 1"):
        generate(model, [[1], [40]])


def test_more_tokens_than_any_number_holds_end_with_the_context(model):
    found = texts(generate(model, [PROMPTS[0]], 10**30, temperature=0, stop_ids=[]), 1)
    assert len(PROMPTS[0]) + len(found[0]) == model.config.max_position_embeddings + 1


def test_drafts_need_an_mtp_layer(backend):
    model = tiny.model(backend, compress_ratios=(0, 4), num_nextn_predict_layers=0)
    with pytest.raises(CheckpointError, match="tiny: expected an MTP layer to draft with, found none"):
        generate(model, [1, 2], speculative=True)
