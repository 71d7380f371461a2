"""Qwen3 in block-scaled FP8, laid out as Qwen publishes it, to the dtypes that MindSpore computes in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.hub_folder import Tensors, as_float32, change_config, change_tensors, read_tensors
from msport.checkpoint import open_checkpoint
from msport.checkpoint.dtypes import BFLOAT16, FLOAT8_E4M3FN, FLOAT32, by_name, cast
from msport.convert import convert_checkpoint, inspect_path, make_plan, verify_folder
from msport.encodings import fp8
from msport.errors import CheckpointError, UnsupportedError, UsageError
from msport.sample import write_sample
from msport.validate.compare.weights import compare_weights

SIZES = {"hidden_size": 160, "num_hidden_layers": 2, "max_window_layers": 2}
# As in the config.json of Qwen/Qwen3-30B-A3B-FP8, but for the length of the list.
QUANTIZATION = {
    "activation_scheme": "dynamic",
    "fmt": "e4m3",
    "quant_method": "fp8",
    "weight_block_size": [128, 128],
    "modules_to_not_convert": ["lm_head", "model.layers.0.mlp.gate", "model.layers.1.mlp.gate"],
}
KEPT = ("embed_tokens.weight", "lm_head.weight", "norm.weight", "mlp.gate.weight", "layernorm.weight", ".bias")


def quantize(tensors: Tensors) -> None:
    """Give the linear layers FP8 codes, and scales beside them."""
    generator = np.random.default_rng(0)
    for name, (_, values) in list(tensors.items()):
        if name.endswith(KEPT):
            continue
        codes = generator.integers(0, 256, values.shape, np.uint8)
        codes[codes & 0x7F == 0x7F] = 0x7E
        scales = generator.uniform(1e-5, 1e-3, [-(-size // fp8.BLOCK) for size in values.shape]).astype(np.float32)
        tensors[name] = (FLOAT8_E4M3FN, codes)
        tensors[f"{name}_scale_inv"] = (FLOAT32, scales)


@pytest.fixture(scope="module", params=["qwen3", "qwen3_moe"])
def quantized(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_sample(request.param, tmp_path_factory.mktemp("samples") / request.param, overrides=SIZES)
    change_tensors(folder, quantize)
    change_config(folder, quantization_config=QUANTIZATION)
    return folder


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    folder = write_sample("qwen3", tmp_path / "dense", overrides=SIZES)
    change_tensors(folder, quantize)
    change_config(folder, quantization_config=QUANTIZATION)
    return folder


def dequantize_with_torch(tensors: Tensors, dtype: str) -> dict[str, Any]:
    """Every layer as ``weight.float() * scale``, the formula of DeepSeek's and Transformers' dequantisation."""
    torch = pytest.importorskip("torch")
    layers = {}
    for name, (kind, values) in tensors.items():
        if kind == FLOAT8_E4M3FN:
            weight = torch.from_numpy(values).view(torch.float8_e4m3fn).to(torch.float32)
            scale = torch.from_numpy(tensors[f"{name}_scale_inv"][1])
            blocks = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)[: values.shape[0], : values.shape[1]]
            layers[name] = (weight * blocks).to(getattr(torch, dtype)).float().numpy()
        elif not name.endswith("_scale_inv"):
            layers[name] = as_float32(by_name(dtype), cast(values, kind, by_name(dtype)))
    return layers


def stack(layers: dict[str, Any]) -> dict[str, Any]:
    """Experts as Transformers stacks them: ``[E, in, out]``, gate before up."""
    stacked = {name: values for name, values in layers.items() if ".experts." not in name}
    for prefix in {name.split(".experts.")[0] + ".experts." for name in layers if ".experts." in name}:
        count = 1 + max(int(name[len(prefix) :].split(".")[0]) for name in layers if name.startswith(prefix))
        part = {
            kind: np.stack([layers[f"{prefix}{expert}.{kind}_proj.weight"].T for expert in range(count)])
            for kind in ("gate", "up", "down")
        }
        stacked[f"{prefix}gate_up_proj"] = np.concatenate([part["gate"], part["up"]], axis=2)
        stacked[f"{prefix}down_proj"] = part["down"]
    return stacked


@pytest.mark.reference
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_every_value_is_the_one_that_torch_computes(quantized: Path, tmp_path: Path, dtype: str) -> None:
    convert_checkpoint(quantized, tmp_path / "out", dtype=dtype, verify=True)
    expected = stack(dequantize_with_torch(read_tensors(quantized), dtype))
    result = read_tensors(tmp_path / "out")
    assert result.keys() == expected.keys()
    for name, (kind, values) in result.items():
        assert kind == by_name(dtype)
        np.testing.assert_array_equal(as_float32(kind, values), expected[name], err_msg=name)


def test_the_weights_pass_the_validation_that_computes_them_apart(quantized: Path, tmp_path: Path) -> None:
    convert_checkpoint(quantized, tmp_path / "out", max_memory="78MB")
    with open_checkpoint(quantized) as source, open_checkpoint(tmp_path / "out") as converted:
        checks = compare_weights(source, converted)
    assert [check for check in checks if not check.passed] == []
    assert {"fp8 decoded, float8_e4m3fn to bfloat16"} < {check.transform for check in checks}


def test_the_plan_names_the_scales_as_sources_and_says_that_it_rounds(quantized: Path) -> None:
    with open_checkpoint(quantized) as checkpoint:
        plan = make_plan(checkpoint)
    used = {source.name for tensor in plan.tensors for source in tensor.sources}
    assert used == read_tensors(quantized).keys()
    assert {tensor.rounded for tensor in plan.tensors if tensor.transform.label.startswith("fp8")} == {True}
    assert {tensor.dtype for tensor in plan.tensors} == {BFLOAT16}
    assert inspect_path(quantized).problem is None


def test_what_came_out_converts_again(dense: Path, tmp_path: Path) -> None:
    convert_checkpoint(dense, tmp_path / "wide", dtype="float32")
    again = convert_checkpoint(tmp_path / "wide", tmp_path / "again", dtype="bfloat16")
    assert again.tensors == convert_checkpoint(dense, tmp_path / "straight").tensors
    verify_folder(tmp_path / "again")


NAME = "model.layers.1.mlp.down_proj.weight"


def test_a_layer_without_its_scales_is_refused_by_name(dense: Path, tmp_path: Path) -> None:
    change_tensors(dense, lambda tensors: tensors.pop(f"{NAME}_scale_inv") and None)
    with pytest.raises(CheckpointError, match=rf"{NAME} is float8_e4m3fn \(no {NAME}_scale_inv beside it\)"):
        convert_checkpoint(dense, tmp_path / "out")


def test_scales_of_another_shape_are_refused(dense: Path, tmp_path: Path) -> None:
    wrong = (FLOAT32, np.ones((1, 1), np.float32))
    change_tensors(dense, lambda tensors: tensors.update({f"{NAME}_scale_inv": wrong}))
    with pytest.raises(CheckpointError, match=rf"{NAME}_scale_inv is \[1, 1\], config.json says \[2, 2\]"):
        convert_checkpoint(dense, tmp_path / "out")


def test_other_blocks_and_unknown_methods_are_refused(dense: Path, tmp_path: Path) -> None:
    change_config(dense, quantization_config={**QUANTIZATION, "weight_block_size": [64, 64]})
    with pytest.raises(UnsupportedError, match=r"weight_block_size \[64, 64\]; msport reads \[128, 128\]"):
        convert_checkpoint(dense, tmp_path / "out")
    gemma = write_sample("gemma2", tmp_path / "gemma")
    change_config(gemma, quantization_config={"quant_method": "bitsandbytes"})
    with pytest.raises(UnsupportedError, match="quantized with 'bitsandbytes'; msport reads mxfp4, fp8"):
        convert_checkpoint(gemma, tmp_path / "out")


def test_nan_codes_become_nan(dense: Path, tmp_path: Path) -> None:
    def spoil(tensors: Tensors) -> None:
        tensors[NAME][1][3, 5], tensors[NAME][1][4, 5] = 0x7F, 0xFF

    change_tensors(dense, spoil)
    convert_checkpoint(dense, tmp_path / "out")
    kind, values = read_tensors(tmp_path / "out")[NAME]
    assert np.argwhere(np.isnan(as_float32(kind, values))).tolist() == [[3, 5], [4, 5]]


def test_float16_names_the_layer_whose_scale_is_too_large(dense: Path, tmp_path: Path) -> None:
    def enlarge(tensors: Tensors) -> None:
        tensors[f"{NAME}_scale_inv"][1][0, 0] = 1e4

    change_tensors(dense, enlarge)
    with pytest.raises(UsageError, match=rf"float16 cannot hold tensor '{NAME}', whose largest magnitude is 4.48e\+06"):
        convert_checkpoint(dense, tmp_path / "out", dtype="float16")
