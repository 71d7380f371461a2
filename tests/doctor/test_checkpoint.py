"""A folder that is no whole conversion, or too large for the memory there is, fails with the remedy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from msport import convert_checkpoint
from msport.architectures import load_config
from msport.doctor.check import Check, Status
from msport.doctor.checkpoint import RUNTIME_NBYTES, check_files, check_fit, longest_that_fits, needed_nbytes
from msport.msmodels.costs import Costs
from msport.sample import write_sample


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doctor")
    write_sample("gpt-oss", folder / "source")
    convert_checkpoint(folder / "source", folder / "converted")
    return folder / "converted"


@pytest.fixture
def copied(converted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(converted, tmp_path / "copied"))


@pytest.fixture
def costs(converted: Path) -> Costs:
    return Costs(load_config(converted), "float32")


def _fits(folder: Path, max_length: int, batch: int, available: int) -> Check:
    model, fits = check_fit(folder, "float32", max_length, batch, available, "free memory")
    assert model.status is Status.PASS
    return fits


def test_a_whole_conversion_passes(converted: Path) -> None:
    check = check_files(converted)
    assert check.status is Status.PASS
    assert "bfloat16 from" in check.finding


def test_a_folder_that_is_not_there_fails(tmp_path: Path) -> None:
    assert check_files(tmp_path / "gone").finding == f"{tmp_path / 'gone'}: no such folder"


def test_a_folder_without_a_manifest_fails(copied: Path) -> None:
    (copied / "msport.json").unlink()
    check = check_files(copied)
    assert check.status is Status.FAIL
    assert "msport.json: no such file" in check.finding
    assert check.remedy is not None
    assert "msport convert" in check.remedy


def test_a_shard_that_is_cut_short_fails(copied: Path) -> None:
    shard = next(copied.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    check = check_files(copied)
    assert check.status is Status.FAIL
    assert shard.name in check.finding


def test_a_manifest_of_other_tensors_fails(copied: Path) -> None:
    document = json.loads((copied / "msport.json").read_text())
    document["tensors"]["model.norm.weight"]["shape"] = [64, 2]
    (copied / "msport.json").write_text(json.dumps(document))
    check = check_files(copied)
    assert check.status is Status.FAIL
    assert "model.norm.weight is not what" in check.finding


def test_an_architecture_that_is_not_supported_fails(copied: Path) -> None:
    (copied / "config.json").write_text(json.dumps({"architectures": ["NovelForCausalLM"]}))
    (check,) = check_fit(copied, "float32", 4096, 1, 10**12, "free memory")
    assert check.status is Status.FAIL
    assert "NovelForCausalLM" in check.finding


def test_what_is_needed_is_weights_caches_and_the_runtime(costs: Costs) -> None:
    # 2 layers see 24 tokens beside a chunk of 128, 2 see all 512; keys and values of 2 heads of 32 float32 numbers.
    slots = 2 * (24 + 128) + 2 * 512
    assert needed_nbytes(costs, 512, 3) == costs.weight_bytes + 3 * slots * 2 * 2 * 32 * 4 + RUNTIME_NBYTES


def test_enough_memory_passes_and_one_byte_too_little_fails(converted: Path, costs: Costs) -> None:
    need = needed_nbytes(costs, 4096, 1)
    assert _fits(converted, 4096, 1, 2 * need).status is Status.PASS
    assert _fits(converted, 4096, 1, need).status is Status.WARN  # it fits, barely
    assert _fits(converted, 4096, 1, need - 1).status is Status.FAIL


def test_the_remedy_is_a_length_that_does_fit(converted: Path, costs: Costs) -> None:
    available = needed_nbytes(costs, 1000, 1)
    check = _fits(converted, 100_000, 1, available)
    shorter = longest_that_fits(costs, 100_000, 1, available)
    assert check.remedy == f"--max-length {shorter} fits"
    assert needed_nbytes(costs, shorter, 1) <= available < needed_nbytes(costs, shorter + 1, 1)
    assert _fits(converted, shorter, 1, available).status is not Status.FAIL


def test_a_smaller_batch_is_the_remedy_where_no_length_fits(converted: Path, costs: Costs) -> None:
    check = _fits(converted, 512, 10_000, needed_nbytes(costs, 512, 1))
    assert check.remedy == "--batch 1 with --max-length 512 fits"


def test_weights_that_do_not_fit_need_another_machine(converted: Path) -> None:
    check = _fits(converted, 512, 1, 10**6)
    assert check.status is Status.FAIL
    assert check.remedy is not None
    assert "use a machine with more" in check.remedy


def test_no_more_positions_are_counted_than_the_model_has(converted: Path) -> None:
    assert "caches for 131072 tokens" in _fits(converted, 10**9, 1, 10**12).finding
