"""Answers in channels come apart by their control tokens, whole characters at a time."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msmodels.tokenizer_folders import write_byte_level
from msport.msmodels.tokenizer import Tokenizer, load_tokenizer
from msport.sample.chat import HARMONY, ChatFormat
from msport.sample.tokenizers import tokenizer_files

PROMPT = "<|start|>user<|message|>hi<|end|><|start|>assistant"
ANSWER = (
    "<|channel|>analysis<|message|>User greets. 用户😀<|end|><|start|>assistant<|channel|>final<|message|>Hello! 你好😀"
)


def _load(folder: Path, chat: ChatFormat) -> Tokenizer:
    for name, content in tokenizer_files(chat, 1024)[0].items():
        (folder / name).write_text(content, encoding="utf-8")
    tokenizer = load_tokenizer(folder)
    assert tokenizer is not None
    return tokenizer


@pytest.fixture(scope="module")
def harmony(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return _load(tmp_path_factory.mktemp("harmony"), HARMONY)


def _messages(tokenizer: Tokenizer, prompt: str, answer: str) -> list[tuple[str | None, str]]:
    """Channel and text of each message, joined from pieces that hold no part of a character."""
    stream = tokenizer.channels(tokenizer.encode(prompt))
    pieces = [*(stream.add(token) for token in tokenizer.encode(answer)), stream.finish()]
    assert not any("\N{REPLACEMENT CHARACTER}" in piece.text for piece in pieces)
    shown = [piece for piece in pieces if piece.text]
    return [
        (channel, "".join(piece.text for piece in group))
        for (_, channel), group in groupby(shown, key=lambda piece: (piece.message, piece.channel))
    ]


@pytest.mark.parametrize(
    ("prompt", "answer", "messages"),
    [
        (PROMPT, ANSWER, [("analysis", "User greets. 用户😀"), ("final", "Hello! 你好😀")]),
        (PROMPT, "<|channel|>final<|message|>Hello", [("final", "Hello")]),
        (PROMPT, "<|message|>Hello", [(None, "Hello")]),
        (
            PROMPT,
            "<|channel|>commentary to=functions.get <|constrain|>json<|message|>{}",
            [("commentary", "{}")],
        ),
        (
            PROMPT,
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b",
            [("analysis", "a"), ("analysis", "b")],
        ),
        (PROMPT + "<|channel|>final<|message|>Sure, ", "here it is", [("final", "here it is")]),
        (PROMPT + "<|channel|>", "final<|message|>Hello", [("final", "Hello")]),
        ("Once upon", " a time", [(None, " a time")]),
        (PROMPT, "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>fi", [("analysis", "a")]),
        (PROMPT, "<|channel|>anal", []),
        (PROMPT, "no header at all", [(None, "no header at all")]),
        (PROMPT, "x" * 10 + "word after word " * 40, [(None, "x" * 10 + "word after word " * 40)]),
        (PROMPT, "<|channel|>final<|message|>a<|message|>b", [("final", "ab")]),
        (PROMPT, "<|channel|><|message|>a<|end|>b", [(None, "a"), (None, "b")]),
    ],
)
def test_each_message_comes_with_its_channel(
    prompt: str, answer: str, messages: list[tuple[str | None, str]], harmony: Tokenizer
) -> None:
    assert _messages(harmony, prompt, answer) == messages


def test_a_character_cut_off_at_the_end_of_a_message_stays_in_its_channel(harmony: Tokenizer) -> None:
    stream = harmony.channels(harmony.encode(PROMPT))
    for token in harmony.encode("<|channel|>analysis<|message|>"):
        stream.add(token)
    cut = harmony.encode("龘")[:2]
    assert [stream.add(token).text for token in cut] == ["", ""]
    piece = stream.add(harmony.encode("<|end|>")[0])
    assert (piece.channel, piece.text) == ("analysis", "\N{REPLACEMENT CHARACTER}")


def test_text_that_looks_like_a_control_token_is_text(harmony: Tokenizer) -> None:
    stream = harmony.channels(harmony.encode(PROMPT + "<|channel|>final<|message|>"))
    spelt = [token for part in ("<|", "end", "|>") for token in harmony.encode(part)]
    pieces = [*map(stream.add, spelt), stream.finish()]
    assert "".join(piece.text for piece in pieces) == "<|end|>"
    assert {piece.channel for piece in pieces} == {"final"}


def test_a_tokenizer_that_lacks_a_control_token_has_no_channels(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_byte_level(tmp_path))  # has start, message and end
    assert tokenizer is not None
    assert _messages(tokenizer, "<|start|>user", "a<|end|>b<|message|>") == [(None, "ab")]


@given(st.lists(st.integers(0, 1023), max_size=120))
def test_the_shown_text_stays_in_order_for_all_tokens(harmony: Tokenizer, tokens: list[int]) -> None:
    stream = harmony.channels(harmony.encode(PROMPT))
    pieces = [*map(stream.add, tokens), stream.finish()]
    assert [piece.message for piece in pieces] == sorted(piece.message for piece in pieces)
    text = iter(harmony.decode(tokens))
    assert all(character in text for piece in pieces for character in piece.text if character != "\ufffd")


@given(st.lists(st.integers(0, 990), max_size=80))
def test_any_tokens_within_a_message_come_out_as_they_decode(harmony: Tokenizer, tokens: list[int]) -> None:
    stream = harmony.channels(harmony.encode(PROMPT + "<|channel|>final<|message|>"))
    pieces = [*map(stream.add, tokens), stream.finish()]
    assert "".join(piece.text for piece in pieces) == harmony.decode(tokens)
