from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoint.mxfp4_definition import decoded

import msport
from convert.hub_folder import change_tensors, read_tensors, write_tensors
from msport.checkpoint import read_manifest
from msport.checkpoint.dtypes import FLOAT32, by_name, cast
from msport.convert import convert_checkpoint, verify_folder
from msport.errors import CheckpointError, OutputError, UsageError

AUXILIARY = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


def test_the_folder_holds_what_the_contract_says(packed_sample: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    manifest = msport.convert_checkpoint(packed_sample, output, max_shard_size="500kB")
    shards = sorted({record.file for record in manifest.tensors.values()})
    assert len(shards) > 2
    assert {path.name for path in output.iterdir()} == {
        *AUXILIARY,
        *shards,
        "model.safetensors.index.json",
        "param_name_map.json",
        "msport.json",
    }
    for name in AUXILIARY:
        assert (output / name).read_bytes() == (packed_sample / name).read_bytes()
    assert read_manifest(output) == manifest
    assert (manifest.source, manifest.revision) == (str(packed_sample), None)
    assert (manifest.source_format, manifest.dtype, manifest.format) == ("safetensors", "bfloat16", "safetensors")
    index = json.loads((output / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert index == json.loads((output / "param_name_map.json").read_text(encoding="utf-8"))
    assert index["weight_map"] == {name: record.file for name, record in manifest.tensors.items()}
    assert index["metadata"]["total_size"] == sum(record.info(name).nbytes for name, record in manifest.tensors.items())


def test_ckpt_shards_come_with_mindspores_map_alone(packed_sample: Path, tmp_path: Path) -> None:
    convert_checkpoint(packed_sample, tmp_path / "out", format="ckpt", max_shard_size="1MB")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "param_name_map.json" in names
    assert "model.safetensors.index.json" not in names
    assert sum(name.endswith(".ckpt") for name in names) == 3
    assert read_tensors(tmp_path / "out").keys() == read_manifest(tmp_path / "out").tensors.keys()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("file_format", ["safetensors", "ckpt"])
def test_every_value_is_that_of_the_source_in_the_new_dtype(
    packed_sample: Path, tmp_path: Path, dtype: str, file_format: str
) -> None:
    convert_checkpoint(packed_sample, tmp_path / "out", dtype=dtype, format=file_format)
    source, target = read_tensors(packed_sample), by_name(dtype)
    result = read_tensors(tmp_path / "out")
    for name, (kind, values) in result.items():
        assert kind == target
        if name in source:
            expected = cast(source[name][1], source[name][0], target)
        else:
            straight = decoded(source[f"{name}_blocks"][1], source[f"{name}_scales"][1])
            expected = cast(np.ascontiguousarray(straight.swapaxes(1, 2)), FLOAT32, target)
        np.testing.assert_array_equal(values, expected, err_msg=name)
    sources = {name.removesuffix("_blocks").removesuffix("_scales") for name in source}
    assert result.keys() == sources


def test_mxfp4_is_kept_bit_for_bit(packed_sample: Path, tmp_path: Path) -> None:
    manifest = convert_checkpoint(packed_sample, tmp_path / "out", dtype="mxfp4")
    source, result = read_tensors(packed_sample), read_tensors(tmp_path / "out")
    assert source.keys() == result.keys()
    for name in source:
        assert source[name][0] == result[name][0]
        np.testing.assert_array_equal(source[name][1], result[name][1])
    assert manifest.dtype == "mxfp4"


def test_both_layouts_of_the_hub_give_the_same_folder(
    packed_sample: Path, tmp_path: Path, copy_of: Callable[[Path], Path]
) -> None:
    whole = copy_of(packed_sample)
    convert_checkpoint(packed_sample, tmp_path / "from-packed")
    write_tensors(whole, read_tensors(tmp_path / "from-packed"))
    convert_checkpoint(whole, tmp_path / "from-whole")
    packed, plain = read_manifest(tmp_path / "from-packed"), read_manifest(tmp_path / "from-whole")
    assert packed.tensors == plain.tensors


def test_a_float32_model_stays_float32_unless_another_dtype_is_asked_for(wide_sample: Path, tmp_path: Path) -> None:
    assert msport.convert_checkpoint(wide_sample, tmp_path / "out").dtype == "float32"
    source, result = read_tensors(wide_sample), read_tensors(tmp_path / "out")
    assert source.keys() == result.keys()
    for name, (_, values) in source.items():
        np.testing.assert_array_equal(result[name][1], values)


@pytest.mark.reference
def test_float32_is_rounded_to_nearest_even_as_torch_does(wide_sample: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    convert_checkpoint(wide_sample, tmp_path / "out", dtype="bfloat16")
    source, result = read_tensors(wide_sample), read_tensors(tmp_path / "out")
    for name, (_, values) in source.items():
        expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
        np.testing.assert_array_equal(result[name][1], expected)


@pytest.mark.reference
def test_experts_are_those_of_transformers_bit_for_bit(packed_sample: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("transformers.integrations.mxfp4")
    convert_checkpoint(packed_sample, tmp_path / "out")
    source, result = read_tensors(packed_sample), read_tensors(tmp_path / "out")
    for layer in range(2):
        for projection in ("gate_up_proj", "down_proj"):
            name = f"model.layers.{layer}.mlp.experts.{projection}"
            packed = [torch.from_numpy(source[f"{name}_{part}"][1]) for part in ("blocks", "scales")]
            expected = reference.convert_moe_packed_tensors(*packed).view(torch.uint16).numpy()
            np.testing.assert_array_equal(result[name][1], expected)


def test_a_converted_folder_converts_again(packed_sample: Path, tmp_path: Path) -> None:
    convert_checkpoint(packed_sample, tmp_path / "packed", dtype="mxfp4", format="ckpt")
    again = convert_checkpoint(tmp_path / "packed", tmp_path / "again")
    straight = convert_checkpoint(packed_sample, tmp_path / "straight")
    assert again.tensors == straight.tensors
    assert again.source_format == "ckpt"


def test_the_output_is_named_after_the_model(
    packed_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    convert_checkpoint(packed_sample)
    assert (tmp_path / "packed-ms" / "msport.json").is_file()
    shutil.copytree(packed_sample, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    convert_checkpoint(".")
    assert (tmp_path / "here" / "here-ms" / "msport.json").is_file()


def test_verify_reads_back_and_recomputes(packed_sample: Path, tmp_path: Path) -> None:
    phases = []
    convert_checkpoint(
        packed_sample, tmp_path / "out", verify=True, progress=lambda step: phases.append((step.phase, step.done))
    )
    assert list(dict.fromkeys(phase for phase, _ in phases)) == ["convert", "read back", "recompute"]
    verify_folder(tmp_path / "out")


def test_verify_notices_a_disk_that_returns_other_bytes(
    packed_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite

    def flip(descriptor: int, data: memoryview, offset: int) -> int:
        if len(data) == 128 * 192 * 2:
            data = bytes([data[0] ^ 1]) + bytes(data[1:])
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", flip)
    with pytest.raises(CheckpointError, match=r"gate_up_proj \(in model\.safetensors\) is damaged"):
        convert_checkpoint(packed_sample, tmp_path / "out", verify=True)
    assert list(tmp_path.iterdir()) == []


def test_a_nan_scale_is_refused_by_tensor_and_nothing_appears(
    packed_sample: Path, tmp_path: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(packed_sample)

    def spoil(tensors: dict) -> None:  # type: ignore[type-arg]
        tensors["model.layers.1.mlp.experts.down_proj_scales"][1][3, 5, 1] = 255

    change_tensors(folder, spoil)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: tensor .*layers\.1\.mlp\.experts\.down_proj.* 255"):
        convert_checkpoint(folder, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {folder.name, ".out.msport-partial"}


def test_float16_does_not_overflow_silently(wide_sample: Path, tmp_path: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(wide_sample)

    def enlarge(tensors: dict) -> None:  # type: ignore[type-arg]
        tensors["model.layers.1.self_attn.o_proj.weight"][1][7, 9] = 1e6

    change_tensors(folder, enlarge)
    with pytest.raises(
        UsageError, match=r"float16 cannot hold tensor 'model.layers.1.self_attn.o_proj.weight'.* 1e\+06"
    ):
        convert_checkpoint(folder, tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()
    convert_checkpoint(folder, tmp_path / "out", dtype="bfloat16")


def test_a_disk_too_small_is_known_before_a_byte_is_written(
    packed_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msport.convert.output_folder.free_disk", lambda folder: 10_000)
    monkeypatch.setattr(os, "pwrite", None)
    with pytest.raises(OutputError, match=r"needs .* MB, and the disk has 10\.0 kB free"):
        convert_checkpoint(packed_sample, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_changes_after_the_plan_is_noticed(
    packed_sample: Path, tmp_path: Path, copy_of: Callable[[Path], Path]
) -> None:
    from msport.convert import prepare, run

    folder = copy_of(packed_sample)
    conversion = prepare(folder, tmp_path / "out")
    shard = next(folder.glob("model-*.safetensors"))
    os.utime(shard, ns=(0, 0))
    with pytest.raises(CheckpointError, match="changed after its header was read"):
        run(conversion)
    assert not (tmp_path / "out").exists()


def test_little_memory_is_enough(packed_sample: Path, tmp_path: Path) -> None:
    tight = convert_checkpoint(packed_sample, tmp_path / "tight", max_memory="76MB", verify=True, workers=4)
    assert tight.tensors == convert_checkpoint(packed_sample, tmp_path / "wide", max_memory="4GB", workers=1).tensors
    with pytest.raises(UsageError, match="too small"):
        convert_checkpoint(packed_sample, tmp_path / "none", max_memory="75MB")


def test_while_one_process_converts_another_is_refused(
    packed_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msport.convert.output_folder.PATIENCE", 0.1)
    script = (
        "import sys, time, msport.convert.shard_sink as s\n"
        "s.ShardSink.finish = lambda self, tensor, sha256: (print('busy', flush=True), time.sleep(600))\n"
        "from msport.convert import convert_checkpoint\n"
        "convert_checkpoint(sys.argv[1], sys.argv[2])\n"
    )
    output = tmp_path / "out"
    child = subprocess.Popen([sys.executable, "-c", script, packed_sample, output], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    for restart in (False, True):
        with pytest.raises(OutputError, match="another msport process"):
            convert_checkpoint(packed_sample, output, restart=restart)
    monkeypatch.undo()
    child.send_signal(signal.SIGSTOP)
    child.send_signal(signal.SIGKILL)  # which is not over yet when the next conversion begins
    convert_checkpoint(packed_sample, output)
    child.communicate()
    verify_folder(output)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_a_gigabyte_is_converted_in_150_megabytes(tmp_path: Path) -> None:
    from msport.sample import write_sample

    sizes = {"hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 1, "num_local_experts": 16}
    write_sample("gpt-oss", tmp_path / "sample", overrides={**sizes, "vocab_size": 32768})
    script = (
        "import sys\nfrom msport.convert import convert_checkpoint\n"
        "convert_checkpoint(sys.argv[1], sys.argv[2], max_memory='150MB', workers=4)\n"
        "print(next(line for line in open('/proc/self/status') if 'VmHWM' in line))\n"
    )
    command = [sys.executable, "-c", script, tmp_path / "sample", tmp_path / "out"]
    peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1]) * 1024
    print(f"peak {peak / 1e6:.0f} MB")
    assert peak < 150e6


def test_source_files_are_only_read(packed_sample: Path, tmp_path: Path) -> None:
    before = {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in packed_sample.iterdir()}
    convert_checkpoint(packed_sample, tmp_path / "out")
    assert before == {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in packed_sample.iterdir()}
