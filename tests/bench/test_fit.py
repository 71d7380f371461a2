"""What a model needs is counted part by part, and a real process stays within it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.made_reports import CONFIG
from msport.bench.fit import Need, largest_batch_that_fits, longest_that_fits, make_costs
from msport.bench.processes import make_bench
from msport.bench.workload import Workload
from msport.msmodels.costs import Costs

COSTS = Costs(CONFIG, "float32")


def test_caches_are_counted_by_window_and_batch() -> None:
    # 2 layers see 24 tokens beside a chunk of 128, 2 see all 512; keys and values of 2 heads of 32 float32 numbers.
    slots = 2 * (24 + 128) + 2 * 512
    need = Need.of(COSTS, 512, 3)
    assert need.caches == 3 * slots * 2 * 2 * 32 * 4
    assert need.weights == COSTS.weight_bytes
    assert need.total == need.weights + need.caches + need.workspace


def test_the_workspace_grows_with_layers_batch_and_vocabulary() -> None:
    workspace = Need.of(COSTS, 512, 1).workspace
    assert Need.of(COSTS, 512, 8).workspace > workspace
    for change in ({"vocab_size": 200_000}, {"hidden_size": 4096}):
        assert Need.of(Costs(replace(CONFIG, **change), "float32"), 512, 1).workspace > workspace


def test_portable_attention_holds_the_scores_of_a_chunk_with_every_position() -> None:
    portable, fused = (Need.of(COSTS, 4096, 2, portable=each).workspace for each in (True, False))
    assert portable - fused == 2 * 2 * 128 * CONFIG.num_attention_heads * 4096 * 4


def test_packed_experts_need_less() -> None:
    assert make_costs(CONFIG, "float32", packed=True).weight_bytes < COSTS.weight_bytes


def test_what_fits_is_the_most_that_fits() -> None:
    available = Need.of(COSTS, 1000, 1).total
    longest = longest_that_fits(COSTS, 10**5, 1, available)
    assert Need.of(COSTS, longest, 1).total <= available < Need.of(COSTS, longest + 1, 1).total
    available = Need.of(COSTS, 512, 5).total
    assert largest_batch_that_fits(COSTS, 512, 64, available) == 5
    assert largest_batch_that_fits(COSTS, 512, 3, available) == 3
    assert (longest_that_fits(COSTS, 512, 1, 1000), largest_batch_that_fits(COSTS, 512, 64, 1000)) == (0, 0)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_process_that_ran_held_less_than_was_expected(tiny_checkpoint: Path, dtype: str) -> None:
    bench = make_bench(tiny_checkpoint, [Workload(200, 2)], dtype=dtype, warmup=0, repeats=1)
    session = bench.measure_subject()
    config = replace(CONFIG, num_hidden_layers=2, vocab_size=512)
    assert session.memory.peak_resident < Need.of(Costs(config, dtype), 202, 1).total
