"""Plain `mindspore.load_checkpoint` opens what msport writes, shard by shard."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convert.hub_folder import read_tensors
from msport.checkpoint import read_manifest
from msport.checkpoint.dtypes import BFLOAT16, FLOAT32, cast
from msport.convert import convert_checkpoint
from msport.sample import write_sample

mindspore = pytest.importorskip("mindspore")

from convert import loading  # noqa: E402  it needs MindSpore


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "mxfp4"])
@pytest.mark.parametrize("file_format", ["safetensors", "ckpt"])
def test_every_shard_loads_with_every_value(packed_sample: Path, tmp_path: Path, dtype: str, file_format: str) -> None:
    convert_checkpoint(packed_sample, tmp_path / "out", dtype=dtype, format=file_format, max_shard_size="600kB")
    manifest = read_manifest(tmp_path / "out")
    expected = read_tensors(tmp_path / "out")
    loaded = {}
    for file in sorted({record.file for record in manifest.tensors.values()}):
        loaded.update(mindspore.load_checkpoint(str(tmp_path / "out" / file), format=file_format))
    assert loaded.keys() == expected.keys()
    for name, parameter in loaded.items():
        kind, values = expected[name]
        assert str(parameter.dtype).lower() == kind.name
        if kind == BFLOAT16:
            values = cast(values, BFLOAT16, FLOAT32)
            parameter = parameter.float()
        np.testing.assert_array_equal(parameter.asnumpy(), values, err_msg=name)


def test_a_network_loads_the_whole_folder_through_mindspores_own_map(packed_sample: Path, tmp_path: Path) -> None:
    convert_checkpoint(packed_sample, tmp_path / "out", dtype="float32", max_shard_size="600kB")

    class Network(mindspore.nn.Cell):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.head = mindspore.Parameter(mindspore.ops.zeros((1024, 128)), name="lm_head.weight")
            self.norm = mindspore.Parameter(mindspore.ops.zeros((128,)), name="model.norm.weight")

    network = Network()
    missing, _ = mindspore.load_distributed_checkpoint(
        network, format="safetensors", unified_safetensors_dir=str(tmp_path / "out")
    )
    assert not missing
    expected = read_tensors(tmp_path / "out")
    np.testing.assert_array_equal(network.head.asnumpy(), expected["lm_head.weight"][1])
    np.testing.assert_array_equal(network.norm.asnumpy(), expected["model.norm.weight"][1])


def load_in_a_child(allowance: int, *folders: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, loading.__file__, str(allowance), *map(str, folders)]
    return subprocess.run(command, capture_output=True, text=True, timeout=3600)


def test_mindspores_own_loader_takes_shard_after_shard_in_bounded_memory(tmp_path: Path) -> None:
    sizes = {"num_hidden_layers": 8, "hidden_size": 512, "intermediate_size": 128, "vocab_size": 2048}
    model = write_sample("gpt-oss", tmp_path / "model", overrides=sizes)
    folders = []
    for dtype in ("mxfp4", "bfloat16", "float16", "float32"):
        for file_format in ("safetensors", "ckpt"):
            folders.append(tmp_path / f"{dtype}-{file_format}")
            convert_checkpoint(model, folders[-1], dtype=dtype, format=file_format, max_shard_size="4MB")
    largest = max(path.stat().st_size for folder in folders for path in folder.glob("model*"))
    whole = sum(path.stat().st_size for path in folders[-1].glob("model*"))
    allowance = 4 * largest + 20_000_000
    assert allowance < whole
    child = load_in_a_child(allowance, *folders)
    assert child.returncode == 0, child.stderr[-2000:]
    counts = json.loads(child.stdout.splitlines()[-1])
    assert counts == {str(folder): len(read_manifest(folder).tensors) for folder in folders}
    print(f"{len(folders)} folders of up to {whole / 1e6:.0f} MB in {allowance / 1e6:.0f} MB")


def test_the_limit_of_that_memory_bites(packed_sample: Path, tmp_path: Path) -> None:
    convert_checkpoint(packed_sample, tmp_path / "out")
    child = load_in_a_child(0, tmp_path / "out")
    assert child.returncode != 0
