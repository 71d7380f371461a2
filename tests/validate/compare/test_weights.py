"""Every converted tensor is compared with its source, and one wrong bit is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from msport.checkpoint import open_checkpoint, read_manifest
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32, DType, cast
from msport.convert import convert_checkpoint
from msport.encodings.mxfp4 import decode_transposed
from msport.sample import write_sample
from msport.validate.compare.sources import decode_mxfp4
from msport.validate.compare.tensor_check import TensorCheck
from msport.validate.compare.weights import compare_weights, round_to
from validate.tampering import change_tensor

ROUTER = "model.layers.1.mlp.router.weight"
EXPERTS = "model.layers.0.mlp.experts.down_proj"


def _compare(source: Path, converted: Path) -> tuple[TensorCheck, ...]:
    with open_checkpoint(source) as original, open_checkpoint(converted) as ours:
        return compare_weights(original, ours)


@pytest.mark.parametrize("file_format", ["safetensors", "ckpt"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "mxfp4"])
def test_what_the_converter_writes_passes(dtype: str, file_format: str, sample: Path, tmp_path: Path) -> None:
    convert_checkpoint(sample, tmp_path / "ms", dtype=dtype, format=file_format)
    checks = _compare(sample, tmp_path / "ms")
    assert all(check.passed for check in checks)
    assert {check.name for check in checks} == set(read_manifest(tmp_path / "ms").tensors)


@pytest.mark.parametrize("name", [ROUTER, EXPERTS])
def test_a_single_wrong_bit_is_found_and_counted(name: str, sample: Path, converted: Path, tmp_path: Path) -> None:
    def flip_the_sign(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values.flat[-5] *= -1
        return values

    wrong = [
        c for c in _compare(sample, change_tensor(converted, tmp_path / "ms", name, flip_the_sign)) if not c.passed
    ]
    assert [(check.name, check.different) for check in wrong] == [(name, 1)]
    assert wrong[0].max_abs > 0


def test_a_weight_that_became_nan_is_infinitely_far(sample: Path, converted: Path, tmp_path: Path) -> None:
    folder = change_tensor(converted, tmp_path / "ms", ROUTER, lambda values: values * np.float32(np.nan))
    (wrong,) = [check for check in _compare(sample, folder) if not check.passed]
    assert wrong.different == wrong.elements
    assert wrong.max_abs == np.inf


def test_bytes_that_differ_are_counted_with_their_distance(sample: Path, tmp_path: Path) -> None:
    name = f"{EXPERTS}_scales"
    convert_checkpoint(sample, tmp_path / "ms", dtype="mxfp4")

    def change(scales: np.ndarray) -> np.ndarray:
        changed = scales.copy()
        changed.flat[[1, 5]] = changed.flat[[1, 5]] - np.uint8(3)
        return changed

    folder = change_tensor(tmp_path / "ms", tmp_path / "changed", name, change)
    (check,) = [check for check in _compare(sample, folder) if not check.passed]
    assert (check.name, check.different, check.max_abs) == (name, 2, 3.0)


def test_tensors_of_another_model_are_named(sample: Path, converted: Path, tmp_path: Path) -> None:
    other = write_sample("gpt-oss", tmp_path / "other", overrides={"num_hidden_layers": 3, "intermediate_size": 64})
    convert_checkpoint(other, tmp_path / "ms")
    faults = {check.name: check.fault for check in _compare(sample, tmp_path / "ms") if check.fault}
    assert faults[EXPERTS] == "is [8, 64, 128], not [8, 96, 128]"
    assert faults["model.layers.2.mlp.router.weight"] == "is not in the architecture's table"
    missing = {check.name: check.fault for check in _compare(other, converted) if check.fault}
    assert missing["model.layers.2.mlp.router.weight"] == "is missing"


def test_the_bytes_compared_are_counted(sample: Path, converted: Path) -> None:
    counted: list[int] = []
    with open_checkpoint(sample) as original, open_checkpoint(converted) as ours:
        compare_weights(original, ours, counted.append)
        assert sum(counted) == sum(tensor.nbytes for tensor in ours.tensors.values())


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16, FLOAT32])
@given(bits=hnp.arrays(np.uint32, st.integers(1, 50)))
def test_rounding_agrees_with_the_cast_that_the_converter_states(dtype: DType, bits: np.ndarray) -> None:
    values = bits.view(np.float32)
    expected = cast(cast(values, FLOAT32, dtype), dtype, FLOAT32)
    rounded = round_to(values, dtype)
    nan = np.isnan(values)
    np.testing.assert_array_equal(np.isnan(rounded), nan)
    np.testing.assert_array_equal(rounded[~nan].view(np.uint32), expected[~nan].view(np.uint32))


def test_mxfp4_agrees_with_the_decoder_for_every_code_and_every_scale_that_bfloat16_holds() -> None:
    codes = np.tile(np.arange(256, dtype=np.uint8).reshape(1, 16, 16), (240, 1, 1))
    scales = np.repeat(np.arange(5, 245, dtype=np.uint8)[:, None], 16, axis=1)
    ours = decode_mxfp4(codes, scales)
    theirs = decode_transposed(codes, scales, FLOAT32).swapaxes(-1, -2)
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32))


def test_mxfp4_by_hand() -> None:
    blocks = np.zeros((1, 1, 16), np.uint8)
    blocks[0, 0, :3] = [0x21, 0x8F, 0x70]  # low nibble first: 0.5, 1, -6, -0, 0, 6
    values = decode_mxfp4(blocks, np.array([[128]], np.uint8))[0]
    assert values[:6].tolist() == [1.0, 2.0, -12.0, -0.0, 0.0, 12.0]
    assert np.signbit(values[3])
    assert np.isnan(decode_mxfp4(blocks, np.array([[255]], np.uint8))).all()
