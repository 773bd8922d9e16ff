"""Whatever stands in a file's place is refused at once, in one line, and called what it is."""

import json
import os
import re
import resource
import signal
from pathlib import Path

import pytest

from dsv4.checkpoint import Checkpoint, read_config
from dsv4.checkpoint.convert import convert
from dsv4.checkpoint.header import read_header
from dsv4.checkpoint.input_files import LARGEST_JSON, MOST_CONTAINERS, parse_json
from dsv4.cli.compare import logits
from dsv4.errors import CheckpointError, ConfigError, PromptError, TokenizerError
from dsv4.text.tokenizer import Tokenizer
from dsv4.verify import read_results
from tiny_checkpoint import FILE, INDEX, edit_header, tiny_config, write_released

TOKENIZER = Path(__file__).parents[1] / "data/tokenizer/tokenizer.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 26857472\n"
PAGE = b"\n<!DOCTYPE html>\n<html><body>Too many requests</body></html>\n"
LONG = "x" * 100_000


@pytest.fixture(autouse=True)
def little_time_and_memory():
    """What hangs is interrupted after a minute, and what takes a gigabyte more than there was is a MemoryError."""

    def interrupt(number, frame):
        raise TimeoutError

    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 10**9, before[1]))
    handler = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, handler)
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A released tiny checkpoint, which tests leave as it is."""
    return write_released(tmp_path_factory.mktemp("whole") / "model")


def open_directory(path):
    Checkpoint.open(path.parent)


READERS = {
    "config.json": (read_config, ConfigError),
    "tokenizer.json": (Tokenizer.from_file, TokenizerError),
    "ids.json": (lambda path: logits(ids=path, out=path.with_suffix(".npy")), PromptError),
    "expected.safetensors": (lambda path: read_results(path, tiny_config()), PromptError),
    FILE: (open_directory, CheckpointError),
    INDEX: (open_directory, CheckpointError),
    "generation_config.json": (lambda path: convert(path.parent, path.parent / "target"), CheckpointError),
}
"""Who reads each kind of file, and the error that it raises."""


@pytest.fixture(params=READERS)
def reader(request, model, tmp_path):
    """The place of a file, beside what else is read with it; what reads it; and its error."""
    for name in ("config.json", FILE):
        if name != request.param:
            (tmp_path / name).symlink_to(model / name)
    return tmp_path / request.param, *READERS[request.param]


def refusal(read, path, error):
    """The message with which a file is refused: one line that names the file and is not long."""
    with pytest.raises(error) as caught:
        read(path)
    message = str(caught.value)
    assert type(caught.value) is error
    assert str(path) in message
    assert "\n" not in message
    assert len(message.replace(str(path), "")) < 350
    return message


@pytest.mark.parametrize(("content", "kind"), [(POINTER, "a git-LFS pointer; the file"), (PAGE, "an HTML page")])
def test_a_pointer_and_a_page_are_called_so(reader, content, kind):
    path, read, error = reader
    path.write_bytes(content)
    assert f"found {kind}" in refusal(read, path, error)


def test_what_is_no_regular_file_is_not_opened(reader):
    """A pipe would block, and a device never end."""
    path, read, error = reader
    os.mkfifo(path)
    assert "found a pipe" in refusal(read, path, error)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "found a device" in refusal(read, path, error)
    path.unlink()
    (path / path.name).mkdir(parents=True)  # where a reader takes the directory of its file, too
    assert "found a directory" in refusal(read, path, error)


def test_a_file_of_three_gigabytes_is_not_read(reader):
    path, read, error = reader
    with path.open("wb") as stream:
        stream.truncate(3 * 10**9)
    message = refusal(read, path, error)
    assert f"at most {LARGEST_JSON:,} bytes, found 3,000,000,000 bytes" in message or path.suffix == ".safetensors"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("pipe", "found a pipe"),
        ("loop", "found: Too many levels of symbolic links"),
        ("n" * 300, "found: File name too long"),
        ("pipe/model", "found no such file"),
        ("none", "found no such file"),
        ("a\0b", "embedded null"),
    ],
)
def test_a_place_that_holds_no_checkpoint_is_called_what_it_is(tmp_path, name, found):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    assert found in refusal(Checkpoint.open, tmp_path / name, CheckpointError)
    assert found in refusal(read_config, tmp_path / name, ConfigError)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 1}}', "no valid JSON: the name 'c' twice in one object"),
        (b"[NaN]", "no valid JSON: the number NaN"),
        (b"[-Infinity]", "no valid JSON: the number -Infinity"),
        (b"[" * 100_000, "nested too deep"),
        (b"[1" + b"0" * 5000 + b"]", "no valid JSON"),
        ("\ufeff{}".encode(), "no valid JSON: Unexpected UTF-8 BOM"),
        ("{}".encode("utf-16"), "no valid JSON: 'utf-8' codec"),
        (b'"\xff"', "no valid JSON: 'utf-8' codec"),
        (b"[" + b"[]," * MOST_CONTAINERS + b"[]]", "more than 1,000,000 lists and objects"),
        (f'{{"{LONG}": 1, "{LONG}": 1}}'.encode(), "no valid JSON: the name 'xxx"),
        (b" ", "an empty file"),
        (b'{"a": 1}x', "no valid JSON: Extra data"),
        (b"<html>", "an HTML page"),
    ],
)
def test_what_json_text_may_not_hold(content, found):
    with pytest.raises(ValueError, match=found) as caught:
        parse_json(content)
    assert len(str(caught.value)) < 250


def test_json_text_keeps_what_it_may_hold():
    value = {"a": [1, -2.5e3, None, True, {"b": "é<html>"}], "": [[]] * 1000}
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


HUGE_VALUES = {
    "a thousand integers of 21 digits": [*range(10**20, 10**20 + 1000)],
    "a long text": LONG,
    "a list of long texts": [LONG] * 9,
    "an object with long names": {LONG + str(number): LONG for number in range(9)},
    "deep lists": [[[[[[[[LONG]]]]]]]],
    "an integer of 4000 digits": 10**4000,
}


@pytest.mark.parametrize("field", ["dtype", "shape", "data_offsets", None])
@pytest.mark.parametrize("value", HUGE_VALUES)
def test_huge_values_in_a_header_are_refused_and_not_quoted(model, tmp_path, field, value):
    file = tmp_path / FILE
    file.write_bytes((model / FILE).read_bytes())

    def change(header):
        if field is None:
            header["norm.weight"] = HUGE_VALUES[value]
        else:
            header["norm.weight"][field] = HUGE_VALUES[value]

    edit_header(file, change)
    assert "tensor 'norm.weight': " in refusal(read_header, file, CheckpointError)


def test_a_shape_of_a_million_integers_is_not_multiplied(model, tmp_path):
    file = tmp_path / FILE
    file.write_bytes((model / FILE).read_bytes())
    shape = [*range(10**20, 10**20 + 10**6)]
    edit_header(file, lambda header: header["norm.weight"].update(shape=shape))
    assert "shape: expected a list of at most 8 integers" in refusal(read_header, file, CheckpointError)


@pytest.mark.parametrize("name", [LONG, "\ud800" * 100_000, "y" * 1001])
def test_long_names_are_refused_and_not_quoted(model, tmp_path, name):
    file = tmp_path / FILE
    file.write_bytes((model / FILE).read_bytes())
    edit_header(file, lambda header: header.__setitem__(name, header.pop("norm.weight")))
    assert "expected a name of at most 1000 characters" in refusal(read_header, file, CheckpointError)


@pytest.mark.parametrize("name", [LONG, "n" * 300, "a\0b", "\ud800", "", "."])
def test_file_names_in_an_index_that_no_file_can_have(model, tmp_path, name):
    for file in ("config.json", FILE):
        (tmp_path / file).symlink_to(model / file)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {LONG: name}}))
    with pytest.raises(CheckpointError, match=r"found no file|found a directory") as caught:
        Checkpoint.open(tmp_path)
    assert len(str(caught.value)) < 500


def test_a_long_tensor_name_in_an_index_is_not_quoted(model, tmp_path):
    for file in ("config.json", FILE):
        (tmp_path / file).symlink_to(model / file)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {LONG: FILE}}))
    assert f"in {FILE}, found no such tensor" in refusal(open_directory, tmp_path / INDEX, CheckpointError)


@pytest.mark.parametrize("value", HUGE_VALUES)
def test_huge_values_in_a_tokenizer_are_not_quoted(tmp_path, value):
    for section, key in (("model", "type"), ("model", "vocab"), ("model", "merges"), ("decoder", "type")):
        data = json.loads(TOKENIZER.read_text(encoding="utf-8"))
        data[section][key] = HUGE_VALUES[value]
        (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
        refusal(Tokenizer.from_file, tmp_path / "tokenizer.json", TokenizerError)


def test_what_the_tokenizers_library_says_becomes_one_line(tmp_path):
    data = json.loads(TOKENIZER.read_text(encoding="utf-8")) | {"version": "one\ntwo\n" * 99}
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    assert "'one two one" in refusal(Tokenizer.from_file, tmp_path / "tokenizer.json", TokenizerError)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([], "found lists of length .0."),
        ([[], []], "found lists of length .0."),
        ([[1], [1, 2]], "found lists of length .1, 2."),
        ([*([1] * n for n in range(1, 1000))], "found lists of length .1, 2, 3"),
        (7, "found 7"),
        ({"ids": [1]}, "found .'ids': "),
        ([1, [2]], "list 0: expected integers as token ids, found .2."),
        ([[1], 2], "found ..1., 2."),
        ([[[1]]], "list 0: expected integers as token ids, found .1."),
        ([1, 2.0], "list 0: expected integers as token ids, found 2.0"),
        ([[1], [True]], "list 1: expected integers as token ids, found True"),
        ([1, 2**63], "list 0: expected integers as token ids, found 9223372036854775808"),
        ([1, 10**4000], "list 0: expected integers as token ids, found an integer of about 4001 digits"),
        ([LONG * 10] + ["x"] * 100_000, "list 0: expected integers as token ids, found 'xxx"),
        ([[LONG] * 3], "list 0: expected integers as token ids, found 'xxx"),
        (LONG, "found 'xxx"),
    ],
)
def test_ids_that_are_none_are_said_in_one_line(tmp_path, content, found):
    """A list of texts, one of them long, would become an array of terabytes."""
    read, error = READERS["ids.json"]
    (tmp_path / "ids.json").write_text(json.dumps(content))
    assert re.search(found, refusal(read, tmp_path / "ids.json", error))


def test_a_long_token_in_tokenizer_config_is_not_quoted(tmp_path):
    (tmp_path / "tokenizer.json").symlink_to(TOKENIZER)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": LONG}))
    assert "expected xxx" in refusal(Tokenizer.from_file, tmp_path / "tokenizer.json", TokenizerError)


def test_fused_experts_are_as_many_as_the_model_has(model, tmp_path):
    """Half a billion experts of two numbers each fit a file that has hardly a block on the disk."""
    (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
    header = {
        "model.layers.0.mlp.experts.gate_up_proj": {
            **{"dtype": "I8", "shape": [5 * 10**8, 2, 1], "data_offsets": [0, 10**9]}
        }
    }
    text = json.dumps(header).encode()
    with (tmp_path / FILE).open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + 10**9)
    message = refusal(lambda file: open_directory(file), tmp_path / FILE, CheckpointError)
    assert "expected 3 experts, found 500000000" in message


def test_results_of_gigabytes_are_mapped_and_not_read(tmp_path):
    """Only what a comparison looks at is read from the file of expected results."""
    ids = b"\0" * 16
    header = {
        "input_ids": {"dtype": "I64", "shape": [1, 2], "data_offsets": [0, 16]},
        "other": {"dtype": "F32", "shape": [750_000_000], "data_offsets": [16, 16 + 3 * 10**9]},
    }
    text = json.dumps(header).encode()
    file = tmp_path / "expected.safetensors"
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text + ids)
        stream.truncate(8 + len(text) + 16 + 3 * 10**9)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))  # in which mappings count
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results = read_results(file, tiny_config())
    assert results["other"].shape == (750_000_000,)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes
