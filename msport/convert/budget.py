"""Divides a memory limit: the number of workers, and the size of a slab of each tensor."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from msport.convert.tensors import OutputTensor
from msport.convert.transform import Grid
from msport.errors import UsageError
from msport.sizing.units import format_size

MAX_MEMORY = "1GB"
DEFAULT_WORKERS = 4

# Resident memory without weights: Python, NumPy, the command line and headers; and what a thread needs besides its
# arena, mainly the scratch memory of casting and decoding.
PROCESS_NBYTES = 70_000_000
WORKER_NBYTES = 5_000_000

# Additional memory for reading over a network: HTTP libraries, certificates, and bytes fetched ahead.
NETWORK_NBYTES = 60_000_000

# Enough for the smallest slab of a plain copy, so that every converted tensor can also be read back.
_LEAST_ARENA_NBYTES = 1_000_000

# Larger slabs are not faster: this is far above the CPU caches, and an expert of gpt-oss in bfloat16 fits.
_MAX_SLAB_NBYTES = 48_000_000


@dataclass(frozen=True, slots=True)
class Budget:
    """`workers` threads, each with `arena_nbytes` bytes of buffers, and `network_nbytes` bytes for reading over a
    network.
    """

    workers: int
    arena_nbytes: int
    network_nbytes: int = 0

    @property
    def nbytes(self) -> int:
        """Upper bound of the resident memory of the whole process."""
        return PROCESS_NBYTES + self.network_nbytes + self.workers * (WORKER_NBYTES + self.arena_nbytes)


def make_budget(
    tensors: Sequence[OutputTensor], max_memory: int, workers: int | None = None, *, remote: bool = False
) -> Budget:
    """As many workers as requested (by default one per core, at most four), if `max_memory` bytes have room for them.

    If the sources are `remote`, fewer workers are used if otherwise an expert would not fit as a whole: an expert made
    in several slabs is downloaded once per slab.

    Raises UsageError if not even one worker fits (the message states the least memory that would), and if `workers` is
    below one.
    """
    wanted = min(DEFAULT_WORKERS, os.cpu_count() or 1) if workers is None else workers
    if wanted < 1:
        raise UsageError(f"workers is {wanted}; at least one is needed")
    network_nbytes = NETWORK_NBYTES if remote else 0
    room = max_memory - PROCESS_NBYTES - network_nbytes
    largest = max(tensors, key=least_scratch)
    least = WORKER_NBYTES + max(least_scratch(largest), _LEAST_ARENA_NBYTES)
    if least > room:
        raise UsageError(
            f"a memory limit of {format_size(max_memory)} is too small: the tensor {largest.name} takes"
            f" {format_size(least)} beside {format_size(max_memory - room)} for the process; allow at least"
            f" {-(-(max_memory - room + least) // 10**6)}MB"
        )
    whole = WORKER_NBYTES + max(map(_expert_scratch, tensors))
    fitting = min(wanted, room // (max(least, whole) if remote and whole <= room else least))
    arena_nbytes = room // fitting - WORKER_NBYTES
    arena_nbytes = max(_scratch(tensor, slab_rows(tensor, arena_nbytes)) for tensor in tensors)
    return Budget(fitting, arena_nbytes, network_nbytes)


def slab_rows(tensor: OutputTensor, arena_nbytes: int) -> int:
    """Rows of the largest useful slab of `tensor` that fits in an arena; at least the grid's step."""
    grid = tensor.transform.grid(tensor)
    most = max(min(grid.rows_per_expert, _MAX_SLAB_NBYTES // grid.row_nbytes) // grid.step, 1)
    if _is_made_by_expert(grid):
        most = _steps_of_expert(grid)
    steps = bisect_right(range(1, most + 1), arena_nbytes, key=lambda steps: _scratch(tensor, steps * grid.step))
    return max(steps, 1) * grid.step


def least_scratch(tensor: OutputTensor) -> int:
    """Bytes of arena for the smallest slab of `tensor`."""
    return _scratch(tensor, tensor.transform.grid(tensor).step)


def _expert_scratch(tensor: OutputTensor) -> int:
    """Bytes of arena for a whole expert of `tensor`; 0 if it is not made expert by expert."""
    grid = tensor.transform.grid(tensor)
    return _scratch(tensor, _steps_of_expert(grid) * grid.step) if _is_made_by_expert(grid) else 0


def _steps_of_expert(grid: Grid) -> int:
    return -(-grid.rows_per_expert // grid.step)


def _is_made_by_expert(grid: Grid) -> bool:
    """Whether the output is made expert by expert. A slab reads all sources of its expert, so it should be the whole
    expert.
    """
    return grid.rows_per_expert < grid.rows


def _scratch(tensor: OutputTensor, rows: int) -> int:
    return tensor.transform.scratch(tensor, rows)
