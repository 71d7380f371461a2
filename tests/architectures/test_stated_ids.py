"""Token ids come from generation_config.json and config.json, and whatever is no id there is one clear line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from msport.architectures.stated_ids import read_special_ids, read_stop_ids
from msport.errors import ConfigError


def test_stop_ids_come_from_generation_config_first(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"eos_token_id": 7}')
    assert read_stop_ids(tmp_path) == {7}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": null}')
    assert read_stop_ids(tmp_path) == {7}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [3, 5]}')
    assert read_stop_ids(tmp_path) == {3, 5}


def test_no_stop_id_means_none(tmp_path: Path) -> None:
    assert read_stop_ids(tmp_path) == frozenset()


def test_all_special_ids_of_both_files_are_collected(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"pad_token_id": 1, "eos_token_id": None}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 3], "bos_token_id": 4}))
    assert read_special_ids(tmp_path) == {1, 2, 3, 4}


def test_a_pad_id_of_minus_one_means_none_as_in_the_first_llama(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"pad_token_id": -1, "eos_token_id": 1}')
    assert read_special_ids(tmp_path) == {1}


@pytest.mark.parametrize("value", ['"2"', "[[2]]", "-2", "[2, -1]", "true", "2.0", "{}", '"' + "x" * 10_000 + '"'])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_what_is_no_token_id_is_named_with_its_file(name: str, value: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(f'{{"eos_token_id": {value}}}')
    for read in (read_stop_ids, read_special_ids):
        with pytest.raises(ConfigError, match=rf"{name}: eos_token_id is .*; take it from") as caught:
            read(tmp_path)
        assert len(str(caught.value)) < len(str(tmp_path)) + 300


@pytest.mark.parametrize(
    "content", ["[1, 2", "[]", '"text"', "1", "[" * 100_000, '{"eos_token_id": 1e999}', f'{{"seed": {"1" * 4000}}}']
)
def test_a_broken_generation_config_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(content)
    for read in (read_stop_ids, read_special_ids):
        with pytest.raises(ConfigError, match=r"generation_config\.json: .*; take it from"):
            read(tmp_path)


def test_settings_that_generation_does_not_use_may_be_anything(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"temperature": "hot", "top_p": null, "eos_token_id": 2}')
    assert read_stop_ids(tmp_path) == {2}
