"""The machine's limits are the fastest of what was measured, and plausible."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from msport.bench import limits
from msport.bench.limits import Limits, Probe
from msport.bench.machine import last_level_cache_nbytes, processor
from msport.bench.memory import read_memory
from msport.memory import available_memory


def test_the_limit_is_the_best_round_of_the_best_probe() -> None:
    slow, fast, product = Probe("a", 10.0, 9.0, 5), Probe("b", 12.0, 8.0, 5), Probe("c", 3.0, 2.0, 5)
    both = Limits((slow,), (product,)) + Limits((fast,), (product,))
    assert both.bandwidth is fast
    assert both.to_document()["memory_bytes_per_second"] == 12.0
    assert Limits.from_document(both.to_document()) == both


def test_memory_and_products_are_measured_on_this_machine() -> None:
    document = limits.measure("float32", len(os.sched_getaffinity(0)), seconds=0.01, progress=lambda *step: None)
    measured = Limits.from_document(document)
    assert 1e8 < measured.bandwidth.best < 1e13
    assert 1e8 < measured.matmul.best < 1e15
    for probe in measured.memory + measured.arithmetic:
        assert probe.median <= probe.best
        assert probe.rounds >= 5


def test_an_npus_probes_are_larger_than_its_caches_and_end_when_it_is_idle() -> None:
    reading = limits._READING["NPU"]
    assert reading.elements * 2 > 10 * (192 << 20)  # bytes in bfloat16, beside the L2 of a 910B
    assert all(product.flops > 5e10 for product in limits._MULTIPLYING["NPU"])
    finished: list[Any] = []
    product = limits.Product(2, 16, 3)
    limits.multiply(product, "float32", finished.append)()
    (result,) = finished
    assert result.shape == (2, 16)
    assert result.asnumpy() == pytest.approx(result.asnumpy().mean(), rel=0.6)  # means of means
    assert product.flops == 2 * 2 * 3 * 16 * 16
    assert product.method.endswith("times 16 x 16, 3 in a row")


def test_the_processor_has_a_name_and_a_cache() -> None:
    cache = last_level_cache_nbytes()
    assert processor()
    assert cache is None or cache > 1 << 15


def test_the_peak_is_at_least_what_is_resident_now() -> None:
    block = bytearray(b"x") * (64 << 20)
    memory = read_memory()
    del block
    assert memory.private is not None
    assert memory.mapped is not None
    assert memory.peak_resident >= memory.private + memory.mapped - (1 << 22)
    assert read_memory().peak_resident >= memory.peak_resident  # it never falls


def test_a_container_may_take_less_than_the_machine_has(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("2500000\n")
    (tmp_path / "memory.stat").write_text("anon 100000\ninactive_file 400000\n")
    assert available_memory(tmp_path) == 3_000_000 - 2_500_000 + 400_000


def test_an_old_container_too(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("5000000\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("4000000\n")
    (tmp_path / "memory" / "memory.stat").write_text("total_inactive_file 250000\n")
    assert available_memory(tmp_path) == 1_250_000


def test_without_a_limit_the_machines_memory_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=12345))
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("2500000\n")
    (tmp_path / "memory.stat").write_text("inactive_file 0\n")
    assert available_memory(tmp_path) == 12345
