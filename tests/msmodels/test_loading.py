"""Every form of a converted checkpoint loads to the same model; what cannot be loaded is refused in a line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from msport.checkpoint import open_checkpoint
from msport.convert import convert_checkpoint
from msport.errors import CheckpointError, ConfigError, UsageError
from msport.msmodels import LanguageModel, load_model
from msport.msmodels.computation import choose_dtype
from msport.msmodels.ops import portable

PROMPT = np.random.default_rng(1).integers(0, 1000, (1, 20))


def weights(model: LanguageModel) -> dict[str, np.ndarray]:
    return {p.name: p.asnumpy() for p in model.graphs.network.get_parameters() if ".cache." not in p.name}


@pytest.mark.parametrize(
    ("dtype", "file_format"), [("bfloat16", "safetensors"), ("mxfp4", "safetensors"), ("bfloat16", "ckpt")]
)
def test_every_form_holds_the_same_weights(
    hub_folder: Path, folder: Path, tmp_path: Path, dtype: str, file_format: str
) -> None:
    other = tmp_path / "other"
    convert_checkpoint(hub_folder, other, dtype=dtype, format=file_format)
    expected, found = weights(load_model(folder)), weights(load_model(other, "float32"))
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_a_float32_checkpoint_is_mapped_not_copied(folder: Path) -> None:
    """The parameter's memory lies inside a file mapping of this process."""
    model = load_model(folder)
    parameter = model.graphs.network.model.layers[0].mlp.experts.gate_up_proj
    address = parameter.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(part, 16) for part in line.split()[0].split("-"))
        if begin <= address < end:
            assert line.endswith(".safetensors")
            return
    pytest.fail("the parameter's address is in no mapping")


def test_float16_runs_on_cpu(folder: Path, model: LanguageModel) -> None:
    half = load_model(folder, dtype="float16", max_length=60, prefill_chunk=16).logits(PROMPT)
    full = model.logits(PROMPT)
    error = np.linalg.norm(half - full) / np.linalg.norm(full)
    print(f"relative L2 error {error:.2e}")
    assert error <= 4e-3  # twice the measured 1.8e-3; float16 has 11 bits


def test_the_portable_operators_give_the_same_logits(
    folder: Path, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = model.logits(PROMPT)  # compiled before the names are bound anew
    monkeypatch.setenv("MSPORT_OPS", "portable")
    portable = load_model(folder, max_length=60, prefill_chunk=16)
    assert portable.operators == "portable"
    error = np.linalg.norm(portable.logits(PROMPT) - fused) / np.linalg.norm(fused)
    print(f"relative L2 error {error:.2e}")
    assert error <= 2.5e-6  # twice the measured 1.2e-6


def test_models_with_other_operators_live_side_by_side(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each compiles its graphs from its own, in whatever order they are first needed."""
    first = load_model(folder, max_length=32, prefill_chunk=16)
    monkeypatch.setenv("MSPORT_OPS", "portable")
    second = load_model(folder, max_length=32, prefill_chunk=16)
    monkeypatch.setattr(portable, "attention", _refuse)  # what the first one must not be built from
    first.prefill(PROMPT)
    with pytest.raises(RuntimeError, match="portable operators"):
        second.prefill(PROMPT)
    assert (first.operators, second.operators) == ("cpu", "portable")


def _refuse(*_: object) -> None:
    raise RuntimeError("built from portable operators")


def test_max_length_is_bounded_by_the_models_own(hub_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "hub"
    shutil.copytree(hub_folder, source)
    config = json.loads((source / "config.json").read_text())
    config["max_position_embeddings"] = 64
    (source / "config.json").write_text(json.dumps(config))
    convert_checkpoint(source, tmp_path / "ms")
    assert load_model(tmp_path / "ms", max_length=4096).max_length == 64


def test_bfloat16_on_cpu_is_refused_with_the_remedy(folder: Path) -> None:
    with pytest.raises(UsageError, match="no bfloat16 kernels on CPU; load with dtype float32"):
        load_model(folder, dtype="bfloat16")


def test_packed_experts_stay_packed_unless_another_dtype_is_asked_for(hub_folder: Path, tmp_path: Path) -> None:
    convert_checkpoint(hub_folder, tmp_path / "packed", dtype="mxfp4")
    packed, decoded = load_model(tmp_path / "packed"), load_model(tmp_path / "packed", "float32")
    assert (packed.dtype, decoded.dtype) == ("float32", "float32")
    blocks = packed.graphs.network.model.layers[0].mlp.experts.down_proj_blocks
    assert (blocks.dtype, blocks.shape) == (ms.uint8, (8, 128, 3, 16))
    experts = 2 * 8 * (128 * 192 + 96 * 128)  # parameters of two layers
    saved = decoded.costs.weight_bytes - packed.costs.weight_bytes
    assert saved == experts * 4 - experts // 2 - experts // 32


def test_packed_experts_need_a_packed_checkpoint(folder: Path) -> None:
    with pytest.raises(UsageError, match="holds no packed experts"):
        load_model(folder, "mxfp4")


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
    with pytest.raises(UsageError, match="none of float32, float16, bfloat16, mxfp4"):
        load_model(folder, dtype="int8")


@pytest.mark.parametrize("name", ["max_length", "batch_size", "prefill_chunk"])
def test_sizes_must_be_positive(folder: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} must be at least 1"):
        load_model(folder, **{name: 0})


def test_a_folder_that_is_no_finished_conversion_is_refused(hub_folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"msport\.json"):
        load_model(hub_folder)


def test_config_and_tensors_that_contradict_each_other_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    config["intermediate_size"] = 64
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json implies"):
        load_model(copy)


def test_what_is_wrong_with_the_tokenizer_is_said_when_it_is_asked_for(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "tokenizer.json").write_text("{}")
    model = load_model(copy)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a tokenizer"):
        _ = model.tokenizer
    (copy / "tokenizer.json").unlink()
    assert model.tokenizer is None


def test_stop_ids_that_are_none_are_refused_before_a_weight_is_read(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "msport.json"):
        shutil.copy(folder / name, tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": "end"}')
    with pytest.raises(ConfigError, match=r"generation_config\.json: eos_token_id is 'end'"):
        load_model(tmp_path)
