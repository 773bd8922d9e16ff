"""The bench: contestants in turns, arithmetic on given times, bytes as arrays have them, verdicts, and the command."""

import json
import re
import subprocess
import sys
from contextlib import closing, nullcontext
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest

import tiny
from counting import CountingOps, NamedCheckpoint
from dsv4 import BackendError, Checkpoint, SettingError, learn
from dsv4.backends import backend
from dsv4.checkpoint import read_config
from dsv4.model.block import Block
from dsv4.model.model import Model
from dsv4.ops import OPERATIONS, Fp4Weight, Ops
from dsv4.ops.formats import FP4_VALUES
from dsv4.ops.mhc import sinkhorn
from dsv4.ops.quantise import dequantise
from dsv4_accel.bench import run as run_module
from dsv4_accel.bench.case import ROOF, Case, Contest, Goal, Row, Verdict, judge
from dsv4_accel.bench.layer import LAYER, LargeLayer, decode_bytes, filled_cache, write_layer
from dsv4_accel.bench.machine import describe_machine
from dsv4_accel.bench.models import BATCHES, ONE_BY_ONE, layer_multiply_adds, layer_steps, model_cases
from dsv4_accel.bench.operations import operation_cases
from dsv4_accel.bench.peer_ggml import mxfp4_blocks, open_peer
from dsv4_accel.bench.peers import Peers
from dsv4_accel.bench.processes import portable_cases
from dsv4_accel.bench.product_rate import DENSE, MOST_ROWS, SIDE, beside_dense
from dsv4_accel.bench.products import TORCH_BF16, product_cases
from dsv4_accel.bench.report import COLUMNS, as_markdown, as_text, goal_in_words
from dsv4_accel.bench.roof import Roof, thread_count
from dsv4_accel.bench.run import Report
from dsv4_accel.bench.selection import NUMPY_FLOATS, selection_cases
from dsv4_accel.bench.stage import NUMPY, OURS, Stage, nbytes
from dsv4_accel.bench.timing import QUICK, Contestant, Pace, Spread, alternate, ratio, spread
from dsv4_accel.bench.training import training_cases

DATA = Path(__file__).parents[1] / "data"

TINY = replace(
    LAYER,
    hidden_size=64,
    num_attention_heads=4,
    head_dim=64,
    qk_rope_head_dim=16,
    q_lora_rank=32,
    o_lora_rank=16,
    o_groups=2,
    sliding_window=8,
    index_n_heads=4,
    index_head_dim=32,
    index_topk=16,
    n_routed_experts=8,
    num_experts_per_tok=2,
    moe_intermediate_size=32,
    vocab_size=32,
)
"""The large layer in small."""


class FakeTime:
    """A clock that stands still but for what runs by it; `order` is what ran."""

    def __init__(self) -> None:
        self.now, self.order = 0.0, []

    def contestant(self, name: str, seconds: float, **settings) -> Contestant:
        def call() -> None:
            self.order.append(name)
            self.now += seconds

        return Contestant(call, lambda: self.order.append(f"before {name}"), **settings)

    def alternate(self, pace: Pace, **contestants) -> dict[str, list[float]]:
        return alternate(contestants, pace, lambda: self.now, lambda seconds: self.order.append("rest"))


def stage(ops=None, **settings) -> Stage:
    """A stage without peers, with two weights, or two calls' arguments, that take turns."""
    given = {
        "ops": ops or Ops(),
        "pace": QUICK,
        "roof": Roof(2**20, 1),
        "threads": 1,
        "rotation_bytes": 1,
        "peers": Peers(wanted=False),
        "layer": LargeLayer(),
    }
    return Stage(**given | settings)


def test_contestants_run_in_turns_and_a_slow_one_stops_earlier() -> None:
    time = FakeTime()
    pace = Pace(budget=10, batch=0, rest=1, most_rounds=5)
    found = time.alternate(pace, a=time.contestant("a", 1), b=time.contestant("b", 2))
    calls = [name for name in time.order if name in "ab"]
    assert calls == list("aabb" + "ababab" + "aa")
    assert found == {"a": [1] * 5, "b": [2] * 3}
    assert time.order.count("rest") == 8


def test_a_batch_is_prepared_once_and_its_first_call_is_not_timed() -> None:
    time = FakeTime()
    pace = Pace(budget=0.5, batch=4, rest=0, most_rounds=7)
    found = time.alternate(pace, a=time.contestant("a", 1))
    assert found == {"a": [1.0]}  # a call longer than the budget: a single round
    assert time.order == ["before a", "a"] * 2 + ["rest", "before a", *"aaaaa"]


def test_a_single_call_is_neither_batched_nor_warmed_up() -> None:
    time = FakeTime()
    pace = Pace(budget=2, batch=4, rest=0, most_rounds=2)
    assert time.alternate(pace, a=time.contestant("a", 1, single=True)) == {"a": [1, 1]}
    assert time.order == ["before a", "a"] * 2 + ["rest", "before a", "a"] * 2


def test_short_calls_are_timed_in_batches() -> None:
    time = FakeTime()
    pace = Pace(budget=1, batch=0.25, rest=0, most_rounds=99)
    found = time.alternate(pace, a=time.contestant("a", 2**-5))  # eight in a batch, four batches in a second
    assert found == {"a": [2**-5] * 4}
    assert time.order.count("a") == 2 + 4 * 9


def test_calls_that_differ_in_turn_fill_whole_periods() -> None:
    time = FakeTime()
    pace = Pace(budget=40, batch=5, rest=0, most_rounds=1)
    for seconds, calls in ((1, 8), (2, 4), (9, 4)):  # as many as take five seconds, in fours
        time.order.clear()
        assert time.alternate(pace, a=time.contestant("a", seconds, period=4)) == {"a": [seconds]}
        assert time.order.count("a") == 2 + 1 + calls


def test_spreads_and_ratios() -> None:
    assert spread([5, 1, 2, 3, 4]) == Spread(3, 2, 4)
    # 4/1, 4/2, 4/4, 8/4 in rounds that both ran: medians 4 and 3, quartiles of 4, 2, 1, 2
    assert ratio([4, 4, 4, 8], [1, 2, 4, 4, 1000]) == Spread(4 / 3, 1.75, 2.5)


def test_a_row_is_what_its_times_make_it() -> None:
    goals = Goal(0.5, ROOF), Goal(4, NUMPY), Goal(3, "other"), Goal(1, "absent"), Goal(2, "other", of=NUMPY)
    case = Case("name", "what", "memory", lambda stage: None, goals)
    contest = Contest(dict.fromkeys((OURS, NUMPY, "other")), bytes_moved=300, notes=["seen"])
    times = {OURS: [2, 2], NUMPY: [6, 6], "other": [9, 9], ROOF: [1, 1]}
    row = judge(case, contest, times, roof_bytes=1000, threads=1)
    # the roof reads 1000 bytes in a second; ours 300 in two
    assert row.roof_fraction == pytest.approx((0.15, 0.15, 0.15))
    assert row.ratios == {NUMPY: Spread(3, 3, 3), "other": Spread(4.5, 4.5, 4.5)}
    assert row.seconds[NUMPY] == Spread(6, 6, 6)
    assert [verdict.met for verdict in row.verdicts] == [False, False, True, None, False]
    assert [verdict.missed_by for verdict in row.verdicts] == pytest.approx([0.7, 0.25, 0, None, 0.25])
    assert Row.from_json(json.loads(json.dumps(row.to_json()))) == row


def test_goals_in_words() -> None:
    case = Case("row", "what", "memory", lambda stage: None)
    row = judge(case, Contest({OURS: None}, None), {OURS: [1]}, 1, 1)

    def words(goal: Goal, *found: float) -> str:
        return goal_in_words(row, Verdict(goal, Spread(*found) if found else None), "numba")

    low = words(Goal(0.8, ROOF), 0.6, 0.5, 0.7)
    assert low == "row: missed by 25.0%; numba should be at least 80% of the roof, found 60.0% (50.0% … 70.0%)"
    fast = words(Goal(3, NUMPY), 4.5, 4, 5)
    assert fast == "row: met; numba should be at least 3 times as fast as NumPy, found 4.50 (4.00 … 5.00)"
    assert words(Goal(3, "ggml")) == "row: not measured; numba should be at least 3 times as fast as ggml"
    slow = words(Goal(0.5, "import numpy", of="import dsv4"), 0.4, 0.25, 0.5)
    wanted = "import dsv4 should be at most 2 times as long as import numpy"
    assert slow == f"row: missed by 20.0%; {wanted}, found 2.50 (2.00 … 4.00)"


def test_bytes_are_those_of_the_arrays() -> None:
    scene = stage()
    weight = scene.fp4_weights(64, 128)[0]
    assert nbytes(weight) == 64 * 64 + 64 * 4
    assert nbytes([weight, np.zeros(3)], 7, "text") == nbytes(weight) + 24
    moved = {case.name: case.prepare(scene).bytes_moved for case in product_cases() if case.name.endswith("matvec")}
    vectors = {"fp4.matvec": 4096 + 2048, "fp8.matvec": 4096 + 4096, "bf16.matvec": 4096 + 1024}
    matrices = {
        "fp4.matvec": 2048 * 4096 // 2 + 2048 * 4096 // 32,
        "fp8.matvec": 4096 * 4096 + 32 * 32,
        "bf16.matvec": 2 * 1024 * 4096,
    }
    assert moved == {name: matrices[name] + 4 * vectors[name] for name in moved}
    assert len(moved) == 3


def test_weights_that_take_turns_outweigh_the_cache() -> None:
    scene = stage(rotation_bytes=10**6)
    assert sum(map(nbytes, scene.fp8_weights(256, 256))) >= 10**6
    assert len(scene.fp8_weights(1024, 1024)) == 2
    codes = np.stack([weight.codes for weight in scene.fp8_weights(256, 256)])
    assert not np.any(codes & 0x7F == 0x7F)  # no NaN


def test_the_roof_reads_everything_whatever_the_threads() -> None:
    roof = Roof(8 * 1000, 2)
    assert [roof.read(), roof.read(1)] == [1000, 1000]
    assert roof.nbytes == 8000


def test_threads_are_those_of_numba_where_they_are_set(monkeypatch) -> None:
    monkeypatch.setenv("NUMBA_NUM_THREADS", "3")
    assert thread_count() == 3
    monkeypatch.delenv("NUMBA_NUM_THREADS")
    assert thread_count() >= 1


def test_a_case_is_measured_with_the_backend_first_and_what_it_opened_is_closed() -> None:
    closed = []

    def prepare(scene: Stage) -> Contest:
        scene.resources.callback(closed.append, scene.threads)
        contestants = {name: Contestant(lambda: None) for name in scene.all_ops}
        return Contest(contestants, 100)

    row = Case("name", "what", "memory", prepare, threads=1).measure(stage(recording(), threads=2))
    assert (row.lead, row.threads, list(row.seconds), closed) == (OURS, 1, [OURS, NUMPY, ROOF], [1])
    alone = Case("name", "what", "memory", prepare).measure(stage())
    assert (alone.lead, alone.ratios) == (NUMPY, {})


def test_a_library_that_a_contest_loads_is_limited_to_the_threads_of_the_row(monkeypatch) -> None:
    library = SimpleNamespace(threads=4)
    library.get_num_threads = lambda: library.threads
    library.set_num_threads = lambda threads: vars(library).update(threads=threads)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    seen = []

    def prepare(scene: Stage) -> Contest:
        monkeypatch.setitem(sys.modules, "torch", library)
        return Contest({NUMPY: Contestant(lambda: seen.append(library.threads))}, None)

    Case("name", "what", "memory", prepare, threads=1).measure(stage(threads=2))
    assert set(seen) == {1}
    assert library.threads == 4


def recording() -> Ops:
    """NumPy's operations as another backend, which notes in `used` what is called."""
    used = []

    def noted(name: str):
        def call(*arguments):
            used.append(name)
            return getattr(Ops, name)(*arguments)

        return staticmethod(call)

    operations = {name: noted(name) for name, value in vars(Ops).items() if isinstance(value, staticmethod)}
    return type("Recording", (Ops,), operations | {"name": "recording", "used": used})()


CASES = {
    "fp4.matvec": "linear",
    "fp4.matvec.rounded": "linear",
    "grouped_linear": "grouped_linear",
    "bf16.matvec.beside": "linears",
    "bf16.matvec": "linear",
    "experts.decode": "experts",
    "expert": "expert",
    "route": "route",
    "route_by_id": "route_by_id",
    "embedding": "embedding",
    "rms_norm": "rms_norm",
    "rms_scale": "rms_scale",
    "rope": "rope",
    "hadamard": "hadamard",
    "fake_quant_fp8": "fake_quant_fp8",
    "fake_quant_fp4": "fake_quant_fp4",
    "overlap": "overlap",
    "compress": "compress",
    "mhc_weights": "mhc_weights",
    "mhc_head_weights": "mhc_head_weights",
    "mhc_collapse": "mhc_collapse",
    "mhc_mix": "mhc_mix",
    "index_scores": "index_scores",
    "top_k": "top_k",
    "index_top_k": "index_top_k",
    "index_top_k.packed": "index_top_k",
    "attention.decode": "sparse_attention",
    "sinkhorn": "mhc_weights",
    "model.decode": "sparse_attention",
    "model.decode.rounded": "linear",
}
"""Cases, and an operation that they are about."""


@pytest.mark.parametrize("wanted", [5 * SIDE**2, MOST_ROWS * SIDE**2, 2 * MOST_ROWS * SIDE**2 + 7 * SIDE**2])
def test_a_dense_product_has_as_many_multiply_adds_as_the_row(wanted, monkeypatch) -> None:
    done = []
    monkeypatch.setattr(np, "matmul", lambda x, w, out: done.append(x.shape[0] * x.shape[1] * out.shape[1]))
    contest = beside_dense(stage(), Contest({NUMPY: Contestant(lambda: None)}, 3, ["seen"]), wanted)
    contest.contestants[DENSE].run()
    assert sum(done) == wanted
    assert list(contest.contestants) == [NUMPY, DENSE]
    assert (contest.bytes_moved, contest.notes) == (3, ["seen"])


def test_a_layers_multiply_adds_are_those_that_a_prompt_asks_for() -> None:
    checkpoint = NamedCheckpoint(tiny.checkpoint_of(replace(tiny.config(), num_hash_layers=0)))
    ops = CountingOps(checkpoint)
    Model(checkpoint, ops, fake_quant=False)(tiny.tokens(0, 1, 20, vocab=checkpoint.config.vocab_size))
    head = sum(count for (part, _), count in ops.asked.items() if part == "head")
    assert 0 < layer_multiply_adds(checkpoint.config, 20) == ops.asked.total() - head


def test_every_operation_has_a_row() -> None:
    assert set(CASES.values()) == set(OPERATIONS)


def contest_of(name: str, scene: Stage) -> Contest:
    cases = [*product_cases(), *operation_cases(), *selection_cases(), *model_cases()]
    return next(case for case in cases if case.name == name).prepare(scene)


@pytest.mark.parametrize("name", CASES)
def test_cases_set_the_backend_beside_numpy(name) -> None:
    ops = recording()
    contestants = contest_of(name, stage(ops)).contestants
    calls = []
    for contestant in contestants.values():
        if contestant.before:
            contestant.before()
        ops.used.clear()
        contestant.run()
        calls.append(CASES[name] in ops.used)
    assert list(contestants)[:2] == [OURS, NUMPY]
    assert calls == [True] + [False] * (len(contestants) - 1)


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith(("model.", "sinkhorn"))])
def test_contestants_compute_the_same(name) -> None:
    pytest.importorskip("numba", reason="Numba is not installed")
    results = {}
    contestants = dict(contest_of(name, stage(backend("numba"))).contestants)
    contestants.pop(DENSE, None)
    for who, contestant in contestants.items():
        first, second = contestant.run(), contestant.run()
        assert not same(first, second)  # other arguments
        results[who] = first
    assert same(results[OURS], results[NUMPY])


def same(first, second) -> bool:
    """Whether two results agree to the accuracy of float32, in the numbers that belong to it."""
    if isinstance(first, tuple):
        return all(map(same, first, second))
    error = np.linalg.norm(np.subtract(first, second, dtype=np.float64))
    return bool(error <= 1e-4 * np.linalg.norm(np.asarray(second, np.float64)))


def test_a_ggml_that_does_not_repack_is_said_so() -> None:
    plain = nullcontext()
    plain.run = lambda: None
    ggml = SimpleNamespace(products=lambda weight, x, copies, threads, repacked: None if repacked else plain)
    contest = contest_of("fp4.matvec", stage(peers=SimpleNamespace(torch=None, ggml=ggml)))
    assert list(contest.contestants) == [NUMPY, "ggml"]
    assert ["ggml repacked: not compared" in note for note in contest.notes] == [True]


def test_the_large_layer_is_a_layer_of_v4_flash() -> None:
    flash = read_config(DATA / "configs" / "deepseek-v4-flash.json")
    layer = {"num_hidden_layers": 1, "num_hash_layers": 0, "num_nextn_predict_layers": 0, "compress_ratios": (4,)}
    assert replace(flash, vocab_size=LAYER.vocab_size, **layer) == LAYER


def test_a_layer_is_written_once_and_read_again(tmp_path) -> None:
    place = tmp_path / "layer"
    with closing(LargeLayer(place, TINY)) as layer:
        first = layer.model(Ops())
    written = {file.name: file.stat().st_mtime_ns for file in place.iterdir()}
    with closing(LargeLayer(place, TINY)) as layer:
        again = layer.model(Ops())
    assert written == {file.name: file.stat().st_mtime_ns for file in place.iterdir()}
    np.testing.assert_array_equal(first([[3, 1, 4]]), again([[3, 1, 4]]))
    assert np.isfinite(first([[3, 1, 4]])).all()
    with pytest.raises(SettingError, match="a layer that this bench has written"):
        LargeLayer(place).model(Ops())
    with pytest.raises(SettingError, match=r"config\.json"):
        LargeLayer(tmp_path, TINY).model(Ops())


def test_a_temporary_layer_is_removed() -> None:
    layer = LargeLayer(None, TINY)
    directory = layer.model(Ops()).checkpoint.directory
    assert directory.is_dir()
    layer.close()
    assert not directory.exists()


def test_the_bytes_of_a_step_are_those_in_the_files_and_in_the_cache(tmp_path) -> None:
    write_layer(tmp_path / "layer", TINY)
    checkpoint = Checkpoint.open(tmp_path / "layer")
    sizes = {name: entry.size for name, entry in checkpoint.entries.items() if name.startswith("layers.")}
    routed = sum(size for name, size in sizes.items() if ".experts." in name and "shared" not in name)
    with closing(LargeLayer(tmp_path / "layer", TINY)) as layer:
        model = layer.model(Ops())
    keys, window, chosen, streams = 100 * 32, 8 * 64, 16 * 64, 2 * 4 * 64
    expected = sum(sizes.values()) - routed + routed * 2 // 8 + 4 * (keys + window + chosen + streams)
    assert decode_bytes(model, 400) == expected
    packed = 100 * (16 + 1) + (8 + 16) * (48 + 2 * 16 + 1) + 4 * streams
    assert decode_bytes(model, 400, packed=True) == expected - 4 * (keys + window + chosen + streams) + packed
    others = sum(sizes.values()) - routed  # of two tokens, each expert is chosen by one or both with 1 − (6/8)²
    assert decode_bytes(model, 400, batch=2) == others + routed * 7 // 16 + 2 * 4 * (keys + window + chosen + streams)


def test_a_layer_decodes_several_sequences_together_and_one_by_one(tmp_path) -> None:
    with closing(LargeLayer(tmp_path / "layer", TINY)) as layer:
        scene = replace(stage(), layer=layer)
        assert layer_steps(layer.model(Ops()), scene, 400, batch=3)().shape == (3, 1, 4, 64)
        case = next(case for case in model_cases() if case.name == f"layer.batch.{BATCHES[0]}")
        contest = case.prepare(scene)
        calls = []
        with patch.object(Block, "__call__", lambda block, streams, *_: calls.append(len(streams))):
            for contestant in contest.contestants.values():
                contestant.run()
    assert calls == [BATCHES[0]] + BATCHES[0] * [1]
    assert list(contest.contestants) == [NUMPY, ONE_BY_ONE]


def test_a_filled_cache_holds_what_so_many_tokens_leave(tmp_path) -> None:
    with closing(LargeLayer(tmp_path / "layer", TINY)) as layer:
        model = layer.model(Ops())
    cache = filled_cache(model, 403, np.random.default_rng(0))
    tokens = [cache.window, *(rows for part in (cache.compressor, cache.indexer) for rows in (part.kv, part.score))]
    assert all(rows.rows.all(axis=(0, 2)).all() for rows in tokens)
    for part in (cache.compressor, cache.indexer):
        assert part.entries.first(100).all()
        assert not part.entries.rows[:, 100:].any()


def test_blocks_for_ggml_hold_the_same_values() -> None:
    weight = stage().fp4_weights(8, 64)[0]
    blocks = mxfp4_blocks(weight)
    values = np.zeros((8, 64), np.float32)
    for row, column in np.ndindex(values.shape):
        block, place = divmod(column, 32)
        scale, *codes = blocks[row, block]
        code = codes[place] & 15 if place < 16 else codes[place - 16] >> 4
        values[row, column] = FP4_VALUES[code] * 2.0 ** (int(scale) - 127)
    np.testing.assert_array_equal(values, dequantise(weight))


@pytest.mark.parametrize("repacked", [False, True])
def test_ggml_multiplies_the_same_matrix(repacked) -> None:
    try:
        ggml = open_peer()
    except BackendError as error:
        pytest.skip(str(error))
    scene = stage()
    weight, x = scene.fp4_weights(64, 512)[0], scene.floats(5, 512)
    assert isinstance(weight, Fp4Weight)
    products = ggml.products(weight, x, copies=2, threads=1, repacked=repacked)
    if products is None:
        pytest.skip(f"{ggml.version} does not repack on this processor")
    with products:
        products.run()
        found, expected = products.result(), Ops.linear(x, weight)
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 0 < error < 0.02  # activations in blocks of 32 with 8 bits


def test_torch_computes_the_same() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    torch, scene = Peers().torch, stage()
    queries, window, entries, sink = (scene.floats(*shape) for shape in ((1, 3, 4, 8), (1, 9, 8), (1, 7, 8), (4,)))
    index = [scene.random.integers(0, rows, (1, 3, 5)) for rows in (9, 7)]
    arguments = queries, window, index[0], entries, index[1], sink
    close = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(torch.attention(*arguments)(), Ops.sparse_attention(*arguments)[0], **close)
    keys, weights = scene.floats(1, 6, 8), scene.floats(1, 3, 4)
    expected = Ops.index_scores(queries, keys, weights)[0]
    np.testing.assert_allclose(torch.index_scores(queries, keys, weights)()[:, 0], expected, **close)
    visible = np.full((1, 3), 6)
    chosen = Ops.top_k(expected[None], visible, 2)
    np.testing.assert_array_equal(torch.top_k(expected[None], visible, 2)().indices, chosen)
    np.testing.assert_array_equal(torch.index_top_k(queries, keys, weights, visible, 2)()[:, 0], chosen[0])
    logits = scene.floats(4, 4, 9)
    tokens_first = sinkhorn(logits.transpose(2, 0, 1), 20, 1e-6).transpose(1, 2, 0)
    np.testing.assert_allclose(torch.sinkhorn(logits, 20, 1e-6)(), tokens_first, **close)
    [(x, matrix)] = torch.linear_in_bfloat16(window[0], entries[0], 1)
    np.testing.assert_allclose(torch.product(x, matrix).float(), window[0] @ entries[0].T, rtol=0.02, atol=0.1)
    norm = scene.floats(8)
    np.testing.assert_allclose(torch.rms_norm(window, norm, 1e-6)(), Ops.rms_norm(window, norm, 1e-6), **close)


def test_transformers_computes_the_same_and_decodes_on() -> None:
    peer = Peers().transformers
    if peer is None:
        pytest.skip("transformers with DeepSeek-V4 is not installed")
    from dsv4_accel.bench.models import DECODED_FROM, bundled_in_transformers

    scene = stage(peers=Peers())
    with scene.resources:
        theirs = bundled_in_transformers(scene)
        prompt = scene.random.integers(0, 1000, (1, DECODED_FROM))
        cache = theirs.new_cache()
        first = theirs.prefill(prompt, cache)
        second = theirs.decode(first, theirs.fork(cache))
    from dsv4 import load

    ours = load(backend="numpy", fake_quant="off")
    ids = np.concatenate([prompt, first[:, -1].argmax(-1, keepdim=True).numpy()], axis=1)
    found = np.stack([first[0, -1].numpy(), second[0, -1].numpy()])
    np.testing.assert_allclose(found, ours(ids)[0, -2:], atol=2e-3)
    loss, _ = learn.gradients(ours, prompt)
    assert theirs.gradients(prompt).item() == pytest.approx(loss, rel=1e-5)
    assert all(one.grad is not None for name, one in theirs.model.named_parameters() if ".indexer." not in name)


def test_a_training_step_is_the_same_with_numba() -> None:
    pytest.importorskip("numba", reason="numba is not installed")
    [case] = training_cases()
    scene = stage(ops=backend("numba"))
    found = {name: one.run() for name, one in case.prepare(scene).contestants.items()}
    for (loss, found_gradients), (wanted_loss, wanted) in zip(found[OURS], found[NUMPY], strict=True):
        assert loss == pytest.approx(wanted_loss, rel=1e-6)
        assert wanted["head.weight"].any()
        for name, gradient in found_gradients.items():
            assert np.linalg.norm(gradient - wanted[name]) <= 1e-4 * max(1e-3, np.linalg.norm(wanted[name])), name


def test_a_peer_that_is_not_there_is_named_and_not_timed(monkeypatch) -> None:
    def missing():
        raise BackendError("torch: not compared, none installed")

    monkeypatch.setattr("dsv4_accel.bench.peer_torch.open_peer", missing)
    peers = Peers()
    assert peers.torch is None
    assert peers.missing == {"torch": "torch: not compared, none installed"}
    assert peers.versions == {}


def test_a_row_of_the_portable_path_keeps_the_times_and_has_its_own_goal() -> None:
    case = Case("fp4.matvec", "FP4", "memory", lambda stage: None, [Goal(0.85, ROOF)])
    row = judge(case, Contest({OURS: None}, 50), {OURS: [1], ROOF: [1]}, roof_bytes=100, threads=1)
    portable = portable_cases()[0].renamed(row)
    assert portable.name == "fp4.matvec.portable"
    assert (portable.seconds, portable.roof_fraction) == (row.seconds, row.roof_fraction)
    assert portable.verdicts == [Verdict(Goal(0.3, ROOF), Spread(0.5, 0.5, 0.5))]


def test_names_are_unique_and_patterns_choose() -> None:
    cases = run_module.all_cases()
    names = [case.name for case in cases]
    assert len(set(names)) == len(names)
    chosen = [case.name for case in run_module.chosen_cases(["top_k", "model.prefill.*"], cases)]
    assert chosen == ["top_k", *(name for name in names if name.startswith("model.prefill."))]


def test_a_quick_run_leaves_large_rows_out_and_says_so(monkeypatch) -> None:
    def prepare(scene: Stage) -> Contest:
        return Contest({NUMPY: Contestant(lambda: None)}, None)

    cases = [Case("small", "", "", prepare), Case("vast", "", "", prepare, large=True), *portable_cases()[:1]]
    monkeypatch.setattr(run_module, "all_cases", lambda: cases)
    report = run_module.run("numpy", quick=True)
    assert [row.name for row in report.rows] == ["small"]
    assert list(report.left_out) == ["vast", "fp4.matvec.portable"]
    asked = run_module.run("numpy", ["vast"], quick=True)
    assert [row.name for row in asked.rows] == ["vast"]


def test_json_of_a_real_row(dsv4) -> None:
    status, out, err = dsv4("bench", "--quick", "--json", "--only", "compress", "--backend", "numpy", "--no-peers")
    report = json.loads(out)
    assert (status, err) == (0, "")
    assert report["backend"] == "numpy"
    assert report["quick"] is True
    assert {"processor", "cores", "features", "memory_bytes", "versions"} <= report["machine"].keys()
    [row] = report["rows"]
    assert row["name"] == "compress"
    assert row["bytes_moved"] == 4 * 512 * 128 * (8 + 8 + 1)
    assert set(row["seconds"]) == {NUMPY, ROOF}
    for numbers in row["seconds"].values():
        assert 0 < numbers["low"] <= numbers["median"] <= numbers["high"]
    seconds = {name: numbers["median"] for name, numbers in row["seconds"].items()}
    assert row["roof_fraction"]["median"] > 0
    assert seconds[NUMPY] > 0


@pytest.fixture
def wide_report() -> Report:
    """Every row with numbers that take as much room as they can, and all peers."""
    wide = Spread(0.1234, 0.1, 0.3)
    names = {"fp4": ["ggml repacked", "ggml", "torch"], "top_k": ["argpartition", "torch"]}
    names |= {"fp8": ["torch", TORCH_BF16, DENSE], "index_top_k": [NUMPY_FLOATS, DENSE], "layer": [ONE_BY_ONE, DENSE]}
    names |= {"sinkhorn": ["NumPy [4, 4, T]", "torch"], "model": ["transformers"]}
    rows = []
    for case in run_module.all_cases():
        what = getattr(case, "what", "FP4 [2048, 4096] × 1 token, portable")
        others = dict.fromkeys([NUMPY, *names.get(case.name.split(".")[0], ["torch"])], wide)
        seconds = dict.fromkeys([OURS, *others, ROOF], wide)
        verdicts = [Verdict(goal, wide) for goal in case.goals]
        bound_by = getattr(case, "bound_by", "memory")
        rows.append(Row(case.name, what, bound_by, 2, OURS, 333_000_000, seconds, wide, others, verdicts, ["seen"]))
    left_out = {"layer.decode.4k": "too large"}
    return Report(
        "numba", 2, False, describe_machine(), "sums", 10**9, {"torch": "2"}, {"ggml": "ggml: none"}, left_out, rows
    )


def test_the_table_fits_a_terminal_of_160_columns(wide_report) -> None:
    lines = as_text(wide_report).splitlines()
    table = lines[lines.index("") + 1 : lines.index("goals:") - 1]
    assert len(table) == 1 + len(wide_report.rows)
    assert max(map(len, table)) <= 160


def test_markdown_says_what_the_text_says(wide_report) -> None:
    text, markdown = as_text(wide_report), as_markdown(wide_report)
    assert words(markdown.replace("goals:", "")) == words(text.replace("goals:", ""))
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(wide_report.rows)
    assert len({line.count("|") for line in table}) == 1


def words(text: str) -> list[str]:
    """What stands between signs of tables and lists."""
    return [word for word in text.split() if word.strip("|:-")]


def test_the_page_explains_what_the_bench_prints() -> None:
    page = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
    for column in COLUMNS:
        assert f"| {column} |" in page
    for kind in {case.bound_by for case in run_module.all_cases() if isinstance(case, Case)}:
        assert f"**{kind}**" in page
    named = {name for name in re.findall(r"`([A-Za-z0-9_.*-]+)`", page) if not name.startswith(("dsv4.", "--"))}
    names = [case.name for case in run_module.all_cases()]
    assert {"fp4.matvec", "layer.decode.1M"} <= named
    assert [name for name in named if "." in name and not any(fnmatch(known, name) for known in names)] == []


def test_table_and_picture(dsv4, tmp_path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'dsv4[bench]'")
    only = "--only", "compress", "--only", "route"
    status, out, _ = dsv4("bench", "--quick", *only, "-b", "numpy", "--no-peers", "--plot", tmp_path / "out.png")
    assert status == 0
    lines = [line.split()[0] for line in out.splitlines() if line.startswith(("row ", "compress ", "route "))]
    assert lines == ["row", "route", "compress"]
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--only", "no such row"], "no such row"),
        (["--only", "route", "--json", "--markdown"], "--markdown"),
        (["--backend", "abacus", "--only", "route"], "abacus"),
        (["--layer-dir", str(DATA), "--only", "layer.decode.4k", "--quick", "-b", "numpy"], "--layer-dir"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_status_2(dsv4, arguments, named) -> None:
    status, out, err = dsv4("bench", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("dsv4: ")
    assert err.count("\n") == 1
    assert named in err


def test_a_picture_without_matplotlib_is_refused_before_anything_is_measured(dsv4, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("dsv4_accel.bench.plot.find_spec", lambda name: None)
    status, out, err = dsv4("bench", "--quick", "--plot", tmp_path / "out.png")
    assert (status, out) == (2, "")
    assert "dsv4[bench]" in err
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_the_bench_is_loaded_before_it_is_asked_for() -> None:
    names = "('dsv4_accel', 'matplotlib', 'torch')"
    code = f"import sys, dsv4.cli; print([module for module in sys.modules if module.startswith({names})])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
