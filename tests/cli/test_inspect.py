from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from cli.command import Run
from msport.checkpoint import ShardWriter, open_checkpoint, read_manifest, safetensors
from msport.checkpoint.dtypes import FLOAT32


@pytest.fixture
def inspect(msport: Run) -> Run:
    return partial(msport, "inspect")


def test_a_hub_folder_is_summarised_by_layer_pattern(inspect: Run, sample: Path) -> None:
    status, out, err = inspect(sample)
    assert (status, err) == (0, "")
    assert out.startswith(f"{sample}: Hub checkpoint\n  architecture  GptOssForCausalLM\n  parameters    1,024,672\n")
    assert "dtypes        33 bfloat16, 8 uint8" in out
    assert "supported     yes" in out
    assert "\n  2  model.layers.*.self_attn.sinks                  bfloat16 [8]              32 B\n" in out
    assert "layers.0" not in out


def test_every_tensor_is_listed_on_request(inspect: Run, sample: Path) -> None:
    out = inspect(sample, "--tensors")[1]
    with open_checkpoint(sample) as checkpoint:
        assert all(name in out for name in checkpoint.tensors)


def test_a_converted_folder_says_where_it_came_from(inspect: Run, sample: Path, converted: Path) -> None:
    out = inspect(converted)[1]
    assert f"{converted}: converted by msport " in out
    assert f"source        {sample}\n" in out


def test_a_single_file_is_shown(inspect: Run, sample: Path) -> None:
    shard = sorted(sample.glob("*.safetensors"))[0]
    status, out, _ = inspect(shard)
    assert status == 0
    assert out.startswith(f"{shard}: single file\n  architecture  unknown: no config.json\n")


def test_json_is_one_document_with_every_tensor(inspect: Run, sample: Path, converted: Path) -> None:
    document = json.loads(inspect(converted, "--json")[1])
    records = read_manifest(converted).tensors
    assert {tensor["name"]: tensor["nbytes"] for tensor in document["tensors"]} == {
        name: record.info(name).nbytes for name, record in records.items()
    }
    assert document["supported"] is True
    assert document["source"] == str(sample)
    assert document["nbytes"] == sum(tensor["nbytes"] for tensor in document["tensors"])


def test_why_a_model_is_not_supported_is_said_without_failing(inspect: Run, sample: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sample, tmp_path / "model"))
    (folder / "config.json").write_text('{"architectures": ["T5Model"]}')
    status, out, _ = inspect(folder)
    assert status == 0
    assert "architecture  T5Model" in out
    assert "supported     no: " in out
    assert "'T5Model' is not supported; msport has: gpt-oss" in out
    assert json.loads(inspect(folder, "--json")[1])["supported"] is False


def test_verify_reads_every_byte(inspect: Run, converted: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(converted, tmp_path / "converted"))
    assert inspect(folder, "--verify")[1].endswith("verified: every tensor matches\n")
    assert json.loads(inspect(folder, "--verify", "--json")[1])["verified"] is True
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    assert inspect(folder)[0] == 0
    status, out, err = inspect(folder, "--verify")
    assert (status, out) == (2, "")
    assert "is damaged; convert the model again" in err


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing", "no such file or folder"), ("file.txt", "not a checkpoint file"), ("cut.safetensors", "truncated")],
)
def test_what_cannot_be_read_ends_in_one_line(inspect: Run, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file.txt").touch()
    (tmp_path / "cut.safetensors").write_bytes((100).to_bytes(8, "little"))
    status, out, err = inspect(tmp_path / name)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert name in err
    assert message in err


def test_names_that_would_write_to_the_terminal_are_quoted_and_many_are_counted(inspect: Run, tmp_path: Path) -> None:
    names = ["plain", "red\x1b[31m", "two\nlines", "long" * 100, *(f"name{number}" for number in range(600))]
    layout = safetensors.plan_layout((name, FLOAT32, (1,)) for name in names)
    with ShardWriter(tmp_path / "a.safetensors", layout):
        pass
    status, out, _ = inspect(tmp_path / "a.safetensors")
    assert status == 0
    assert "'red\\x1b[31m'" in out
    assert "'two\\nlines'" in out
    assert all(character.isprintable() or character == "\n" for character in out)
    assert max(map(len, out.splitlines())) < 200
    assert out.splitlines()[-1].split() == ["...", "and", "104", "more:", "--tensors", "lists", "them"]
    assert "name599" in inspect(tmp_path / "a.safetensors", "--tensors")[1]


def test_what_a_manifest_says_of_its_source_is_quoted_too(inspect: Run, converted: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(converted, tmp_path / "copy"))
    document = json.loads((folder / "msport.json").read_text(encoding="utf-8"))
    document |= {"source": "\x1b[31m", "revision": "\x1b[32m", "msport_version": "\x1b[33m"}
    (folder / "msport.json").write_text(json.dumps(document))
    out = inspect(folder)[1]
    assert "'\\x1b[31m' at '\\x1b[32m'" in out
    assert "converted by msport '\\x1b[33m'" in out


def test_an_error_that_repeats_a_hostile_name_writes_nothing_to_the_terminal(
    inspect: Run, converted: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(converted, tmp_path / "copy"))
    document = json.loads((folder / "msport.json").read_text(encoding="utf-8"))
    document["tensors"]["\x1b[2J\u202e"] = document["tensors"]["model.norm.weight"]
    (folder / "msport.json").write_text(json.dumps(document))
    status, _, err = inspect(folder, "--verify")
    assert status == 2
    assert "\\x1b[2J\\u202e is missing" in err
    assert err.rstrip("\n").isprintable()
