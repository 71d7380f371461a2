"""The machine's limits are the fastest of what was measured, and plausible."""

from __future__ import annotations

import os
from typing import Any

import pytest

from msport.bench.measure import limits
from msport.bench.measure.limits import Limits, Probe
from msport.bench.measure.machine import last_level_cache_nbytes, processor
from msport.bench.measure.typed_json import parse


def test_the_limit_is_the_best_round_of_the_best_probe() -> None:
    slow, fast, product = Probe("a", 10.0, 9.0, 5), Probe("b", 12.0, 8.0, 5), Probe("c", 3.0, 2.0, 5)
    both = Limits((slow,), (product,)) + Limits((fast,), (product,))
    assert both.bandwidth is fast


@pytest.mark.slow  # every benchmark in the documents measures them, too
def test_memory_and_products_are_measured_on_this_machine() -> None:
    document = limits.measure("float32", len(os.sched_getaffinity(0)), seconds=0.01, progress=lambda step: None)
    measured = parse(Limits, document)
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
