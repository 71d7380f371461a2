"""Weights in groups are compared with their source: half a step if quantised, bit for bit if they came packed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from community import METHODS, Recipe, write_community

from msport.checkpoint import open_checkpoint, read_manifest
from msport.convert import convert_checkpoint
from msport.sample import write_sample
from msport.validate.compare.tensor_check import TensorCheck
from msport.validate.compare.weights import compare_weights
from validate.tampering import change_bytes, change_tensor

WEIGHT = "model.layers.0.self_attn.k_proj.weight"


def _compare(source: Path, converted: Path) -> dict[str, TensorCheck]:
    with open_checkpoint(source) as original, open_checkpoint(converted) as ours:
        checks = compare_weights(original, ours)
    assert {check.name for check in checks} == set(read_manifest(converted).tensors)
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check for check in checks}


def _wrong(checks: dict[str, TensorCheck]) -> dict[str, int]:
    return {name: check.different for name, check in checks.items() if not check.passed}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample("llama", tmp_path_factory.mktemp("hub") / "tiny", overrides={"num_hidden_layers": 1})


@pytest.fixture(scope="module")
def int4(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "int4"
    convert_checkpoint(llama, folder, dtype="int4", zero_points=True)
    return folder


@pytest.mark.parametrize("family", ["llama", "mixtral", "gpt-oss"])
@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("dtype", ["int4", "int8"])
def test_what_the_converter_quantises_passes(dtype: str, zero_points: bool, family: str, tmp_path: Path) -> None:
    hub = write_sample(family, tmp_path / "hub", overrides={"num_hidden_layers": 1}, dtype="bfloat16")
    convert_checkpoint(hub, tmp_path / "ms", dtype=dtype, zero_points=zero_points)
    checks = _compare(hub, tmp_path / "ms")
    assert not _wrong(checks)
    codes = [check for check in checks.values() if check.name.endswith("_codes")]
    assert {check.transform for check in codes} == {f"bfloat16 quantised, {dtype}"}
    assert sum(check.elements for check in codes) > 50_000
    clipped = sum(check.clipped for check in codes) / sum(check.elements for check in codes)
    print(f"clipped {clipped:.2%}")
    assert clipped < 0.1
    assert (clipped > 0) == (dtype == "int4" or zero_points)


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["int4", "bfloat16"])
def test_what_the_converter_regroups_or_decodes_is_what_the_source_says(
    dtype: str, method: str, symmetric: bool, act_order: bool, tmp_path: Path
) -> None:
    if method == "awq" and act_order:
        pytest.skip("AWQ has no act-order")
    recipe = Recipe(method, symmetric=symmetric, act_order=act_order)
    write_community(tmp_path / "hub", recipe, layers=1)
    convert_checkpoint(tmp_path / "hub", tmp_path / "ms", dtype=dtype)
    checks = _compare(tmp_path / "hub", tmp_path / "ms")
    assert not _wrong(checks)
    name = f"{WEIGHT}_codes" if dtype == "int4" else WEIGHT
    assert method in checks[name].transform
    assert checks[name].clipped == 0


def test_swapped_nibbles_are_far_from_their_source(llama: Path, int4: Path, tmp_path: Path) -> None:
    folder = change_tensor(int4, tmp_path / "ms", f"{WEIGHT}_codes", lambda codes: codes << 4 | codes >> 4)
    (check,) = [check for check in _compare(llama, folder).values() if not check.passed]
    assert check.name == f"{WEIGHT}_codes"
    assert check.different > check.elements / 2
    assert check.max_abs > 0


def test_one_code_that_is_off_by_one_is_counted(llama: Path, int4: Path, tmp_path: Path) -> None:
    def move(codes: np.ndarray) -> np.ndarray:
        codes = codes.copy()
        low = codes[3, 5] & 15
        codes[3, 5] = (codes[3, 5] & 0xF0) | ((low + 1) & 15)
        return codes

    folder = change_tensor(int4, tmp_path / "ms", f"{WEIGHT}_codes", move)
    assert _wrong(_compare(llama, folder)) == {f"{WEIGHT}_codes": 1}


def test_an_offset_that_was_dropped_shows_in_the_codes(llama: Path, int4: Path, tmp_path: Path) -> None:
    folder = change_tensor(int4, tmp_path / "ms", f"{WEIGHT}_offsets", lambda offsets: offsets * 0 + 5)
    wrong = _wrong(_compare(llama, folder))
    assert list(wrong) == [f"{WEIGHT}_codes"]


@pytest.mark.parametrize("value", [0.0, np.inf, np.nan])
def test_a_scale_that_is_zero_or_not_finite_is_wrong(value: float, llama: Path, int4: Path, tmp_path: Path) -> None:
    def spoil(scales: np.ndarray) -> np.ndarray:
        scales = scales.copy()
        scales[7, 1] = value
        return scales

    wrong = _wrong(_compare(llama, change_tensor(int4, tmp_path / "ms", f"{WEIGHT}_scales", spoil)))
    assert wrong[f"{WEIGHT}_scales"] == 1
    assert wrong[f"{WEIGHT}_codes"] > 0


def test_a_regrouped_weight_must_be_equal(tmp_path: Path) -> None:
    write_community(tmp_path / "hub", Recipe("gptq", act_order=True), layers=1)
    convert_checkpoint(tmp_path / "hub", tmp_path / "ms", dtype="int4")

    def swap(order: np.ndarray) -> np.ndarray:
        order = order.copy()
        order[:2] = order[1::-1]
        return order

    shutil.copytree(tmp_path / "ms", tmp_path / "changed")
    change_bytes(tmp_path / "changed", f"{WEIGHT}_order", swap)
    wrong = _wrong(_compare(tmp_path / "hub", tmp_path / "changed"))
    assert list(wrong) == [f"{WEIGHT}_codes"], "the order is a permutation still"
    assert 0 < wrong[f"{WEIGHT}_codes"] <= 2 * 128
