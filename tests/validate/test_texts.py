"""The text of the cost: the beginning of a file in contexts, given prompts, or the default texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from msport.architectures import load_config
from msport.msmodels.tokenizer import load_tokenizer
from msport.validate import texts
from msport.validate.texts import choose_texts


def test_a_file_is_cut_into_contexts_that_begin_as_a_text_does(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, config = tmp_path / "book.txt", load_config(converted)
    file.write_text("one two three " * 40, encoding="utf-8")
    tokenizer = load_tokenizer(converted)
    assert tokenizer is not None
    ids = tokenizer.encode(file.read_text(encoding="utf-8"))
    monkeypatch.setattr(texts, "_CONTEXT", 16)
    monkeypatch.setattr(texts, "MOST_TOKENS", 100)
    found = choose_texts(converted, config, file, None)
    special = ids[:1] if ids[0] in tokenizer.special_ids else []
    assert {text.name for text in found} == {"book.txt"}
    assert [text.number for text in found] == list(range(len(found)))
    assert max(len(text.ids) for text in found) == 16
    assert all(list(text.ids[: len(special)]) == special for text in found)
    assert special + [token for text in found for token in text.ids[len(special) :]] == ids[:100]


def test_a_cut_in_the_middle_of_a_character_is_no_error(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "book.txt"
    file.write_text("模型" * 100, encoding="utf-8")
    monkeypatch.setattr(texts, "_MOST_BYTES", 100)
    (found,) = choose_texts(converted, load_config(converted), file, None)
    tokenizer = load_tokenizer(converted)
    assert tokenizer is not None
    assert list(found.ids) == tokenizer.encode("模型" * 16 + "模")


def test_without_a_file_the_prompts_are_the_text_and_without_these_the_default_ones(converted: Path) -> None:
    config = load_config(converted)
    assert [text.ids for text in choose_texts(converted, config, None, [[1, 2, 3]])] == [(1, 2, 3)]
    assert [text.name for text in choose_texts(converted, config, None, None)] == ["english", "chinese", "code"]
