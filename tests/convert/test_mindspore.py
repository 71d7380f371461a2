"""Plain `mindspore.load_checkpoint` opens what msport writes, shard by shard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convert.hub_folder import read_tensors
from msport.checkpoint import read_manifest
from msport.checkpoint.dtypes import BFLOAT16, FLOAT32, cast
from msport.convert import convert_checkpoint

mindspore = pytest.importorskip("mindspore")


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
