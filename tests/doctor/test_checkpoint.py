"""A folder that is no whole conversion, or too large for the memory there is, fails with the remedy."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from msport import convert_checkpoint
from msport.architectures import ARCHITECTURES, load_config
from msport.bench.fit import Need
from msport.doctor.check import Check, Status
from msport.doctor.checkpoint import Memory, advise, check_files, check_fit
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
    model, fits, _ = check_fit(folder, "float32", max_length, batch, Memory(available, ("float32", "float16")))
    assert model.status is Status.PASS
    return fits


def _needed(costs: Costs, max_length: int, batch: int) -> int:
    return Need.of(costs, max_length, batch).total


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
    (check,) = check_fit(copied, "float32", 4096, 1, Memory(10**12, ("float32",)))
    assert check.status is Status.FAIL
    assert "NovelForCausalLM" in check.finding


def test_enough_memory_passes_and_one_byte_too_little_fails(converted: Path, costs: Costs) -> None:
    need = _needed(costs, 4096, 1)
    assert _fits(converted, 4096, 1, 2 * need).status is Status.PASS
    assert _fits(converted, 4096, 1, need).status is Status.WARN  # it fits, barely
    assert _fits(converted, 4096, 1, need - 1).status is Status.FAIL


def test_the_remedy_is_a_length_that_does_fit(converted: Path, costs: Costs) -> None:
    available = _needed(costs, 1000, 1)
    check = _fits(converted, 100_000, 1, available)
    shorter = Memory(available, ()).longest(costs, 100_000, 1, available)
    assert check.remedy == f"--max-length {shorter} fits"
    assert _needed(costs, shorter, 1) <= available < _needed(costs, shorter + 1, 1)
    assert _fits(converted, shorter, 1, available).status is not Status.FAIL


def test_a_smaller_batch_is_the_remedy_where_no_length_fits(converted: Path, costs: Costs) -> None:
    check = _fits(converted, 512, 10_000, _needed(costs, 512, 1))
    assert check.remedy == "--batch 1 with --max-length 512 fits"


def test_weights_that_do_not_fit_need_another_machine(converted: Path) -> None:
    check = _fits(converted, 512, 1, 10**6)
    assert check.status is Status.FAIL
    assert check.remedy is not None
    assert "use a machine with more" in check.remedy


def test_no_more_positions_are_counted_than_the_model_has(converted: Path) -> None:
    assert "caches for 131072 tokens" in _fits(converted, 10**9, 1, 10**12).finding


def test_every_part_of_what_is_needed_is_said(converted: Path) -> None:
    finding = _fits(converted, 512, 2, 10**12).finding
    for part in ("weights", "caches for 512 tokens x batch 2", "compiling and computing", "free memory"):
        assert part in finding


def test_each_dtype_that_fits_is_advised_with_a_length_and_a_batch_that_do_fit(costs: Costs) -> None:
    room = Need.of(costs, 4096, 5).total
    check = advise(costs.config, "float32", 1, Memory(-(-10 * room // 9), ("float32", "float16")))
    assert check.status is Status.PASS
    (single,) = check.finding.split("; ")  # float16 takes more on the CPU
    length = int(re.search(r"--batch 1 up to --max-length (\d+)", single)[1])  # type: ignore[index]
    assert _needed(costs, length, 1) <= room < _needed(costs, length + 1, 1)
    widest = int(re.search(r"--batch (\d+) of --max-length 4096", single)[1])  # type: ignore[index]
    assert widest == 5


def test_a_model_that_fits_a_card_in_half_precision_only_is_told_so(costs: Costs) -> None:
    large = replace(costs.config, vocab_size=4_000_000)
    available = int(1.2 * Need.of(Costs(large, "float16"), 4096, 1, on_device=True).total)
    check = advise(large, "float32", 1, Memory(available, ("float32", "float16"), on_device=True))
    assert check.finding.startswith("float16: ")
    assert advise(large, "float32", 1, Memory(10**8, ("float32",))).status is Status.FAIL


def test_packed_experts_are_advised_beside_the_dtypes(converted: Path) -> None:
    *_, advice = check_fit(converted, "float32", 512, 1, Memory(10**10, ("float32",)), packed=True)
    assert advice.finding.startswith("mxfp4: ")
    assert "; float32: " in advice.finding


def test_only_attention_with_a_soft_cap_holds_its_scores_on_a_device(costs: Costs) -> None:
    capped = ARCHITECTURES["Gemma2ForCausalLM"]
    config = capped.parse(capped.sample_config(), Path("config.json"))
    assert Memory(1, (), on_device=True).holds_scores(config)
    assert not Memory(1, (), on_device=True).holds_scores(costs.config)
    assert Memory(1, (), portable=True).holds_scores(costs.config)
    assert not Memory(1, ()).holds_scores(config)
