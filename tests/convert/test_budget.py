from __future__ import annotations

import os

import pytest

from msport.checkpoint.dtypes import BFLOAT16, FLOAT32, UINT8
from msport.convert.budget import NETWORK_NBYTES, PROCESS_NBYTES, WORKER_NBYTES, least_scratch, make_budget, slab_rows
from msport.convert.tensors import OutputTensor, SourceTensor
from msport.convert.transforms import Copy, DecodeStack, StackTransposed
from msport.encodings import MXFP4, Plain
from msport.errors import UsageError

MIB = 2**20


def expert_tensor() -> OutputTensor:
    """gate_up_proj of gpt-oss-20b."""
    blocks = SourceTensor("blocks", UINT8, (32, 5760, 90, 16), "f")
    scales = SourceTensor("scales", UINT8, (32, 5760, 90), "f")
    return OutputTensor("experts", BFLOAT16, (32, 2880, 5760), DecodeStack(MXFP4), (blocks, scales))


def plain_tensor(rows: int = 201088) -> OutputTensor:
    source = SourceTensor("embedding", FLOAT32, (rows, 2880), "f")
    return OutputTensor("embedding", BFLOAT16, (rows, 2880), Copy(), (source,))


def stacked_tensor() -> OutputTensor:
    """down_proj of Mixtral 8x7B."""
    sources = tuple(SourceTensor(str(expert), BFLOAT16, (4096, 14336), "f") for expert in range(8))
    return OutputTensor("down", BFLOAT16, (8, 14336, 4096), StackTransposed(1, (Plain(BFLOAT16),) * 8), sources)


TENSORS = (expert_tensor(), plain_tensor(), stacked_tensor())


@pytest.mark.parametrize("tensor", TENSORS, ids=lambda tensor: tensor.transform.label)
@pytest.mark.parametrize("extra", [0, 1, MIB, 10 * MIB, 1000 * MIB])
def test_a_slab_fits_the_arena_and_starts_at_a_step(tensor: OutputTensor, extra: int) -> None:
    arena_nbytes = least_scratch(tensor) + extra
    rows = slab_rows(tensor, arena_nbytes)
    transform = tensor.transform
    grid = transform.grid(tensor)
    assert rows % grid.step == 0
    assert transform.scratch(tensor, rows) <= arena_nbytes
    enough = rows >= grid.rows_per_expert or rows * grid.row_nbytes > 40_000_000
    assert enough or transform.scratch(tensor, rows + grid.step) > arena_nbytes


@pytest.mark.parametrize("max_memory", [120 * 10**6, 200 * 10**6, 10**9, 10**11])
@pytest.mark.parametrize("workers", [1, 2, 4, 64])
def test_all_workers_together_stay_below_the_limit(max_memory: int, workers: int) -> None:
    budget = make_budget(TENSORS, max_memory, workers)
    assert 1 <= budget.workers <= workers
    assert budget.nbytes <= max_memory
    for tensor in TENSORS:
        rows = slab_rows(tensor, budget.arena_nbytes)
        assert tensor.transform.scratch(tensor, rows) <= budget.arena_nbytes


def test_little_memory_means_fewer_workers_not_a_failure() -> None:
    least = WORKER_NBYTES + max(map(least_scratch, TENSORS))
    assert make_budget(TENSORS, PROCESS_NBYTES + least, 8).workers == 1
    assert make_budget(TENSORS, PROCESS_NBYTES + 3 * least, 8).workers == 3


@pytest.mark.parametrize("max_memory", [600 * 10**6, 10**9])
def test_over_a_network_experts_are_made_whole_by_fewer_workers(max_memory: int) -> None:
    stacked = stacked_tensor()
    budget = make_budget(TENSORS, max_memory, 8, remote=True)
    assert budget.nbytes <= max_memory
    assert slab_rows(stacked, budget.arena_nbytes) >= 14336
    assert budget.workers < make_budget(TENSORS, max_memory, 8).workers


def test_an_expert_of_any_size_is_one_slab() -> None:
    sources = tuple(SourceTensor(str(expert), BFLOAT16, (300, 300), "f") for expert in range(8))
    tensor = OutputTensor("down", BFLOAT16, (8, 300, 300), StackTransposed(1, (Plain(BFLOAT16),) * 8), sources)
    budget = make_budget([tensor], 10**9, 1, remote=True)
    rows = slab_rows(tensor, budget.arena_nbytes)
    assert list(tensor.transform.grid(tensor).slabs(rows)) == [(e * 300, e * 300 + 300) for e in range(8)]


def test_over_a_network_little_memory_still_does() -> None:
    least = PROCESS_NBYTES + NETWORK_NBYTES + WORKER_NBYTES + max(map(least_scratch, TENSORS))
    assert make_budget(TENSORS, least, 8, remote=True).workers == 1


def test_a_limit_that_no_worker_fits_names_the_tensor_and_what_would_do() -> None:
    least = PROCESS_NBYTES + WORKER_NBYTES + max(map(least_scratch, TENSORS))
    largest = max(TENSORS, key=least_scratch)
    with pytest.raises(UsageError, match=f"is too small: the tensor {largest.name} takes"):
        make_budget(TENSORS, least - 1)
    make_budget(TENSORS, least)


def test_the_default_is_one_worker_a_core_and_at_most_four(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, workers in ((1, 1), (3, 3), (4, 4), (96, 4), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert make_budget(TENSORS, 10**10).workers == workers


def test_no_workers_are_refused() -> None:
    with pytest.raises(UsageError, match="at least one"):
        make_budget(TENSORS, 10**9, 0)
