from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from cli.command import Run
from msport.architectures import ARCHITECTURES
from msport.checkpoint import open_checkpoint
from msport.sample.write import find_architecture


@pytest.fixture
def write(msport: Run) -> Run:
    return partial(msport, "sample")


def test_a_sample_is_written_and_described(write: Run, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    status, out, err = write("gpt-oss", folder)
    assert (status, err) == (0, "")
    assert out == f"{folder}: GptOssForCausalLM, 1,787,072 parameters, 79 tensors, 1.84 MB in 5 shards\n"


def test_the_help_names_every_family_as_it_may_be_typed(write: Run) -> None:
    _, out, _ = write("--help")
    listed = " ".join(out.split()).partition("FAMILY is one of ")[2].partition(".")[0].split(", ")
    assert [find_architecture(name) for name in listed] == list(ARCHITECTURES.values())


def test_every_option_has_its_effect(write: Run, tmp_path: Path) -> None:
    fields = ["--set", "num_hidden_layers=1", "--set", 'hidden_act="silu"', "--set", "rope_theta=1e4"]
    options = ["--seed", 3, "--dtype", "float32", "--max-shard-size", "1GB"]
    assert write("GptOssForCausalLM", tmp_path / "tiny", *fields, *options)[0] == 0
    config = json.loads((tmp_path / "tiny" / "config.json").read_text(encoding="utf-8"))
    assert (config["num_hidden_layers"], config["rope_theta"], config["torch_dtype"]) == (1, 10000.0, "float32")
    assert (tmp_path / "tiny" / "model.safetensors").exists()
    write("gpt-oss", tmp_path / "other", *fields, *options[2:])
    with open_checkpoint(tmp_path / "tiny") as first, open_checkpoint(tmp_path / "other") as second:
        assert first.read("model.norm.weight")[0] != second.read("model.norm.weight")[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpt-4", "{folder}"], "no sample of 'gpt-4'; choose one of: gpt-oss"),
        (["gpt-oss", "{folder}", "--set", "hidden_size"], "write NAME=VALUE"),
        (["gpt-oss", "{folder}", "--set", "hidden_size=33"], "multiple of 32"),
        (["gpt-oss", "{folder}", "--set", "hidden_size=" + "9" * 5000], "write NAME=VALUE"),
        (["gpt-oss", "{folder}", "--set", "hidden_size=" + "[" * 100_000], "write NAME=VALUE"),
        (["gpt-oss", "{folder}", "--set", "num_layers=2"], "'num_layers' is not a field of gpt-oss, and would"),
        (["qwen3", "{folder}", "--set", "num_hiden_layers=2"], "no effect; did you mean 'num_hidden_layers'?"),
        (["llama", "{folder}", "--set", "num_local_experts=2"], "'num_local_experts' is not a field of Llama"),
        (["gpt-oss", "{folder}", "--set", "num_hidden_layers=1000000000"], "must be at most 1000, not 1000000000"),
        (["qwen2", "{folder}", "--set", "num_hidden_layers=1000000000"], "must be at most 1000, not 1000000000"),
        (["gpt-oss", "{folder}", "--set", "num_local_experts=1000000000"], "must be at most 4096, not 1000000000"),
        (["gpt-oss", "{folder}", "--set", "vocab_size=10"], "vocab_size is 10"),
        (["gpt-oss", "{folder}", "--max-shard-size", "x"], "not a size"),
        (["gpt-oss", "{folder}/.."], "not empty; name another folder"),
        (["gpt-oss", "{folder}", "--seed", "-1"], "seed is -1; give 0 or a positive integer"),
    ],
)
def test_bad_requests_end_in_one_line_and_write_nothing(
    write: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "file").touch()
    status, out, err = write(*(argument.format(folder=tmp_path / "tiny") for argument in arguments))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
