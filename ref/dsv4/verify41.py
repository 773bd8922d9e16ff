"""Comparing one run of a V4.1 model with another: the names of its results, beside those of V4 in `dsv4.verify`.

A file holds the results of several texts, p0, p1, …: "p0.input_ids" and "p0.length", and what a pass over so many of
the ids gives ("p0.prefill.logits"), then one token after another ("p0.decode.logits"), which stops before the last id.
Shapes have no batch axis. "p0.decode.released.…" are results of the released loop (`dsv4.verify41_released`).
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dsv4.config41 import Config41
from dsv4.model.cache import Cache
from dsv4.model41.block import first_pre
from dsv4.model41.model import Model41
from dsv4.model41.source import Published
from dsv4.ops.engram import engram_moduli, engram_multipliers
from dsv4.ops.types import Array, Ints
from dsv4.verify import Difference, Results, differences, require_two
from dsv4.verify41_file import SETTINGS, Text, comparable, settings_of
from dsv4.verify41_released import with_stale_keys
from dsv4.verify_dspark import drafts_of, greedy_rounds, in_columns

OF_ROUND = ("t", "given", "drafts", "accepted", "next")
"""What is stored of each round of a greedy speculative run, below p0.spec."""

OF_LAYERS, OTHERS = ("prefill.layers.",), ("decode.released.", "draft.", "spec.")
"""How the names begin of the parts that a text may have besides its passes."""

Report = Callable[[int, int, str], None]
NOTHING: Results = {}


def compare41(model: Model41, reference: Model41, texts: Sequence[Text], report: Report) -> list[Difference]:
    """How far a model's results are from those of the same model on another backend, or in another dtype.

    report: called after each text, with how many are done. Raises SettingError where nothing could differ.
    """
    require_two(model, reference)
    expected = trace41(reference, texts, report=lambda done, total, what: report(done, 2 * total, what))
    found = trace41(model, texts, expected, lambda done, total, what: report(total + done, 2 * total, what))
    return differences41(found, expected, texts, model.config)


def differences41(
    found: Results, expected: Mapping[str, npt.NDArray[Any]], texts: Sequence[Text], config: Config41
) -> list[Difference]:
    """As `dsv4.verify.differences`, of what there is to compare: pools where entries are visible, and no settings."""
    ours, theirs = (comparable(results, texts, config) for results in (found, expected))
    return differences(ours, theirs)


def trace41(
    model: Model41,
    texts: Sequence[Text],
    expected: Mapping[str, npt.NDArray[Any]] = NOTHING,
    report: Report = lambda done, total, what: None,
) -> Results:
    """A model's results for some texts, by their names in a file.

    expected: the file to compare with. Layers and drafts are computed from what it has of the streams and of the main
    model's states, so that a difference belongs to the part that shows it, and parts of which it has nothing are left
    out. Without it, each part goes on with what the one before has given, and layers are those of the first text.
    report: called after each text, with how many are done.
    """
    results = _constants(model)
    for number, text in enumerate(texts):
        prefix = f"{text.name}."
        given = {name.removeprefix(prefix): one for name, one in expected.items() if name.startswith(prefix)}
        everything = OF_LAYERS + OTHERS if number == 0 else OTHERS
        wanted = given.keys() - SETTINGS if given else everything
        results |= {prefix + name: one for name, one in _of_text(model, text, given, wanted).items()}
        report(number + 1, len(texts), text.name)
    return results


def _of_text(model: Model41, text: Text, given: Results, wanted: Collection[str]) -> Results:
    """A text's results, by names without its own; wanted: names, or how they begin, of what is to be computed."""

    def is_wanted(part: str) -> bool:
        return any(name.startswith(part) for name in wanted)

    results = settings_of(text) | _passes(model, text)
    if is_wanted("decode.released.") and text.steps:
        results |= _under("decode.released.", _decoded(with_stale_keys(model), text)[1])
    if is_wanted("prefill.layers.") or "prefill.engram.hash_ids" in given:
        results |= _under("prefill.", _layers(model, text, given))
    if model.dspark is not None:
        if is_wanted("draft.") or is_wanted("prefill.rings") or is_wanted("decode.rings"):
            results |= _drafts(model, text, results | given)
        if is_wanted("spec.") and (given or (text.length > 1 and len(text.draft_positions))):
            results |= _under("spec.", _rounds(model, text, given))
    return results


def _under(prefix: str, results: Results) -> Results:
    return {prefix + name: one for name, one in results.items()}


def _constants(model: Model41) -> Results:
    """What Engrams hash with: classes [vocab], multipliers [layers, N], primes [layers, N − 1, heads]."""
    engram = model.config.engram
    if engram is None or model.token_classes is None:
        return {}
    count, longest = engram.compressed_vocab_size, engram.max_ngram_size
    return {
        "engram.token_map": model.token_classes,
        "engram.multipliers": np.stack([engram_multipliers(one, count, longest) for one in engram.layer_ids]),
        "engram.primes": engram_moduli(len(engram.layer_ids), longest, engram.n_heads, engram.vocab_size),
    }


def _passes(model: Model41, text: Text) -> Results:
    """Logits and what the drafter reads, of the first pass and of each later token; the choices of these."""
    first, decoded = _decoded(model, text)
    of_prefill = {name: one for name, one in first.items() if name in ("logits", "main_hidden")}
    return _under("prefill.", of_prefill) | _under("decode.", decoded)


def _decoded(model: Model41, text: Text) -> tuple[Results, Results]:
    """What `_pass` tells of the first pass [S, …], and of all later tokens together [steps, …]; nothing without any."""
    cache = model.new_cache(1, max_rollback=0)
    first = _pass(model, text.ids[: text.length], cache)
    end = text.length + text.steps
    steps = [_pass(model, text.ids[t : t + 1], cache) for t in range(text.length, end)]
    return first, {name: np.concatenate([one[name] for one in steps]) for name in first if steps}


def _pass(model: Model41, ids: Ints, cache: Cache) -> Results:
    """One pass over tokens [S]: logits [S, V], main_hidden [S, M·d], and the entries that indexers choose [S, k]."""
    results: Results = {}

    def keep(name: str, result: Array | Ints) -> None:
        if name.endswith("topk"):
            results[name] = _as_wide(model.ops.to_numpy(result)[0], model.config.index_topk)
        elif name == "main_hidden":
            results[name] = model.ops.to_numpy(result)[0]

    logits = model.ops.to_numpy(model(ids[None], cache, observe=keep))[0]
    return {"logits": logits} | results


def _as_wide(chosen: Ints, k: int) -> Ints:
    """[S, at most k] -> [S, k]: −1 for entries that there are not."""
    wide: Ints = np.pad(chosen, [(0, 0), (0, k - chosen.shape[1])], constant_values=-1)
    return wide


def _layers(model: Model41, text: Text, given: Mapping[str, npt.NDArray[Any]]) -> Results:
    """Each layer's results in the first pass, on the expected streams and shares of the layer before where given."""
    ids = text.ids[None, : text.length]
    seen: Results = {}

    def keep(name: str, result: Array | Ints) -> None:
        seen[name] = model.ops.to_numpy(result)

    streams = model.first_streams(model.ops.asarray(ids))
    pre, published = first_pre(model.ops, streams), Published()
    for number in range(len(model.layers)):
        found = model.layer(number, streams, pre, ids, published, keep)
        names = (f"prefill.layers.{number}.{part}" for part in ("out", "pre_mix"))
        streams, pre = (
            np.array(given[name])[None] if name in given else own for name, own in zip(names, found, strict=True)
        )
    return dict(_named(seen, text.length, model.config))


def _named(seen: Results, length: int, config: Config41) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """What layers were seen to compute, as a file has it: without the batch, a pool as a mask of entries."""
    hashes = [one[0] for name, one in seen.items() if name.endswith("engram.hash_ids")]
    if hashes:
        yield "engram.hash_ids", np.stack(hashes, axis=1)
    for name, one in seen.items():
        if ".ffn.gate." in name:  # [S, k], as it is
            yield name.replace(".ffn.gate.", ".gate."), one
        elif name.endswith("candidates"):
            entries = length // config.compress_ratios[int(name.split(".")[1])]
            blocks = np.arange(entries) // config.candidate_block_size
            yield name, (one[0][:, :, None] == blocks).any(axis=1).astype(np.uint8)
        elif name.endswith("topk"):
            yield name, _as_wide(one[0], config.index_topk)
        elif not name.endswith("hash_ids"):
            yield name, one[0]


def _drafts(model: Model41, text: Text, states: Mapping[str, npt.NDArray[Any]]) -> Results:
    """Rings and drafts from the main model's states, expected ones where there are any, and where they were made."""
    assert model.dspark is not None
    settings: Results = {"draft.t": text.draft_positions, "draft.stages.t": text.stage_positions}
    settings |= {name: states[name] for name in settings if name in states}
    first = states["prefill.main_hidden"]
    hidden = {
        "prefill.main_hidden": first[None],
        "decode.main_hidden": states.get("decode.main_hidden", first[:0])[None],
    }
    found = drafts_of(model, model.dspark, text.ids[None], settings | hidden)
    of_stages = ("prefill.rings", "decode.rings", "draft.stages.out")  # the batch is their second axis
    return settings | {name: one[:, 0] if name in of_stages else one[0] for name, one in found.items()}


def _rounds(model: Model41, text: Text, given: Mapping[str, npt.NDArray[Any]]) -> Results:
    """The rounds of a greedy run with drafts behind the first tokens: those expected, or until the text's length."""
    assert model.config.dspark is not None
    places = model.config.dspark.block_size
    expected = {name: given[f"spec.{name}"] for name in OF_ROUND if f"spec.{name}" in given}
    last = max([len(text.ids), *(expected.get("t", np.array([0])) + places + 2)])
    _, rounds = greedy_rounds(model, text.ids[: text.length], int(last) - text.length)
    if not expected:
        rounds = [one for one in rounds if one.position < len(text.ids) - 1 and one.drafts]
        sizes = {name: (len(rounds), *([places] if name == "drafts" else [])) for name in OF_ROUND}
        expected = {name: np.empty(size, np.int64) for name, size in sizes.items()}
    return in_columns(rounds, expected)
