"""The command as a user meets it: what it prints, what it writes, and one line for what is wrong."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dsv4 import Checkpoint, __version__, backends, bundled_model, generate, load
from dsv4.backends import VARIABLE
from dsv4.checkpoint import write_checkpoint
from dsv4.cli import main
from dsv4.parameters import parameters
from dsv4.text.tokenizer import Tokenizer

DATA = Path(__file__).parents[1] / "data"
SMALL = DATA / "golden" / "small"


@pytest.fixture
def dsv4(monkeypatch, capsys):
    """Run the command in this process: arguments -> exit status, standard output, standard error."""

    def run(*arguments, lines=()):
        capsys.readouterr()  # what the test itself has printed, as where it compiled kernels
        monkeypatch.setattr(sys, "argv", ["dsv4", *map(str, arguments)])
        typed = iter(lines)
        monkeypatch.setattr("builtins.input", lambda prompt="": next(typed, ""))
        with pytest.raises(SystemExit) as stopped:
            main()
            raise SystemExit(0)
        printed = capsys.readouterr()
        return stopped.value.code or 0, printed.out, printed.err

    return run


@pytest.fixture(autouse=True)
def reference(monkeypatch):
    """The command is the same for every backend: it is tried with NumPy's where a test names no other."""
    monkeypatch.setenv(VARIABLE, "numpy")


def greedy_text(prompt: str, count: int, backend: str = "numpy") -> str:
    tokenizer = Tokenizer.from_file(bundled_model())
    model = load(backend=backend)
    ids = [token.id for token in generate(model, tokenizer.encode(prompt), max_new_tokens=count, temperature=0)]
    return tokenizer.decode(ids, skip_special=True)


def test_generate_prints_the_prompt_and_what_follows(dsv4, backend) -> None:
    expected = greedy_text("ROMEO.", 12, backend.name)
    status, out, err = dsv4("generate", "ROMEO.", "-n", 12, "-t", 0, "--backend", backend.name)
    assert (status, err) == (0, "")
    assert out == "ROMEO." + expected + "\n"


def test_generate_continues_several_prompts(dsv4) -> None:
    status, out, _ = dsv4("generate", "ROMEO.", "Enter the", "-n", 6, "-t", 0)
    assert status == 0
    assert out == f"ROMEO.{greedy_text('ROMEO.', 6)}\n\nEnter the{greedy_text('Enter the', 6)}\n\n"


def test_generate_json_holds_text_and_ids_and_a_seed_repeats(dsv4) -> None:
    first, again, other = (json.loads(dsv4("generate", "ROMEO.", "-n", 9, "-s", s, "--json")[1]) for s in (4, 4, 5))
    assert first == again != other
    result = first["results"][0]
    assert Tokenizer.from_file(bundled_model()).decode(result["ids"], skip_special=True) == result["text"]
    assert result["prompt"] == "ROMEO."


def test_special_text_in_a_prompt_becomes_control_tokens_only_when_asked_for(dsv4) -> None:
    plain = json.loads(dsv4("generate", "<｜User｜>Hello", "-n", 5, "-t", 0, "--json")[1])["results"][0]["ids"]
    special = json.loads(dsv4("generate", "<｜User｜>Hello", "-n", 5, "-t", 0, "--json", "--allow-special")[1])
    assert plain != special["results"][0]["ids"]


def test_chat_answers_line_by_line_until_an_empty_one(dsv4) -> None:
    status, out, _ = dsv4("chat", "-n", 8, "-s", 1, lines=["Good morrow.", "Farewell.", "", "never read"])
    assert status == 0
    assert len(out.strip()) > 0
    again = dsv4("chat", "-n", 8, "-s", 1, lines=["Good morrow."])[1]
    assert out.startswith(again)


def test_inspect_counts_what_a_released_model_has(dsv4) -> None:
    status, out, _ = dsv4("inspect", DATA / "configs" / "deepseek-v4-flash.json", "--json")
    report = json.loads(out)
    assert status == 0
    assert round(report["parameters"]["total"] / 1e9) == 284
    assert round(report["parameters"]["active"] / 1e9) == 13
    kinds = [layer["attention"] for layer in report["layers"]]
    assert kinds == ["SWA", "SWA", *["CSA", "HCA"] * 20, "CSA", "SWA"]


def test_inspect_counts_the_bytes_of_a_checkpoint(dsv4) -> None:
    report = json.loads(dsv4("inspect", "--json")[1])
    file = bundled_model() / "model.safetensors"
    header = int.from_bytes(file.read_bytes()[:8], "little")
    assert report["bytes"] == file.stat().st_size - header - 8
    assert sum(part["bytes"] for part in report["parts"].values()) == report["bytes"]
    assert "2.72M parameters, 1.8M active" in dsv4("inspect")[1]


def test_cost_compares_a_config_with_the_baseline(dsv4) -> None:
    status, out, err = dsv4("cost", "flash", "--baseline", "v3.2", "--json")
    report = json.loads(out)
    assert (status, err) == (0, "")
    assert report["context"] == 2**20
    flash, baseline = report["flops"]["fp8_equivalent"], report["baseline"]["flops"]["fp8_equivalent"]
    assert report["ratios"]["FP8 FLOPs"] == flash / baseline
    assert {name: round(100 * ratio) for name, ratio in report["ratios"].items()} == {
        "parameters": 42,
        "active parameters": 35,
        "FLOPs": 12,
        "FP8 FLOPs": 10,
        "cache bytes": 7,
    }
    assert flash == sum(product["fp8_equivalent"] for product in report["flops"]["products"])
    cache = report["cache_bytes"]
    assert cache["total"] == sum(cache["parts"].values())


@pytest.mark.parametrize("model", ["flash", "pro", "v3.2"])
def test_cost_prints_what_its_page_shows(dsv4, model) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cost.md").read_text(encoding="utf-8")
    status, out, _ = dsv4("cost", model, *([] if model == "v3.2" else ["--baseline", "v3.2"]))
    assert status == 0
    assert out.split("\n\n", 1)[1] in page


@pytest.mark.parametrize(("name", "april"), [("flash-0731", "flash"), ("pro-0813", "pro")])
def test_cost_of_0731_and_0813_differs_in_the_drafter_alone(dsv4, name, april) -> None:
    found, before = (json.loads(dsv4("cost", each, "--json")[1]) for each in (name, april))
    drafters = [each.pop("drafter")["name"] for each in (found, before)]
    assert drafters == ["DSpark, 3 stages", "MTP layer"]
    assert {**found, "model": ""} == {**before, "model": ""}
    page = (Path(__file__).parents[2] / "docs" / "cost.md").read_text(encoding="utf-8")
    printed = dsv4("cost", name)[1]
    assert printed[printed.index("drafter ") :] in page


def test_inspect_says_what_drafts(dsv4) -> None:
    reports = [json.loads(dsv4("inspect", name, "--json")[1]) for name in ("flash", "flash-0731")]
    expected = [{"kind": "MTP", "layers": 1, "tokens": 1}, {"kind": "DSpark", "layers": 3, "tokens": 5}]
    assert [report["drafter"] for report in reports] == expected
    assert [row["layer"] for row in reports[1]["layers"]][-4:] == ["layers.42", "mtp.0", "mtp.1", "mtp.2"]
    assert {row["routing"] for row in reports[1]["layers"][-3:]} == {"top-k"}
    assert "drafts by DSpark: layers 3, tokens at once 5\n" in dsv4("inspect", "flash-0731")[1]


@pytest.mark.parametrize("name", ["flash", "pro", "flash-0731", "pro-0813", "v4.1"])
def test_cost_of_a_preset_is_that_of_its_file(dsv4, name) -> None:
    status, out, err = dsv4("cost", name, "--context", 200_000)
    assert (status, err) == (0, "")
    assert out.startswith(f"{name}, 200,000 tokens, cache packed\n")
    released = "v4.1-flash" if name == "v4.1" else f"v4-{name}"
    file = dsv4("cost", DATA / "configs" / f"deepseek-{released}.json", "--context", 200_000)[1]
    assert out.partition("\n")[2] == file.partition("\n")[2]


@pytest.mark.parametrize("name", ["flash", "v3.2"])
def test_a_path_that_exists_comes_before_a_name(dsv4, tmp_path, monkeypatch, name) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).symlink_to(bundled_model())
    found, bundled = (json.loads(dsv4("cost", *model, "--json")[1]) for model in ([name], []))
    assert found["parameters"] == bundled["parameters"]


@pytest.mark.parametrize("arguments", [["flsh"], ["flash", "--baseline", "flsh"], ["configs/flsh"]])
def test_an_unknown_name_lists_the_known_ones(dsv4, arguments) -> None:
    status, out, err = dsv4("cost", *arguments)
    assert (status, out) == (2, "")
    known = "flash, pro, flash-0731, pro-0813, v4.1, v3.2"
    assert f"flsh: expected one of {known}, or the path of a config.json, found no such file" in err


def test_cost_prints_parts_that_add_up(dsv4) -> None:
    status, out, _ = dsv4("cost", "--context", 300, "--cache-format", "float32", "--baseline", bundled_model())
    assert status == 0
    assert re.search(r"^all +2.72M +1.8M ", out, re.MULTILINE)
    assert re.search(r"^core attention +594k +1.19M +bf16$", out, re.MULTILINE)  # 64 + 80 + 66 + 80 keys
    assert re.search(r"^cache bytes +(\S+ kB) +\1 +100.00%$", out, re.MULTILINE)


def test_cost_holds_the_bytes_of_a_real_cache(dsv4) -> None:
    model = load(backend="numpy")
    cache = model.new_cache()
    model(np.zeros((1, 200), int), cache)
    report = json.loads(dsv4("cost", "-c", 200, "--cache-format", "float32", "--json")[1])
    assert report["cache_bytes"]["parts"] == cache.nbytes()


def test_logits_are_those_of_the_model_whatever_the_chunks(dsv4, tmp_path) -> None:
    ids = load_file(SMALL / "expected.safetensors")["input_ids"][:, :150]
    (tmp_path / "ids.json").write_text(json.dumps(ids.tolist()))
    for chunk in ([], ["--chunk", 37]):
        out = tmp_path / "logits.npy"
        status, _, _ = dsv4(
            "logits", SMALL, "--ids", tmp_path / "ids.json", "--out", out, "--fake-quant", "off", *chunk
        )
        assert status == 0
        expected = load_file(SMALL / "expected.safetensors")["prefill.logits"][:, :150]
        np.testing.assert_allclose(np.load(out), expected, rtol=0, atol=2e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ids.json", "logits.npy"]


def test_verify_agrees_with_stored_results_and_notices_a_difference(dsv4, tmp_path) -> None:
    expected = SMALL / "expected.safetensors"
    status, out, _ = dsv4("verify", SMALL, "--fake-quant", "off", "--expected", expected, "--tolerance", 1e-5)
    assert status == 0
    assert "too large" not in out
    results = load_file(expected)
    results["prefill.layers.2.attn.out"][0, 7, 3] += 10
    save_file(results, tmp_path / "wrong.safetensors")
    status, out, _ = dsv4("verify", SMALL, "--fake-quant", "off", "--expected", tmp_path / "wrong.safetensors")
    assert status == 1
    assert [line.split()[0] for line in out.splitlines() if "too large" in line] == ["prefill.layers.2.attn.out"]


def test_verify_notices_a_slightly_wrong_model_and_a_result_that_is_no_result(dsv4, tmp_path) -> None:
    """Ten Sinkhorn iterations instead of twenty change results by less than a percent."""
    wrong = tmp_path / "wrong"
    shutil.copytree(SMALL, wrong)
    config = json.loads((wrong / "config.json").read_text()) | {"hc_sinkhorn_iters": 10}
    (wrong / "config.json").write_text(json.dumps(config))
    expected = SMALL / "expected.safetensors"
    assert dsv4("verify", wrong, "--fake-quant", "off", "--expected", expected)[0] == 1
    assert dsv4("verify", SMALL, "--fake-quant", "off", "--expected", expected)[0] == 0
    save_file(load_file(expected) | {"prefil.logits": np.zeros(1)}, tmp_path / "misspelt.safetensors")
    status, _, err = dsv4("verify", SMALL, "--expected", tmp_path / "misspelt.safetensors")
    assert status == 2
    assert "found prefil.logits" in err


def test_output_follows_a_link_and_replaces_no_device(dsv4, tmp_path) -> None:
    ids, target, link = tmp_path / "ids.json", tmp_path / "target.npy", tmp_path / "link.npy"
    ids.write_text("[1, 2]")
    target.touch()
    link.symlink_to(target)
    assert dsv4("logits", SMALL, "--ids", ids, "--out", link)[0] == 0
    assert link.is_symlink()
    assert np.load(target).shape == (1, 2, 128)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    status, _, err = dsv4("logits", SMALL, "--ids", ids, "--out", pipe)
    assert status == 2
    assert "found a device or pipe" in err
    assert pipe.is_fifo()


def test_verify_compares_two_backends(dsv4, backend) -> None:
    if backend.name == "numpy":
        pytest.skip("the others are compared with it")
    status, out, _ = dsv4("verify", SMALL, "-b", backend.name, "--against", "numpy", "--length", 140, "--json")
    rows = json.loads(out)
    assert status == 0
    assert max(row["relative"] for row in rows) < 1e-5
    assert {"prefill.layers.3.attn.indexer.topk", "prefill.logits", "mtp.logits"} <= {row["name"] for row in rows}


@pytest.mark.parametrize("length", [40, 3])
def test_verify_agrees_with_what_it_has_saved(dsv4, tmp_path, length) -> None:
    """Three tokens complete no entry: their scores are a result without numbers, which differs in nothing."""
    assert dsv4("verify", SMALL, "--save", tmp_path / "saved.safetensors", "--length", length)[0] == 0
    assert dsv4("verify", SMALL, "--expected", tmp_path / "saved.safetensors")[0] == 0


def test_convert_and_back(dsv4, tmp_path) -> None:
    status, out, _ = dsv4("convert", bundled_model(), tmp_path / "wide", "--to", "float32")
    assert status == 0
    assert "wrote" in out
    assert dsv4("convert", tmp_path / "wide", tmp_path / "packed", "--max-shard-bytes", 1_000_000)[0] == 0
    assert len(list((tmp_path / "packed").glob("*.safetensors"))) > 2
    prompt = [10, 20, 30]
    found = load(tmp_path / "packed")(prompt)
    np.testing.assert_array_equal(found, load()(prompt))


CONFIG = json.loads((bundled_model() / "config.json").read_text())

WRONG = {
    "no such directory": (["inspect", "/no/such/place"], "/no/such/place"),
    "no such config": (["inspect", "nothing.json"], "nothing.json"),
    "a foreign tokenizer": (["generate", "x", "-m", SMALL], "tokenizer.json"),
    "an unknown backend": (["generate", "x", "-b", "abacus"], "abacus"),
    "an unknown mode": (["chat", "--mode", "deep"], "deep"),
    "an unknown rounding": (["generate", "x", "--fake-quant", "maybe"], "maybe"),
    "an unknown format": (["convert", SMALL, "out", "--to", "int3"], "int3"),
    "a negative temperature": (["generate", "x", "-t", "-1"], "-1"),
    "top-p of zero": (["generate", "x", "--top-p", "0"], "top_p"),
    "no tokens to generate": (["generate", "x", "-n", "0"], "max_new_tokens"),
    "an empty prompt": (["generate", ""], "prompt"),
    "an empty stop text": (["generate", "x", "--stop", "\n", "--stop", ""], "stop"),
    "a temperature that is no number": (["generate", "x", "-t", "nan"], "temperature"),
    "a billion experts to inspect": (["inspect", "experts.json"], "n_routed_experts"),
    "a billion experts to count": (["cost", "experts.json"], "n_routed_experts"),
    "a prompt beyond the context": (["generate", "word " * 5000], "4096"),
    "drafts without an MTP layer": (["generate", "x", "--speculative", "--model", "plain"], "MTP"),
    "ids that are not JSON": (["logits", "--ids", "text.json", "--out", "o.npy"], "text.json"),
    "ids out of range": (["logits", "--ids", "range.json", "--out", "o.npy"], "5000"),
    "no ids at all": (["logits", "--ids", "empty.json", "--out", "o.npy"], "empty.json"),
    "a missing ids file": (["logits", "--ids", "gone.json", "--out", "o.npy"], "gone.json"),
    "a place that cannot be written": (["logits", "--ids", "ids.json", "--out", "no/o.npy"], "no/"),
    "an option that is no number": (["generate", "x", "-n", "1.5"], "--max-new-tokens"),
    "a missing option": (["logits", "--ids", "ids.json"], "--out"),
    "an unknown command": (["frobnicate"], "frobnicate"),
    "output over the input": (["logits", "--ids", "ids.json", "--out", "ids.json"], "--out"),
    "a directory to write to": (["logits", "--ids", "ids.json", "--out", "."], "found a directory"),
    "deeply nested ids": (["logits", "--ids", "deep.json", "--out", "o.npy"], "deep.json"),
    "no length": (["verify", SMALL, "--save", "s", "--length", "0"], "--length"),
    "results without ids": (["verify", SMALL, "--expected", SMALL / "model.safetensors"], "input_ids"),
    "results of another model": (["verify", "--expected", SMALL / "expected.safetensors"], "prefill.layers.0.out"),
    "a missing file of results": (["verify", "--expected", "gone.safetensors"], "gone.safetensors"),
    "a verification with nothing to compare": (["verify", SMALL], "--against"),
    "results that are no results": (["verify", SMALL, "--expected", "text.json"], "text.json"),
    "a target in the way": (["convert", SMALL, "."], "text.json"),
}


def write_without_mtp(directory: Path) -> None:
    """The bundled model less its MTP layer."""
    bundled = Checkpoint.open(bundled_model())
    names = [name for name in parameters(bundled.config) if not name.startswith("mtp.")]
    tokenizer = [bundled_model() / name for name in ("tokenizer.json", "tokenizer_config.json")]
    write_checkpoint(directory, bundled.config, ((name, bundled.weight(name)) for name in names), extra_files=tokenizer)


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line_and_exit_status_2(dsv4, case, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = {
        "text.json": "{no json",
        "range.json": "[1, 5000]",
        "empty.json": "[]",
        "ids.json": "[1, 2]",
        "deep.json": "[" * 100000,
        "experts.json": json.dumps(CONFIG | {"n_routed_experts": 10**9}),
    }
    for name, text in files.items():
        Path(name).write_text(text)
    arguments, named = WRONG[case]
    if case == "drafts without an MTP layer":
        write_without_mtp(Path("plain"))
    if case == "a target in the way":
        named = str(tmp_path)
    before = sorted(tmp_path.iterdir())
    status, _, err = dsv4(*arguments)
    assert status == 2
    assert err.startswith("dsv4: ")
    assert err.count("\n") == 1
    assert named in err
    assert sorted(tmp_path.iterdir()) == before


def test_the_variable_names_the_backend_and_an_option_comes_first(dsv4, monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, "abacus")
    status, out, err = dsv4("generate", "ROMEO.", "-n", 3)
    assert (status, out) == (2, "")
    assert re.fullmatch(r"dsv4: DSV4_BACKEND: expected one of auto, numpy, .*, found abacus\n", err)
    assert dsv4("generate", "ROMEO.", "-n", 3, "-b", "numpy")[0] == 0


@pytest.mark.parametrize("command", ["generate x", "chat", "logits --ids ids.json --out o.npy", "verify --save s"])
def test_every_command_that_computes_takes_a_backend(dsv4, command, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ids.json").write_text("[1, 2]")
    status, _, err = dsv4(*command.split(), "--backend", "abacus")
    assert status == 2
    assert err.startswith("dsv4: backend: expected one of auto, numpy, ")
    assert err.endswith(", found abacus\n")


@pytest.mark.parametrize("option", [[], ["--backend", "numba"]])
def test_a_backend_that_fails_to_load_is_one_line(dsv4, monkeypatch, option) -> None:
    def fail():
        raise ImportError("Numba needs\nanother NumPy")

    monkeypatch.setattr(backends, "_has_numba", lambda: True)
    monkeypatch.setitem(sys.modules, "dsv4_accel.numba", SimpleNamespace(NumbaOps=fail))
    monkeypatch.setenv(VARIABLE, "numpy" if option else "numba")
    status, out, err = dsv4("generate", "ROMEO.", "-n", 3, *option)
    assert (status, out) == (2, "")
    asked_by = "backend" if option else "DSV4_BACKEND"
    reason = "expected to load dsv4_accel.numba:NumbaOps, found ImportError: Numba needs another NumPy"
    assert err == f"dsv4: {asked_by} numba: {reason}\n"


def test_version_and_help_name_the_commands(dsv4) -> None:
    assert dsv4("--version")[:2] == (0, f"dsv4 {__version__}\n")
    assert dsv4("--version", "inspect")[:2] == (0, f"dsv4 {__version__}\n")
    status, out, _ = dsv4("--help")
    assert status == 0
    assert all(command in out for command in ("generate", "chat", "inspect", "convert", "logits", "verify"))


DAMAGE = {
    "layers.1.ffn.experts.2.w2.scale": b"\xff",  # E8M0 NaN, in an expert that the prompt needs
    "layers.2.ffn.shared_experts.w1.weight": b"\x7f",  # FP8 NaN
    "layers.3.attn.wq_b.weight": b"\xff",  # FP8 NaN, negative
    "norm.weight": b"\xc0\x7f",  # bfloat16 NaN
    "layers.0.hc_attn_fn": b"\x00\x00\x80\x7f",  # float32 infinity
    "layers.0.ffn.gate.tid2eid": b"\x63",  # expert 99
}


@pytest.mark.parametrize("name", DAMAGE)
def test_values_that_cannot_be_right_are_named(dsv4, tmp_path, name) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(bundled_model(), damaged)
    entry = Checkpoint.open(damaged).entries[name]
    with entry.file.open("r+b") as file:
        file.seek(entry.start)
        file.write(DAMAGE[name])
    status, _, err = dsv4("generate", "ROMEO." * 40, "-m", damaged, "-n", 3)
    assert status == 2
    assert err.startswith(f"dsv4: {damaged / 'model.safetensors'}: tensor '{name}'")
    assert "expected" in err
    assert "found" in err
    assert err.count("\n") == 1


def test_the_installed_command_shows_no_traceback() -> None:
    command = [sys.executable, "-c", "from dsv4.cli import main; main()", "inspect", "/no/such/place"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("dsv4: ")
    assert "Traceback" not in done.stderr


def test_importing_dsv4_loads_no_accelerator_and_no_torch() -> None:
    code = "import sys, dsv4; print([m for m in ('numba', 'cupy', 'torch', 'typer', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
