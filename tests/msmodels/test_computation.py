"""In which dtype a checkpoint is computed on a device; what a device cannot compute in is refused."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import pytest

from msport.convert import convert_checkpoint
from msport.errors import UsageError
from msport.msmodels import load_model
from msport.msmodels.computation import choose_dtype


def test_bfloat16_on_cpu_is_refused_with_the_remedy(folder: Path) -> None:
    with pytest.raises(UsageError, match="no bfloat16 kernels on CPU; load with dtype float32"):
        load_model(folder, dtype="bfloat16")


@pytest.mark.parametrize("dtype", [None, "mxfp4", "float32"])
def test_weights_stay_as_they_lie_in_any_dtype_of_computation(
    dtype: str | None, hub_folder: Path, folder: Path, tmp_path: Path
) -> None:
    convert_checkpoint(hub_folder, tmp_path / "packed", dtype="mxfp4")
    packed, plain = load_model(tmp_path / "packed", dtype), load_model(folder)
    assert (packed.dtype, plain.dtype) == ("float32", "float32")
    assert packed.costs.storage == ("mxfp4", "bfloat16")
    layer = packed.graphs.network.model.layers[0]
    blocks, scales = layer.mlp.experts.down_proj
    assert (blocks.dtype, blocks.shape, scales.shape) == (ms.uint8, (8, 128, 3, 16), (8, 128, 3))
    assert [each.dtype for each in layer.self_attn.q_proj.weight] == [ms.bfloat16]
    assert layer.mlp.router.weight[0].dtype == layer.input_layernorm.weight.dtype == ms.float32


def test_packed_experts_need_a_packed_checkpoint(folder: Path) -> None:
    with pytest.raises(UsageError, match="holds no packed experts"):
        load_model(folder, "mxfp4")


@pytest.mark.parametrize(
    ("device", "soc", "dtype"),
    [("CPU", "", "float32"), ("Ascend", "ascend910b", "bfloat16"), ("Ascend", "ascend910", "float16")],
)
def test_the_dtype_is_the_best_of_the_chip(device: str, soc: str, dtype: str) -> None:
    assert choose_dtype(None, device, soc) == dtype


def test_bfloat16_on_the_first_ascend_is_refused_with_the_remedy() -> None:
    with pytest.raises(UsageError, match="no bfloat16; load with dtype float16"):
        choose_dtype("bfloat16", "Ascend", "ascend910")


def test_gpt_oss_in_float16_warns_of_overflow(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_model(folder, dtype="float16", max_length=20)
    assert "overflows float16" in caplog.text
    caplog.clear()
    load_model(folder, max_length=20)
    assert "overflows" not in caplog.text


def test_an_unknown_dtype_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="is not one of float32, float16, bfloat16, mxfp4"):
        load_model(folder, dtype="int8")
