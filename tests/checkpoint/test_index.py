"""Checkpoint folders as the Hub has them, as msport writes them, and as they should not be."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msport.checkpoint import ShardWriter, ckpt, index_document, open_checkpoint, safetensors
from msport.checkpoint.dtypes import INT32
from msport.errors import CheckpointError

from .attacks import index_files

INDEX = "model.safetensors.index.json"
A, B = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def write_shard(path: Path, tensors: Mapping[str, int]) -> None:
    """Each tensor is [4] of its value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plan = ckpt.plan_layout if path.suffix == ".ckpt" else safetensors.plan_layout
    with ShardWriter(path, plan([(name, INT32, (4,)) for name in tensors])) as writer:
        for name, value in tensors.items():
            writer.write(name, 0, np.full(4, value, np.int32))


def write_index(folder: Path, weight_map: Any, name: str = INDEX) -> None:
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards as on the Hub, beside what gpt-oss and Mistral repositories ship too."""
    folder = tmp_path / "model"
    write_shard(folder / A, {"a": 1, "b": 2})
    write_shard(folder / B, {"c": 3})
    write_index(folder, {"a": A, "b": A, "c": B})
    write_shard(folder / "original" / "model.safetensors", {"a": 9})
    write_shard(folder / "consolidated.safetensors", {"tok_embeddings.weight": 9})
    (folder / "metal").mkdir()
    (folder / "metal" / "model.bin").write_bytes(b"x")
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    return str(error.value)


def test_shards_are_read_as_one_checkpoint(folder: Path) -> None:
    with open_checkpoint(folder) as checkpoint:
        assert sorted(checkpoint.tensors) == ["a", "b", "c"]
        assert checkpoint.files == {"a": folder / A, "b": folder / A, "c": folder / B}
        assert checkpoint.read("c").tolist() == [3, 3, 3, 3]
        assert checkpoint.read("b", 1, 3).tolist() == [2, 2]
        assert checkpoint.view("a").tolist() == [1, 1, 1, 1]
        buffer = np.zeros(1, np.int32)
        checkpoint.read_into("b", 8, buffer)
        assert buffer == [2]
        with pytest.raises(CheckpointError, match=f"{folder}: holds no tensor 'd'"):
            checkpoint.read("d")


def test_many_shards_are_read_by_many_threads_through_few_open_files(tmp_path: Path) -> None:
    weight_map = {f"w{number}": f"model-{number:05}-of-00030.safetensors" for number in range(30)}
    for number, (name, file) in enumerate(weight_map.items()):
        write_shard(tmp_path / file, {name: number})
    write_index(tmp_path, weight_map)
    with open_checkpoint(tmp_path, max_open_files=3) as checkpoint, ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda number: checkpoint.read(f"w{number % 30}")[0], range(600)))
    assert values == [number % 30 for number in range(600)]


@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt"])
def test_a_single_file_needs_no_index(name: str, tmp_path: Path) -> None:
    write_shard(tmp_path / name, {"a": 1})
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.read("a").tolist() == [1, 1, 1, 1]


def test_a_ckpt_folder_is_read_through_its_name_map(tmp_path: Path) -> None:
    weight_map = {"a": "model-00001-of-00002.ckpt", "b": "model-00002-of-00002.ckpt"}
    write_shard(tmp_path / weight_map["a"], {"a": 1})
    write_shard(tmp_path / weight_map["b"], {"b": 2})
    (tmp_path / "param_name_map.json").write_text(index_document(weight_map, 32))
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.read("b").tolist() == [2, 2, 2, 2]


def test_shards_may_be_links_out_of_the_folder_as_in_the_hub_cache(folder: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for path in (folder / A, folder / B, folder / INDEX):
        path.rename(blobs / path.name.replace(".", "-"))
        path.symlink_to(os.path.join("..", "blobs", path.name.replace(".", "-")))
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.read("c").tolist() == [3, 3, 3, 3]


def test_a_folder_in_the_place_of_a_shard_is_reported_as_a_folder(folder: Path) -> None:
    (folder / B).unlink()
    (folder / B).mkdir()
    assert f"{B}: is a folder, not a file; remove it, or put the file in its place" in refusal(folder)


def test_a_link_to_nowhere_is_a_missing_shard(folder: Path) -> None:
    (folder / B).unlink()
    (folder / B).symlink_to("../blobs/gone")
    assert f"{B}: no such file; download it" in refusal(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "..",
        "",
        ".",
        "/etc/model.safetensors",
        "original/model.safetensors",
        "..\\model.safetensors",
        "C:model.safetensors",
        "a\0.safetensors",
        ".hidden.safetensors",
        "model.bin",
        "model",
        "x/../" + A,
    ],
)
def test_a_shard_name_that_leaves_the_folder_is_refused_before_anything_is_opened(name: str, folder: Path) -> None:
    write_index(folder, {"a": A, "b": A, "c": name})
    assert f"not plain file names in its folder: {name!r};" in refusal(folder)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"[]", "no weight_map"),
        (b"{}", "no weight_map"),
        (b'{"weight_map":[]}', "no weight_map"),
        (b'{"weight_map":{"a":1}}', "no weight_map"),
        (b'{"weight_map":{}}', "weight_map is empty"),
        (b'{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}', "duplicate key 'a'"),
        (b'{"weight_map":' * 50_000, "nested too deeply"),
    ],
)
def test_an_invalid_index_is_refused(content: bytes, fault: str, folder: Path) -> None:
    (folder / INDEX).write_bytes(content)
    message = refusal(folder)
    assert fault in message
    assert message.endswith("download it again")


def test_an_index_of_gigabytes_is_refused_unread(folder: Path) -> None:
    os.truncate(folder / INDEX, 2**40)
    assert "larger than 100000000 bytes" in refusal(folder)


def test_all_disagreements_are_reported_together(folder: Path) -> None:
    write_shard(folder / "model-c.safetensors", {"x": 1, "a": 2, "y": 3})
    (folder / "model-d.safetensors").write_bytes(b"short")
    write_index(
        folder,
        {
            "a": A,
            "gone": A,
            "c": "model-gone.safetensors",
            "x": "model-c.safetensors",
            "d": "model-d.safetensors",
        },
    )
    message = refusal(folder)
    for problem in (
        f"{A} lacks what the index places there: 'gone'",
        f"{A} holds what the index does not place there: 'b'",
        "model-gone.safetensors: no such file; download it",
        "model-d.safetensors: 5 bytes are too few",
        "model-c.safetensors holds what another shard holds too: 'a'",
        "model-c.safetensors holds what the index does not place there: 'y'",
    ):
        assert problem in message, message
    assert message.startswith(f"{folder / INDEX}: index and shards disagree: ")
    assert message.endswith("; download the index and all shards from one revision")


def test_an_index_that_names_the_wrong_shard_is_reported_from_both_sides(folder: Path) -> None:
    write_index(folder, {"a": A, "b": B, "c": B})
    message = refusal(folder)
    assert f"{A} holds what the index does not place there: 'b'" in message
    assert f"{B} lacks what the index places there: 'b'" in message


def test_a_thousand_missing_tensors_do_not_flood_the_message(folder: Path) -> None:
    write_index(folder, {"a": A, "b": A, "c": B} | {f"w{number}": B for number in range(1000)})
    message = refusal(folder)
    assert "and 992 more" in message
    assert len(message) < 1000


def test_a_single_file_beside_an_index_that_does_not_name_it_is_ambiguous(folder: Path) -> None:
    write_shard(folder / "model.safetensors", {"a": 1})
    assert "model.safetensors lies beside the index, which does not name it: remove whichever is stale" in refusal(
        folder
    )


def test_an_index_may_name_the_single_file(tmp_path: Path) -> None:
    write_shard(tmp_path / "model.safetensors", {"a": 1})
    write_index(tmp_path, {"a": "model.safetensors"})
    with open_checkpoint(tmp_path) as checkpoint:
        assert list(checkpoint.tensors) == ["a"]


def test_a_folder_without_a_checkpoint_says_what_is_missing(folder: Path, tmp_path: Path) -> None:
    (folder / INDEX).unlink()
    assert f"holds shards ({A}, ...) but not their {INDEX}; download it" in refusal(folder)
    (tmp_path / "empty").mkdir()
    assert "holds no checkpoint (none of model.safetensors.index.json," in refusal(tmp_path / "empty")
    assert refusal(tmp_path / "none").endswith("none: no such folder; give the folder of a checkpoint")
    assert refusal(folder / A).endswith(f"{A}: not a folder; give the folder of a checkpoint")


def test_a_shard_that_changes_after_opening_is_noticed(folder: Path) -> None:
    with open_checkpoint(folder) as checkpoint:
        write_shard(folder / "new.safetensors", {"c": 4})
        (folder / "new.safetensors").replace(folder / B)
        with pytest.raises(CheckpointError, match="changed after its header was read; start again"):
            checkpoint.read("c")
        (folder / A).unlink()
        with pytest.raises(CheckpointError, match="vanished after its header was read; start again"):
            checkpoint.read("a")


def test_the_index_document_is_what_transformers_and_mindspore_write() -> None:
    text = index_document({"b": B, "a": A}, 48)
    assert text.endswith("}\n")
    assert json.loads(text) == {"metadata": {"total_size": 48}, "weight_map": {"a": A, "b": B}}
    assert text.index('"a"') < text.index('"b"')


@pytest.mark.parametrize("name", index_files.ATTACKS)
def test_an_attack_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    attack = index_files.ATTACKS[name]
    for file, tensors in index_files.SHARDS.items():
        write_shard(tmp_path / file, dict.fromkeys(tensors, 1))
    (tmp_path / INDEX).write_bytes(index_files.GOOD)
    open_checkpoint(tmp_path).close()
    (tmp_path / INDEX).write_bytes(attack.content)
    message = refusal(tmp_path)
    assert attack.mentions in message
    assert message.isprintable()
    assert len(message) < 8 * len(str(tmp_path)) + 2000
