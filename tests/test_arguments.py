"""A caller from Python who passes a wrong type reads one sentence about it, before anything has begun."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import msport
from msport.arguments import checked

COUNT = "must be a whole number or None, not"
PROMPTS = "`prompts` must be a list of texts or lists of whole numbers or None, not"
WRONG: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (msport.convert_checkpoint, {"model": None}, "`model` must be a text or a path, not None"),
    (msport.convert_checkpoint, {"model": b"m"}, "`model` must be a text or a path, not b'm'"),
    (msport.convert_checkpoint, {"output": 1}, "`output` must be a text or a path or None, not 1"),
    (msport.convert_checkpoint, {"dtype": None}, "`dtype` must be a text, not None"),
    (msport.convert_checkpoint, {"format": 3}, "`format` must be a text, not 3"),
    (msport.convert_checkpoint, {"max_shard_size": 1.5}, "`max_shard_size` must be a whole number or a text, not 1.5"),
    (msport.convert_checkpoint, {"max_memory": [1]}, "`max_memory` must be a whole number or a text, not [1]"),
    (msport.convert_checkpoint, {"workers": "2"}, f"`workers` {COUNT} '2'"),
    (msport.convert_checkpoint, {"workers": True}, f"`workers` {COUNT} True"),
    (msport.convert_checkpoint, {"revision": 1}, "`revision` must be a text or None, not 1"),
    (msport.convert_checkpoint, {"source": ["hub"]}, "`source` must be a text or None, not ['hub']"),
    (msport.convert_checkpoint, {"keep_source": "no"}, "`keep_source` must be True or False, not 'no'"),
    (msport.convert_checkpoint, {"network": 3}, "`network` must be a Network or None, not 3"),
    (msport.convert_checkpoint, {"verify": "yes"}, "`verify` must be True or False, not 'yes'"),
    (msport.convert_checkpoint, {"restart": None}, "`restart` must be True or False, not None"),
    (msport.convert_checkpoint, {"progress": True}, "`progress` must be a function or None, not True"),
    (msport.load_model, {"folder": None}, "`folder` must be a text or a path, not None"),
    (msport.load_model, {"dtype": float}, "`dtype` must be a text or None, not <class 'float'>"),
    (msport.load_model, {"max_length": "5"}, "`max_length` must be a whole number, not '5'"),
    (msport.load_model, {"batch_size": 1.0}, "`batch_size` must be a whole number, not 1.0"),
    (msport.load_model, {"prefill_chunk": None}, "`prefill_chunk` must be a whole number, not None"),
    (msport.load_model, {"phases": print}, "`phases` must be a Phases or None, not <built-in function print>"),
    (msport.validate_model, {"folder": 5}, "`folder` must be a text or a path, not 5"),
    (msport.validate_model, {"reference": 5}, "`reference` must be a text or a path or None, not 5"),
    (msport.validate_model, {"tol": "x"}, "`tol` must be a number or None, not 'x'"),
    (msport.validate_model, {"level": 2}, "`level` must be one of logits, layers, weights, not 2"),
    (msport.validate_model, {"reference_dtype": None}, "`reference_dtype` must be a text, not None"),
    (msport.validate_model, {"stream": "no"}, "`stream` must be True or False or None, not 'no'"),
    (msport.validate_model, {"prompts": "abc"}, f"{PROMPTS} 'abc'"),
    (msport.validate_model, {"prompts": [1, 2]}, f"{PROMPTS} [1, 2]"),
    (msport.validate_model, {"prompts": [["a"]]}, f"{PROMPTS} [['a']]"),
    (msport.validate_model, {"prompts": {"a": 1}}, f"{PROMPTS} {{'a': 1}}"),
    (msport.validate_model, {"max_length": "5"}, f"`max_length` {COUNT} '5'"),
    (msport.validate_model, {"seed": None}, "`seed` must be a whole number, not None"),
    (msport.validate_model, {"save_reference": 1}, "`save_reference` must be a text or a path or None, not 1"),
    (msport.benchmark, {"suite": 1}, "`suite` must be a text or None, not 1"),
    (
        msport.benchmark,
        {"prompt_tokens": "8"},
        "`prompt_tokens` must be a whole number or a list of whole numbers or None",
    ),
    (
        msport.benchmark,
        {"batch": [1, "2"]},
        "`batch` must be a whole number or a list of whole numbers or None, not [1,",
    ),
    (msport.benchmark, {"dtype": [None]}, "`dtype` must be a text or a list of texts or None, not [None]"),
    (msport.benchmark, {"new_tokens": 1.5}, f"`new_tokens` {COUNT} 1.5"),
    (msport.benchmark, {"repeats": "5"}, f"`repeats` {COUNT} '5'"),
    (msport.benchmark, {"threads": [1]}, f"`threads` {COUNT} [1]"),
    (msport.benchmark, {"baseline": True}, "`baseline` must be a text or None, not True"),
]


@pytest.mark.parametrize(("call", "given", "message"), WRONG)
def test_an_argument_of_a_wrong_type_is_named_with_what_it_should_be(
    call: Callable[..., Any], given: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mindspore")
    monkeypatch.chdir(tmp_path)
    first = {"model" if call is msport.convert_checkpoint else "folder": "no-such-folder"}
    with pytest.raises(msport.UsageError) as refusal:
        call(**{**first, **given})
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "prompts",
    [None, ["a", "b"], ("a",), [[1, 2], "a"], [np.array([1, 2])], np.array([[1, 2]]), [(np.int64(3),)], []],
)
def test_every_form_that_the_annotation_allows_is_taken(prompts: object, tmp_path: Path) -> None:
    with pytest.raises(msport.CheckpointError, match=r"msport\.json"):  # the arguments are fine, the folder is empty
        msport.validate_model(tmp_path, tol=1, prompts=prompts)  # type: ignore[arg-type]


def test_a_long_value_is_shortened_and_stays_on_one_line() -> None:
    @checked
    def call(number: int) -> int:
        return number

    with pytest.raises(msport.UsageError) as refusal:
        call(np.zeros((100, 100)))  # type: ignore[arg-type]
    assert len(str(refusal.value)) < 100
    assert "\n" not in str(refusal.value)
    assert call(np.int64(3)) == 3


def test_an_argument_that_a_call_does_not_have_is_an_error_of_the_program() -> None:
    with pytest.raises(TypeError, match="lenght"):
        msport.validate_model("x", lenght=5)  # type: ignore[call-arg]
