"""A model too large for the memory there is fails with what would fit, and every choice that is offered fits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from msport.architectures import load_config
from msport.device import Device
from msport.doctor.check import Check, Status
from msport.doctor.fitting import AvailableMemory, Run, advise, check_fit, choose, choose_memory
from msport.sizing.costs import Costs
from msport.sizing.fit import estimate
from msport.sizing.kept import encodings_of, kept_encodings


@pytest.fixture
def costs(converted: Path) -> Costs:
    config = load_config(converted)
    return Costs(config, "float32", kept_encodings(config, encodings_of(converted, config), "float32", "cpu"))


def _fits(folder: Path, max_length: int, batch: int, available: int) -> Check:
    memory = AvailableMemory(available, ("float32", "float16"))
    (model, fits, _), _ = check_fit(folder, Run("float32", batch, max_length), memory)
    assert model.status is Status.PASS
    return fits


def _needed(costs: Costs, max_length: int, batch: int) -> int:
    return estimate(costs, max_length, batch).total


def test_an_architecture_that_is_not_supported_fails(copied: Path) -> None:
    (copied / "config.json").write_text(json.dumps({"architectures": ["NovelForCausalLM"]}))
    (check,), fit = check_fit(copied, Run("float32", 1, 4096), AvailableMemory(10**12, ("float32",)))
    assert fit is None
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
    shorter = AvailableMemory(available, ()).longest(costs, 100_000, 1, available)
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
    room = estimate(costs, 4096, 5).total
    memory = AvailableMemory(-(-10 * room // 9), ("float32", "float16"))  # float16 takes more on the CPU
    single, several = choose(costs.config, 1, memory, costs.kept)
    assert (single.dtype, single.batch) == ("float32", 1)
    assert _needed(costs, single.max_length, 1) <= room < _needed(costs, single.max_length + 1, 1)
    assert several == Run("float32", 5, 4096)
    check = advise((single, several), costs.config, room)
    assert check.status is Status.PASS
    expected = f"--dtype float32 --batch 1 --max-length {single.max_length} or --batch 5 --max-length 4096"
    assert check.finding == expected


def test_a_model_that_fits_only_in_half_precision_gets_that_advice(costs: Costs) -> None:
    large = replace(costs.config, vocab_size=4_000_000)
    available = int(1.2 * estimate(Costs(large, "float16"), 4096, 1, on_device=True).total)
    memory = AvailableMemory(available, ("float32", "float16"), on_device=True)
    assert {choice.dtype for choice in choose(large, 1, memory)} == {"float16"}
    assert advise((), large, 10**8).status is Status.FAIL


def test_packed_experts_are_counted_as_they_will_lie(converted: Path) -> None:
    memory = AvailableMemory(10**10, ("float32",))
    (model, *_), fit = check_fit(converted, Run("mxfp4", 1, 512), memory)
    (_, *_), plain = check_fit(converted, Run("float32", 1, 512), memory)
    assert model.finding.endswith("in float32 with weights in mxfp4 and bfloat16")
    assert fit is not None
    assert plain is not None
    assert fit.need.weights < plain.need.weights


def test_a_device_of_unknown_memory_is_not_judged_by_the_memory_of_the_host(converted: Path) -> None:
    (_, fits), fit = check_fit(converted, Run("float16", 1, 512), AvailableMemory(None, ("float16",), on_device=True))
    assert fits.status is Status.WARN
    assert "the device does not tell how much it has" in fits.finding
    assert fit is not None
    assert (fit.memory.nbytes, fit.choices) == (None, ())


def test_without_the_cpus_kernels_portable_operators_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MSPORT_OPS", "MSPORT_NATIVE"):
        monkeypatch.delenv(name, raising=False)
    assert not choose_memory(None, 10**9, compiled=True).portable
    assert choose_memory(None, 10**9, compiled=False).portable
    npu = Device("Ascend", 0, 1, 64 << 30, 60 << 30, "bfloat16", {})
    assert choose_memory(npu, 10**9, compiled=False) == AvailableMemory(
        60 << 30, ("bfloat16", "float16"), on_device=True
    )
