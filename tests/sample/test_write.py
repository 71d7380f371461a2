from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoint.mxfp4_definition import decoded

from msport.architectures import ARCHITECTURES, Architecture, load_config
from msport.checkpoint import open_checkpoint
from msport.checkpoint.dtypes import BFLOAT16, FLOAT32, UINT8, cast
from msport.convert import convert_checkpoint, inspect_path
from msport.errors import CheckpointError, OutputError, UsageError
from msport.progress import Step
from msport.sample import write_sample
from msport.sample.write import find_architecture


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample("gpt-oss", tmp_path_factory.mktemp("samples") / "gpt-oss")


def test_the_folder_is_laid_out_as_on_the_hub(sample: Path) -> None:
    names = {path.name for path in sample.iterdir()}
    shards = sorted(sample.glob("model-*-of-*.safetensors"))
    assert len(shards) >= 3
    assert names - {path.name for path in shards} == {
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
    }
    assert (
        json.loads((sample / "config.json").read_text(encoding="utf-8"))["quantization_config"]["quant_method"]
        == "mxfp4"
    )
    with open_checkpoint(sample) as checkpoint:
        packed = {name for name, tensor in checkpoint.tensors.items() if tensor.dtype == UINT8}
        assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {BFLOAT16, UINT8}
        assert all(header.metadata == {"format": "pt"} for header in checkpoint.headers.values())
    experts = (f"model.layers.{layer}.mlp.experts." for layer in range(4))
    parts = ("gate_up_proj_blocks", "gate_up_proj_scales", "down_proj_blocks", "down_proj_scales")
    assert packed == {prefix + part for prefix in experts for part in parts}


def test_the_same_seed_gives_the_same_bytes_in_another_process(sample: Path, tmp_path: Path) -> None:
    script = "import sys; from msport.sample import write_sample; write_sample('gpt-oss', sys.argv[1])"
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    subprocess.run([sys.executable, "-c", script, tmp_path / "again"], check=True, env=environment)
    assert digest(tmp_path / "again") == digest(sample)


def test_another_seed_changes_every_weight_and_nothing_else(sample: Path, tmp_path: Path) -> None:
    other = write_sample("gpt-oss", tmp_path / "other", seed=1)
    changed = {name for name, value in digest(other).items() if digest(sample)[name] != value}
    assert changed == {path.name for path in sample.glob("*.safetensors")}
    with open_checkpoint(sample) as first, open_checkpoint(other) as second:
        assert all(not np.array_equal(first.read(name), second.read(name)) for name in first.tensors)


def test_a_tensor_does_not_depend_on_the_others_or_on_shards(sample: Path, tmp_path: Path) -> None:
    other = write_sample("gpt-oss", tmp_path / "one", overrides={"num_hidden_layers": 1}, max_shard_size="1GB")
    assert [path.name for path in other.glob("*safetensors*")] == ["model.safetensors"]
    with open_checkpoint(sample) as first, open_checkpoint(other) as second:
        for name in second.tensors:
            np.testing.assert_array_equal(first.read(name), second.read(name))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_experts_can_be_written_unpacked(tmp_path: Path, dtype: str) -> None:
    folder = write_sample("gpt-oss", tmp_path / "sample", dtype=dtype)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config
    assert config["torch_dtype"] == dtype
    with open_checkpoint(folder) as checkpoint:
        assert {tensor.dtype.name for tensor in checkpoint.tensors.values()} == {dtype}
        assert checkpoint.tensors["model.layers.0.mlp.experts.down_proj"].shape == (8, 96, 128)


def test_weights_are_large_enough_to_matter(sample: Path) -> None:
    def values(name: str) -> np.ndarray:
        with open_checkpoint(sample) as checkpoint:
            return cast(checkpoint.read(name), BFLOAT16, FLOAT32)

    layer = "model.layers.2"
    assert 0.5 < values(f"{layer}.self_attn.sinks").std() < 3
    assert abs(values(f"{layer}.input_layernorm.weight").mean() - 1) < 0.1
    assert values(f"{layer}.self_attn.q_proj.bias").std() > 0.2
    assert values(f"{layer}.mlp.router.weight").std() * math.sqrt(128) > 1.5
    with open_checkpoint(sample) as checkpoint:
        packed = [checkpoint.read(f"{layer}.mlp.experts.gate_up_proj_{part}") for part in ("blocks", "scales")]
    deviation = decoded(*packed).std() * math.sqrt(128)
    assert 3 < deviation < 6, "inputs of deviation 1 must reach the clamp at 7"
    assert len(np.unique(packed[1])) == 3


def test_layer_types_follow_the_number_of_layers(tmp_path: Path) -> None:
    folder = write_sample("gpt-oss", tmp_path / "sample", overrides={"num_hidden_layers": 5})
    types = json.loads((folder / "config.json").read_text(encoding="utf-8"))["layer_types"]
    assert types == ["sliding_attention", "full_attention"] * 2 + ["sliding_attention"]


def test_any_size_can_be_asked_for(tmp_path: Path) -> None:
    overrides = {"hidden_size": 64, "num_local_experts": 16, "vocab_size": 2000, "num_hidden_layers": 1}
    folder = write_sample("gpt-oss", tmp_path / "sample", overrides=overrides)
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.tensors["lm_head.weight"].shape == (2000, 64)
        assert checkpoint.tensors["model.layers.0.mlp.experts.down_proj_blocks"].shape == (16, 64, 3, 16)


def test_a_family_is_found_by_each_of_its_names() -> None:
    for family in ARCHITECTURES.values():
        assert find_architecture(family.title) is find_architecture(family.model_type) is family
        assert find_architecture(family.name.lower()) is family
    with pytest.raises(UsageError, match="choose one of: gpt-oss"):
        find_architecture("gpt-4")


def test_bad_requests_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="gate_up_proj: 100 inputs; MXFP4 needs a multiple of 32"):
        write_sample("gpt-oss", tmp_path / "sample", overrides={"hidden_size": 100})
    with pytest.raises(UsageError, match="needs at least 282"):
        write_sample("gpt-oss", tmp_path / "sample", overrides={"vocab_size": 281})
    with pytest.raises(UsageError, match="no sample of gpt-oss in 'int8'"):
        write_sample("gpt-oss", tmp_path / "sample", dtype="int8")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="not empty"):
        write_sample("gpt-oss", tmp_path)


def test_a_disk_that_is_too_small_is_said_of_the_folder_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msport.convert.output_folder.free_disk", lambda folder: 1000)
    with pytest.raises(OutputError, match=f"^{tmp_path}/sample: needs .+ choose a folder on another disk$"):
        write_sample("gpt-oss", tmp_path / "sample")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_gigabyte_is_written_in_bounded_memory(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom msport.sample import write_sample\n"
        "sizes = {'hidden_size': 2880, 'intermediate_size': 2880, 'num_hidden_layers': 2, 'num_local_experts': 32}\n"
        "write_sample('gpt-oss', sys.argv[1], overrides=sizes)\n"
        "print(next(line for line in open('/proc/self/status') if 'VmHWM' in line))\n"
    )
    command = [sys.executable, "-c", script, tmp_path / "sample"]
    peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1]) * 1024
    print(f"peak {peak / 1e6:.0f} MB")
    assert peak < 120e6


@pytest.mark.parametrize("family", ARCHITECTURES.values(), ids=lambda family: family.model_type)
def test_every_family_has_a_sample_that_converts(family: Architecture, tmp_path: Path) -> None:
    folder = write_sample(family.title, tmp_path / "sample")
    manifest = convert_checkpoint(folder, tmp_path / "out")
    config = load_config(folder)
    assert manifest.tensors.keys() == {weight.name for weight in family.weights(config)}
    assert inspect_path(tmp_path / "out").problem is None


@pytest.mark.parametrize("family", ARCHITECTURES.values(), ids=lambda family: family.title)
def test_every_field_that_a_family_reads_may_be_set_and_no_other(family: Architecture, tmp_path: Path) -> None:
    write_sample(family.title, tmp_path / "set", overrides={"num_hidden_layers": 1, "partial_rotary_factor": 1.0})
    assert json.loads((tmp_path / "set" / "config.json").read_text(encoding="utf-8"))["partial_rotary_factor"] == 1.0
    with pytest.raises(
        UsageError, match=rf"'rope_thetta' is not a field of {family.title}.* did you mean 'rope_theta'\?"
    ):
        write_sample(family.title, tmp_path / "other", overrides={"rope_thetta": 1e6})


def test_progress_counts_every_byte_of_the_weights(tmp_path: Path) -> None:
    steps: list[Step] = []
    folder = write_sample("qwen3", tmp_path / "sample", progress=steps.append)
    nbytes = inspect_path(folder).nbytes
    assert [step.done for step in steps] == sorted({step.done for step in steps})
    assert (steps[-1].done, steps[-1].total) == (nbytes, nbytes)
    assert len(steps) >= len(inspect_path(folder).tensors)
