"""Both sides are streamed where either would not fit, by the estimate that doctor and bench go by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from bench.made_reports import CONFIG

from msport.architectures import load_config
from msport.doctor.check import Status
from msport.doctor.fitting import AvailableMemory, Run, check_fit
from msport.sizing.costs import Costs
from msport.sizing.fit import estimate, estimate_reference, estimate_verdict
from msport.sizing.kept import encodings_of, kept_encodings, packed_experts
from msport.validate import memory
from msport.validate.memory import must_stream

LARGE = replace(CONFIG, vocab_size=200_000, hidden_size=4096)


@pytest.fixture(autouse=True)
def _every_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MSPORT_OPS", "MSPORT_NATIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_verdict_streams_from_the_first_byte_that_is_missing(dtype: str) -> None:
    own = estimate(Costs(LARGE, dtype), 300, 1, every_logit=True)
    for reference_dtype in (None, "float32", "bfloat16"):
        reference = None if reference_dtype is None else estimate_reference(LARGE, reference_dtype, 300)
        needed = estimate_verdict(own, reference)
        assert not must_stream(Costs(LARGE, dtype), 300, reference_dtype, available=needed)
        assert must_stream(Costs(LARGE, dtype), 300, reference_dtype, available=needed - 1)


def test_the_reference_decodes_what_the_port_may_keep_packed() -> None:
    experts = replace(CONFIG, hidden_size=4096, intermediate_size=4096, num_local_experts=32)
    packed = Costs(experts, "float32", packed_experts(experts))
    available = packed.weight_bytes + 3 * 10**9
    assert not must_stream(packed, 300, None, available=available)
    assert must_stream(packed, 300, "float32", available=available)


def test_float16_on_the_cpu_takes_more_than_its_weights() -> None:
    available = Costs(LARGE, "float16").weight_bytes + 3 * 10**9
    assert must_stream(Costs(LARGE, "float16"), 300, None, available=available)
    assert not must_stream(Costs(LARGE, "float16"), 300, None, on_device=True, available=available)


def test_what_a_verdict_runs_whole_doctor_says_fits(converted: Path) -> None:
    config = load_config(converted)
    costs = Costs(config, "float32", kept_encodings(config, encodings_of(converted, config), "float32", "cpu"))
    for reference_dtype in (None, "float32"):
        sizes = range(10**8, 10**10, 10**7)
        least = next(size for size in sizes if not must_stream(costs, 300, reference_dtype, available=size))
        (_, fits, _), _ = check_fit(converted, Run("float32", 1, 300), AvailableMemory(least, ("float32",)))
        assert fits.status is not Status.FAIL


def test_a_containers_limit_counts_as_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, streams in ((10**9, True), (10**11, False)):
        monkeypatch.setattr(memory, "available_memory", lambda available=available: available)
        assert must_stream(Costs(LARGE, "float32"), 300, "float32") is streams
