"""The tokenizer encodes and decodes as Transformers' fast tokenizers do."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from msmodels.tokenizer_folders import (
    SPECIAL,
    WRITERS,
    is_transformers_5,
    load,
    reference,
    write_byte_fallback,
    write_byte_level,
)
from msport.errors import CheckpointError, UsageError
from msport.msmodels.text_stream import TextStream
from msport.msmodels.tokenizer import Tokenizer, _add_tokens, load_tokenizer

TEXTS = [
    "The lazy dog .",
    "  leading and trailing  ",
    "敏捷的狐狸，龘靐齉",
    "smile 😀👩‍👩‍👧‍👦🏳️‍🌈 done",
    "def f(x):\n\treturn {'a': [x, None]}  # 注释\n",
    "<|start|>user<|message|>hi<|end|>",
    "naïve café, Ελληνικά, עברית, ไทย",
    "",
]


@pytest.fixture(scope="module", params=WRITERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return WRITERS[request.param](tmp_path_factory.mktemp("tokenizer"))


@functools.cache
def _tokenizer(kind: str) -> Tokenizer:
    with TemporaryDirectory() as folder:
        return load(WRITERS[kind](Path(folder)))


def _streamed(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    stream = tokenizer.stream()
    return [*(stream.add(token) for token in ids), stream.finish()]


@pytest.mark.reference
def test_ids_and_text_are_those_of_transformers(folder: Path) -> None:
    theirs, ours = reference(folder), load(folder)
    for text in TEXTS:
        ids = theirs(text)["input_ids"]
        assert ours.encode(text) == ids
        assert ours.encode(text, add_special_tokens=False) == theirs.encode(text, add_special_tokens=False)
        for skip in (True, False):
            expected = theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
            assert ours.decode(ids, skip_special_tokens=skip) == expected
    assert ours.special_ids == {theirs.convert_tokens_to_ids(token) for token in theirs.all_special_tokens} | (
        {theirs.convert_tokens_to_ids(token) for token in SPECIAL} if "<|end|>" in theirs.get_vocab() else set()
    )


@pytest.mark.reference
@pytest.mark.parametrize("flags", [{"add_bos_token": False}, {"add_eos_token": True}, {}])
def test_bos_and_eos_follow_the_flags_of_tokenizer_config_where_transformers_does(
    flags: dict[str, bool], tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    if flags and is_transformers_5():
        pytest.skip("Transformers 5 leaves bos and eos to tokenizer.json")
    folder = write_byte_fallback(tmp_path, **flags)
    assert load(folder).encode("the dog") == reference(folder).encode("the dog")


@pytest.mark.reference
def test_tokens_that_only_tokenizer_config_names_are_added_as_transformers_adds_them(tmp_path: Path) -> None:
    token = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = {"340": token | {"content": "<|extra|>"}, "341": token | {"content": "<tool>", "special": False}}
    folder = write_byte_level(tmp_path, added_tokens_decoder=added, pad_token="<|pad|>")
    theirs, ours = reference(folder), load(folder)
    text = "a<|extra|>b<tool>c<|pad|>"
    assert ours.encode(text) == theirs.encode(text)
    assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text), skip_special_tokens=True)


def test_a_stream_joins_to_the_whole_text_and_never_holds_half_a_character(folder: Path) -> None:
    tokenizer = load(folder)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        pieces = _streamed(tokenizer, ids)
        assert "".join(pieces) == tokenizer.decode(ids)
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


@settings(max_examples=150)
@given(st.text(max_size=30))
def test_any_text_streams_to_itself(text: str) -> None:
    for tokenizer in map(_tokenizer, WRITERS):
        ids = tokenizer.encode(text)
        assert "".join(_streamed(tokenizer, ids)) == tokenizer.decode(ids)


@settings(max_examples=150)
@given(st.lists(st.integers(0, 339), max_size=80))
def test_any_byte_level_tokens_stream_to_what_they_decode_to(ids: list[int]) -> None:
    tokenizer = _tokenizer("byte level")
    assert "".join(_streamed(tokenizer, ids)) == tokenizer.decode(ids)


def test_a_character_left_incomplete_ends_as_one_replacement() -> None:
    tokenizer = _tokenizer("byte level")
    ids = tokenizer.encode("龘")
    assert len(ids) == 3
    assert _streamed(tokenizer, ids[:2]) == ["", "", "\N{REPLACEMENT CHARACTER}"]


def test_a_stream_decodes_a_bounded_window_however_long_the_text() -> None:
    tokenizer = _tokenizer("byte level")
    windows: list[int] = []

    def decode(ids: Sequence[int]) -> str:
        windows.append(len(ids))
        return tokenizer.decode(ids)

    stream = TextStream(decode)
    stray_byte = tokenizer.encode("龘")[1]
    ids = [*tokenizer.encode("the dog 敏捷的 " * 50), *[stray_byte] * 300, *tokenizer.encode("end")]
    assert "".join(map(stream.add, ids)) + stream.finish() == tokenizer.decode(ids)
    assert max(windows) <= 33
    assert len(windows) <= 2 * len(ids) + 1


def test_tokens_that_only_tokenizer_config_names_are_added_in_one_call(tmp_path: Path) -> None:
    token = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = {str(340 + index): token | {"content": f"<|extra {index}|>"} for index in range(1000)}
    calls: list[int] = []

    class Counting:
        """A backend, which builds its search for added tokens anew at each call: a million calls would not end."""

        backend = Backend.from_file(str(write_byte_level(tmp_path) / "tokenizer.json"))

        def add_tokens(self, tokens: Sequence[AddedToken]) -> None:
            calls.append(len(tokens))
            self.backend.add_tokens(tokens)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.backend, name)

    backend = Counting()
    _add_tokens(backend, {"added_tokens_decoder": added}, {})
    assert calls == [1000]
    assert backend.encode("<|extra 7|>").ids == [347]


def test_a_folder_without_a_tokenizer_has_none(tmp_path: Path) -> None:
    assert load_tokenizer(tmp_path) is None


def test_truncation_and_padding_left_in_the_file_do_not_apply(tmp_path: Path) -> None:
    folder = write_byte_level(tmp_path)
    whole = load(folder).encode("the dog")
    document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    document["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps(document))
    assert load(folder).encode("the dog") == whole


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{}"),
        ("tokenizer.json", "not json"),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"5": {}}}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"5": {"content": 5}}}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": [1]}'),
        ("tokenizer_config.json", '{"additional_special_tokens": "text"}'),
        ("tokenizer_config.json", '{"additional_special_tokens": [null]}'),
        ("tokenizer_config.json", '{"eos_token": {"content": 5}}'),
        ("tokenizer_config.json", '{"eos_token": [1]}'),
        ("tokenizer_config.json", '{"chat_template": [{}]}'),
        ("tokenizer_config.json", '{"chat_template": 5}'),
        ("tokenizer_config.json", "[" * 100_000),
        ("tokenizer_config.json", '{"model_max_length": ' + "1" * 4000 + "}"),
        ("chat_template.jinja", b"\xc4\xe3"),
    ],
)
def test_a_broken_file_is_named(name: str, content: str | bytes, tmp_path: Path) -> None:
    folder = write_byte_level(tmp_path)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CheckpointError, match=rf"{name}: .*; take it from") as caught:
        load_tokenizer(folder)
    assert len(str(caught.value)) < len(str(tmp_path)) + 400


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_a_pipe_is_refused_not_waited_for(name: str, tmp_path: Path) -> None:
    folder = write_byte_level(tmp_path)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(CheckpointError, match=rf"{name}: is a named pipe"):
        load_tokenizer(folder)


def test_a_tokenizer_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    folder = write_byte_level(tmp_path)
    with open(folder / "tokenizer.json", "ab") as file:
        file.truncate(200_000_000)  # takes no place on the disk
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: .*larger than 100000000 bytes"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {}}},
        {
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "gone", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [],
                "special_tokens": {},
            }
        },
    ],
    ids=["an exception", "a panic"],
)
def test_a_tokenizer_that_fails_on_a_text_is_named(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = write_byte_level(tmp_path)
    document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")) | changes
    (folder / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: the tokenizer fails .*; take it from"):
        load(folder).encode("dog")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (os.fsdecode("你好".encode("gbk")), r"not UTF-8: it holds the byte 0xC4 \(character 1\); convert it"),
        ("ok \ud83d", r"half a surrogate pair, U\+D83D \(character 4\)"),
    ],
)
def test_a_text_that_is_not_unicode_is_refused_with_the_remedy(text: str, reason: str, folder: Path) -> None:
    with pytest.raises(UsageError, match=reason):
        load(folder).encode(text)
