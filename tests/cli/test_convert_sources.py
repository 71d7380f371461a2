"""`msport convert` of a source that is broken: one line, and nothing that looks finished."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.command import Run, assert_refused
from msport.checkpoint import open_checkpoint

SCALES = "model.layers.1.mlp.experts.down_proj_scales"


def a_shard(model: Path) -> Path:
    return sorted(model.glob("model-*.safetensors"))[1]


def rewrite_header(shard: Path, change: Callable[[str], str]) -> None:
    """Replace the JSON header, its length included."""
    content = shard.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = change(content[8 : 8 + length].decode()).encode()
    shard.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])


def shift_offsets(text: str) -> str:
    """The header with its first tensor two bytes further on."""
    header = json.loads(text)
    first = next(entry for name, entry in header.items() if name != "__metadata__")
    first["data_offsets"] = [offset + 2 for offset in first["data_offsets"]]
    return json.dumps(header)


@pytest.mark.parametrize(
    ("break_it", "fault"),
    [
        (lambda shard: os.truncate(shard, 0), "too few for a safetensors file"),
        (lambda shard: os.truncate(shard, 1000), "truncated"),
        (lambda shard: os.truncate(shard, shard.stat().st_size - 1), "truncated"),
        (lambda shard: shard.write_bytes(shard.read_bytes() + b"x"), "bytes after its last tensor"),
        (lambda shard: shard.write_bytes((10**9).to_bytes(8, "little") + b"{"), "header would be 1000000000 bytes"),
        (lambda shard: rewrite_header(shard, lambda text: text.replace("}}", '},"a":1,"a":2}', 1)), "duplicate key"),
        (lambda shard: rewrite_header(shard, lambda text: text.replace('"BF16"', '"F32"', 1)), "does not fill its"),
        (lambda shard: rewrite_header(shard, shift_offsets), "leaves a hole before it"),
        (lambda shard: rewrite_header(shard, lambda text: "[]"), "does not start with '{'"),
        (lambda shard: shard.unlink(), "no such file; download it"),
    ],
    ids=["empty", "cut-header", "cut-data", "trailing", "oversized", "repeated", "misfit", "hole", "array", "missing"],
)
def test_a_malformed_shard_is_refused_by_name(
    msport: Run, model: Path, output: Path, break_it: Callable[[Path], None], fault: str
) -> None:
    shard = a_shard(model)
    break_it(shard)
    assert_refused(msport("convert", model, "-o", output), output, shard.name, fault)


def change_index(model: Path, change: Callable[[dict[str, str]], None]) -> None:
    path = model / "model.safetensors.index.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document["weight_map"])
    path.write_text(json.dumps(document))


def test_index_and_shards_that_disagree_are_refused(msport: Run, model: Path, output: Path) -> None:
    def disagree(weight_map: dict[str, str]) -> None:
        weight_map["no.such.tensor"] = weight_map.pop("lm_head.weight")

    change_index(model, disagree)
    assert_refused(msport("convert", model, "-o", output), output, "no.such.tensor", "lm_head.weight", "index")


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/model.safetensors", "a/b.safetensors"])
def test_a_shard_outside_the_folder_is_refused(msport: Run, model: Path, output: Path, name: str) -> None:
    change_index(model, lambda weight_map: weight_map.update({"lm_head.weight": name}))
    assert_refused(msport("convert", model, "-o", output), output, name, "index.json")


def test_a_nan_scale_is_refused(msport: Run, model: Path, output: Path) -> None:
    with open_checkpoint(model) as checkpoint:
        shard, begin = checkpoint.files[SCALES], checkpoint.tensors[SCALES].extents[0][0]
    with shard.open("r+b") as file:
        file.seek(begin + 77)
        file.write(b"\xff")
    result = msport("convert", model, "-o", output)
    parts = (shard.name, "layers.1.mlp.experts.down_proj", "255, which is NaN", "download")
    assert_refused(result, output, *parts, kept=True)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"architectures": ["T5Model"]}, ("config.json", "'T5Model' is not supported", "gpt-oss")),
        ({"architectures": None}, ("config.json", "'architectures' must be a list")),
        ({"num_local_experts": None}, ("config.json", "'num_local_experts' is missing")),
        ({"hidden_size": "128"}, ("config.json", "'hidden_size' must be an integer")),
        ({"hidden_size": 96}, ("wrong shape", "lm_head.weight is [1024, 128], config.json says [1024, 96]")),
        ({"num_hidden_layers": 3, "layer_types": None}, ("missing: model.layers.2.",)),
        ({"num_hidden_layers": 1, "layer_types": None}, ("not in the architecture's table: model.layers.1.",)),
        ({"quantization_config": {"quant_method": "hqq"}}, ("config.json", "quantized with 'hqq'; msport reads mxfp4")),
        ({"quantization_config": {"quant_method": "gptq"}}, ("config.json", "bits must be an integer, not None")),
    ],
)
def test_a_config_that_is_wrong_or_contradicts_the_tensors_is_refused(
    msport: Run, model: Path, output: Path, fields: dict[str, object], parts: tuple[str, ...]
) -> None:
    path = model / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **fields}))
    assert_refused(msport("convert", model, "-o", output), output, *parts)


def test_a_config_that_is_missing_or_no_json_is_refused(msport: Run, model: Path, output: Path) -> None:
    (model / "config.json").write_text("{")
    assert_refused(msport("convert", model, "-o", output), output, "config.json", "not JSON")
    (model / "config.json").unlink()
    assert_refused(msport("convert", model, "-o", output), output, "config.json", "no such file")


def test_a_folder_without_weights_is_refused(msport: Run, tmp_path: Path, output: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(msport("convert", tmp_path / "empty", "-o", output), output, "empty", "download")


@pytest.mark.parametrize("name", ["tokenizer.json", "generation_config.json", "chat_template.jinja"])
def test_a_pipe_among_the_small_files_is_refused(msport: Run, model: Path, output: Path, name: str) -> None:
    (model / name).unlink()
    os.mkfifo(model / name)
    assert_refused(msport("convert", model, "-o", output), output, f"{model / name}: is a named pipe, not a file")
