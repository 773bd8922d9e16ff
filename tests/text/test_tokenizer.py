"""Ids and text: the official ids, harmless special-token text, streaming, and files that cannot be used."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from dsv4 import chat
from dsv4.errors import TokenizerError
from dsv4.text.chat import Control, Text
from dsv4.text.tokenizer import Tokenizer

DATA = Path(__file__).parents[1] / "data"
DIRECTORY = DATA / "tokenizer"
RAW = json.loads((DIRECTORY / "tokenizer.json").read_text(encoding="utf-8"))
GOLDENS = [json.loads(line) for line in (DATA / "chat_encoding.jsonl").read_text(encoding="utf-8").splitlines()]
HARMLESS_GOLDENS = [
    golden
    for golden in GOLDENS
    if not any(token in json.dumps(golden["messages"], ensure_ascii=False) for token in chat.CONTROL_TOKENS)
]
CONTROL_IDS = {token["id"] for token in RAW["added_tokens"]}
TOKENIZER = Tokenizer.from_file(DIRECTORY)
OFFICIAL = tokenizers.Tokenizer.from_file(str(DIRECTORY / "tokenizer.json"))

any_text = st.text(max_size=20)
plain_text = any_text.filter(lambda text: not any(token["content"] in text for token in RAW["added_tokens"]))
special_text = st.lists(st.sampled_from([*chat.CONTROL_TOKENS, "<", "｜", " ", "a", "é"]) | any_text, max_size=5).map(
    "".join
)
all_ids = st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=12)


def official_ids(text):
    return OFFICIAL.encode(text, add_special_tokens=False).ids


def changed(directory, change):
    """A copy of the tokenizer, changed by `change(data)`, in `directory`."""
    data = json.loads(json.dumps(RAW))
    change(data)
    (directory / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    return Tokenizer.from_file(directory)


def make_thinking_reachable(data):
    """Let ordinary BPE arrive at `<think>`: one word, merges that build it, and an entry that may be taken whole."""
    data["pre_tokenizer"]["use_regex"] = False
    data["model"]["ignore_merges"] = True
    for length in range(2, len("<think>")):
        data["model"]["vocab"].setdefault("<think>"[:length], 1022 + length)
    merges = [["<think>"[:length], "<think>"[length]] for length in range(1, len("<think>"))]
    data["model"]["merges"] = merges + data["model"]["merges"]


def make_none_special(data):
    for token in data["added_tokens"]:
        token["special"] = False


# --- ids --------------------------------------------------------------------------------------------------------


def test_ids_and_size_are_those_of_the_files():
    assert (TOKENIZER.bos_id, TOKENIZER.eos_id, TOKENIZER.vocab_size) == (0, 1, 1024)
    assert Tokenizer.from_file(DIRECTORY / "tokenizer.json").vocab_size == 1024


def test_begin_and_end_token_default_to_those_of_the_format(tmp_path):
    tokenizer = changed(tmp_path, lambda data: None)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (0, 1)


def test_tokenizer_config_names_begin_and_end_token(tmp_path):
    names = {"bos_token": {"content": "<｜User｜>"}, "eos_token": "<｜Assistant｜>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
    tokenizer = changed(tmp_path, lambda data: None)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (3, 4)


@pytest.mark.parametrize("golden", HARMLESS_GOLDENS, ids=range(len(HARMLESS_GOLDENS)))
@pytest.mark.parametrize("mode", chat.EFFORTS["0731"])
def test_pieces_of_a_conversation_have_the_official_ids(golden, mode):
    ids = TOKENIZER.encode_pieces(chat.encode_pieces(golden["messages"], mode, revision="0731"))
    assert ids == official_ids(chat.encode(golden["messages"], mode, revision="0731"))


def test_nearly_all_goldens_are_compared():
    assert len(HARMLESS_GOLDENS) == len(GOLDENS) - 1 == 34


@given(plain_text, plain_text, plain_text)
def test_pieces_of_any_plain_text_have_the_official_ids(system, question, answer):
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer, "reasoning_content": question},
    ]
    ids = TOKENIZER.encode_pieces(chat.encode_pieces(messages, "high"))
    assert ids == official_ids(chat.encode(messages, "high"))


@given(plain_text)
def test_text_without_control_tokens_has_the_same_ids_on_both_routes(text):
    assert TOKENIZER.encode(text) == TOKENIZER.encode(text, allow_special=True) == official_ids(text)


@given(special_text)
def test_special_token_text_passes_through_only_where_it_is_allowed(text):
    assert TOKENIZER.encode(text, allow_special=True) == official_ids(text)
    ids = TOKENIZER.encode(text)
    assert CONTROL_IDS.isdisjoint(ids)
    assert TOKENIZER.decode(ids) == text


@given(special_text)
def test_content_adds_no_control_id_to_those_of_the_template(text):
    """The trap: special-token text in user content that is encoded as control tokens."""
    ids = TOKENIZER.encode_pieces(chat.encode_pieces([{"role": "user", "content": text}]))
    assert [token_id for token_id in ids if token_id in CONTROL_IDS] == [0, 3, 4, 6]
    assert TOKENIZER.decode(ids) == chat.encode([{"role": "user", "content": text}])


@pytest.mark.parametrize("token", [token["content"] for token in RAW["added_tokens"]])
@pytest.mark.parametrize("change", [make_thinking_reachable, make_none_special])
def test_no_text_becomes_a_control_id_in_an_unusual_file(tmp_path, token, change):
    tokenizer = changed(tmp_path, change)
    ids = tokenizer.encode(token)
    assert CONTROL_IDS.isdisjoint(ids)
    assert tokenizer.decode(ids) == token
    assert CONTROL_IDS.issuperset(tokenizer.encode(token, allow_special=True))


def test_merges_may_be_written_as_strings(tmp_path):
    def write_as_strings(data):
        make_thinking_reachable(data)
        data["model"]["merges"] = [" ".join(merge) for merge in data["model"]["merges"]]

    tokenizer = changed(tmp_path, write_as_strings)
    assert tokenizer.encode("<think>") != tokenizer.encode("<think>", allow_special=True) == [5]
    assert tokenizer.decode(tokenizer.encode("<think>")) == "<think>"


def test_a_file_that_truncates_and_pads_does_neither(tmp_path):
    def truncate_and_pad(data):
        pad = {"pad_id": 2, "pad_type_id": 0, "pad_token": "<｜▁pad▁｜>", "pad_to_multiple_of": None}
        data["padding"] = {"strategy": {"Fixed": 64}, "direction": "Right", **pad}
        data["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}

    tokenizer = changed(tmp_path, truncate_and_pad)
    text = "To be, or not to be, that is the question"
    assert tokenizer.encode(text) == tokenizer.encode(text, allow_special=True) == official_ids(text)


def test_a_control_piece_that_is_no_token_is_reported():
    with pytest.raises(TokenizerError, match=r"tokenizer.json: expected <｜nobody｜> among added_tokens"):
        TOKENIZER.encode_pieces([Text("a"), Control("<｜nobody｜>")])


@pytest.mark.parametrize(("text", "report"), [(None, "found NoneType"), (b"a", "found bytes"), ("a\ud800", "UTF-8")])
def test_what_is_no_text_is_reported(text, report):
    with pytest.raises(TokenizerError, match=f"text: expected .*{report}"):
        TOKENIZER.encode(text)


# --- pieces -----------------------------------------------------------------------------------------------------


@given(all_ids)
def test_pieces_of_any_ids_have_the_text_and_the_control_tokens_of_these(ids):
    pieces = TOKENIZER.decode_pieces(ids)
    assert chat.join(pieces) == TOKENIZER.decode(ids)
    control_texts = [TOKENIZER.decode([token_id]) for token_id in ids if token_id in CONTROL_IDS]
    assert [piece.text for piece in pieces if isinstance(piece, Control)] == control_texts


@given(
    st.lists(st.sampled_from([Control(token) for token in chat.CONTROL_TOKENS]) | special_text.map(Text), max_size=6)
)
def test_decode_pieces_undoes_encode_pieces(pieces):
    found = TOKENIZER.decode_pieces(TOKENIZER.encode_pieces(pieces))
    assert [piece for piece in found if isinstance(piece, Control)] == [p for p in pieces if isinstance(p, Control)]
    assert chat.join(found) == chat.join(pieces)
    assert not any(isinstance(a, Text) and isinstance(b, Text) for a, b in itertools.pairwise(found))
    assert all(piece.text for piece in found)


def test_pieces_tell_control_tokens_from_their_text(tmp_path):
    tokenizer = changed(tmp_path, make_none_special)
    ids = [5, *tokenizer.encode("</think>"), 6, 2]
    expected = [Control("<think>"), Text("</think>"), Control("</think>"), Control("<｜▁pad▁｜>")]
    assert tokenizer.decode_pieces(ids) == tokenizer.decode_pieces(iter(ids)) == expected


def test_an_id_without_text_is_no_piece():
    assert TOKENIZER.decode_pieces([0, 1024]) == TOKENIZER.decode_pieces([0])


# --- text -------------------------------------------------------------------------------------------------------


@given(all_ids)
def test_decode_gives_what_the_library_gives(ids):
    assert TOKENIZER.decode(ids) == OFFICIAL.decode(ids, skip_special_tokens=False)
    assert TOKENIZER.decode(ids, skip_special=True) == OFFICIAL.decode(ids, skip_special_tokens=True)


def test_skip_special_leaves_out_control_tokens_that_the_file_does_not_call_special(tmp_path):
    tokenizer = changed(tmp_path, make_none_special)
    ids = tokenizer.encode("<think>why</think>because<｜end▁of▁sentence｜>", allow_special=True)
    assert tokenizer.decode(ids, skip_special=True) == "whybecause"
    assert tokenizer.decode(ids) == "<think>why</think>because<｜end▁of▁sentence｜>"


@given(special_text)
def test_streaming_gives_whole_characters_only(text):
    stream = TOKENIZER.stream()
    given_so_far = ""
    for token_id in TOKENIZER.encode(text, allow_special=True):
        given_so_far += stream.push(token_id)
        assert text.startswith(given_so_far)
    assert stream.flush() == ""
    assert given_so_far == text


@given(all_ids, st.booleans())
def test_streaming_any_ids_gives_what_decode_gives(ids, skip_special):
    stream = TOKENIZER.stream(skip_special)
    pushed = "".join([stream.push(token_id) for token_id in ids])
    assert pushed + stream.flush() == TOKENIZER.decode(ids, skip_special)


def test_a_character_is_given_with_its_last_byte_and_an_unfinished_one_at_the_end():
    first, second, third, fourth = TOKENIZER.encode("💡")
    stream = TOKENIZER.stream()
    assert [stream.push(token_id) for token_id in (first, second, third, fourth)] == ["", "", "", "💡"]
    assert [stream.push(token_id) for token_id in (first, second)] == ["", ""]
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""


@given(st.lists(st.integers(0, TOKENIZER.vocab_size + 30) | st.integers(0, 2**32 - 1), max_size=12), st.booleans())
def test_an_id_without_text_adds_none_as_in_the_library(ids, skip_special):
    """A model may have more ids than its tokenizer, and draws them, too; also between the bytes of a character."""
    assert TOKENIZER.decode(ids, skip_special) == OFFICIAL.decode(ids, skip_special_tokens=skip_special)


def test_an_id_without_text_parts_no_character():
    first, *others = TOKENIZER.encode("💡")
    assert TOKENIZER.decode([first, 1029, *others, 10**30]) == "💡"


@pytest.mark.parametrize("token_id", [-1, 70.0, "a", None, True, [70]])
def test_what_is_no_id_is_reported(token_id):
    with pytest.raises(TokenizerError, match=r"token id: expected an integer of at least 0, found"):
        TOKENIZER.decode([70, token_id])


def test_ids_may_be_numbers_of_numpy_and_must_be_a_list():
    assert TOKENIZER.decode(np.array([70, 71], np.uint16)) == TOKENIZER.decode([70, 71])
    with pytest.raises(TokenizerError, match="token ids: expected a list of integers, found 70"):
        TOKENIZER.decode(70)


# --- files that cannot be used ----------------------------------------------------------------------------------


def test_a_missing_file_is_reported(tmp_path):
    for path in (tmp_path, tmp_path / "none", tmp_path / "none" / "tokenizer.json"):
        with pytest.raises(TokenizerError, match="expected JSON, found no such file"):
            Tokenizer.from_file(path)


@pytest.mark.parametrize(
    ("content", "report"),
    [
        (b"", "tokenizer.json: expected JSON, found"),
        (b"\xff\xfe", "tokenizer.json: expected JSON, found"),
        (b"[1, 2]", "tokenizer.json: expected a JSON object, found list"),
        (b"{}", "tokenizer.json: expected model BPE and decoder ByteLevel, found None and None"),
        (b'{"model": {"type": "WordPiece"}, "decoder": null}', "found 'WordPiece' and None"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_reported(tmp_path, content, report):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=report):
        Tokenizer.from_file(tmp_path)


@pytest.mark.parametrize("token", chat.CONTROL_TOKENS)
def test_a_token_that_the_chat_format_needs_and_the_file_lacks_is_reported(tmp_path, token):
    def remove(data):
        data["added_tokens"] = [entry for entry in data["added_tokens"] if entry["content"] != token]

    with pytest.raises(TokenizerError) as caught:
        changed(tmp_path, remove)
    assert str(caught.value).startswith(f"{tmp_path / 'tokenizer.json'}: expected {token} among added_tokens")


def test_an_end_token_that_the_file_lacks_is_reported(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|eot|>"}', encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"tokenizer.json: expected <\|eot\|> among added_tokens"):
        changed(tmp_path, lambda data: None)


def test_an_unreadable_tokenizer_config_is_reported(tmp_path):
    shutil.copy(DIRECTORY / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"tokenizer_config.json: expected JSON"):
        Tokenizer.from_file(tmp_path)


def broken_merges(data):
    data["model"]["merges"].append(["nowhere", "found"])


def lost_byte(data):
    del data["model"]["vocab"]["!"]


def byte_as_control_token(data):
    data["added_tokens"].append({**data["added_tokens"][0], "id": 16, "content": "!"})


def nameless_token(data):
    del data["added_tokens"][0]["content"]


@pytest.mark.parametrize(
    ("change", "report"),
    [
        (broken_merges, "expected a tokenizer that can be built, found"),
        (lost_byte, "expected a token for each of the 256 bytes, found none for '!'"),
        (byte_as_control_token, "expected a token for each of the 256 bytes, found none for '!'"),
        (nameless_token, "expected added_tokens to be a list of tokens with their content"),
    ],
)
def test_a_damaged_file_is_reported(tmp_path, change, report):
    with pytest.raises(TokenizerError, match=report):
        changed(tmp_path, change)
