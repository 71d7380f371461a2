"""Every form of a converted checkpoint gives the same weights; what does not fit is refused in a line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from msport.architectures import load_config
from msport.checkpoint import open_checkpoint
from msport.checkpoint.dtypes import FLOAT32
from msport.convert import convert_checkpoint
from msport.errors import CheckpointError
from msport.msmodels import load_model
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.network import build_network
from msport.msmodels.weights import place_weights


def decoded(folder: Path) -> dict[str, np.ndarray]:
    """Every weight of `folder` in float32, as a network gets those that its operators do not take as they lie."""
    config = load_config(folder)
    network = build_network(config, CacheShape(1, 20, 20, ms.float32))
    with open_checkpoint(folder) as checkpoint:
        place_weights(network, config, checkpoint, FLOAT32)
    return {p.name: p.asnumpy() for p in network.get_parameters() if ".cache." not in p.name}


@pytest.mark.parametrize(
    ("dtype", "file_format"), [("bfloat16", "safetensors"), ("mxfp4", "safetensors"), ("bfloat16", "ckpt")]
)
def test_every_form_holds_the_same_weights(
    hub_folder: Path, folder: Path, tmp_path: Path, dtype: str, file_format: str
) -> None:
    other = tmp_path / "other"
    convert_checkpoint(hub_folder, other, dtype=dtype, format=file_format)
    expected, found = decoded(folder), decoded(other)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_a_float32_checkpoint_is_mapped_not_copied(folder: Path) -> None:
    """The parameter's memory lies inside a file mapping of this process."""
    model = load_model(folder)
    parameter = model.graphs.network.model.layers[0].mlp.experts.gate_up_proj[0]
    address = parameter.data_ptr()
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        begin, end = (int(part, 16) for part in line.split()[0].split("-"))
        if begin <= address < end:
            assert line.endswith(".safetensors")
            return
    pytest.fail("the parameter's address is in no mapping")


def test_a_scale_that_overflows_is_refused(hub_folder: Path, tmp_path: Path) -> None:
    converted = tmp_path / "packed"
    convert_checkpoint(hub_folder, converted, dtype="mxfp4")
    name = "model.layers.1.mlp.experts.down_proj_scales"
    with open_checkpoint(converted) as checkpoint:
        file, ((offset, _),) = checkpoint.files[name], checkpoint.tensors[name].extents
    with Path(file).open("r+b") as shard:
        shard.seek(offset)
        shard.write(bytes([253]))
    with pytest.raises(CheckpointError, match="holds a scale of 253, which overflows float32"):
        load_model(converted, "mxfp4")


def test_config_and_tensors_that_contradict_each_other_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    config["intermediate_size"] = 64
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json implies"):
        load_model(copy)
