from __future__ import annotations

import errno
import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from checkpoint.mxfp4_definition import decoded

from convert.hub_folder import MemoryCatalog, read_tensors
from msport.checkpoint import open_checkpoint
from msport.checkpoint.dtypes import BFLOAT16, FLOAT32, Array
from msport.convert import Plan, make_plan
from msport.convert.budget import Budget, least_scratch, make_budget
from msport.convert.execute import execute
from msport.convert.journal import Done, Journal
from msport.convert.transforms import Copy, as_it_is
from msport.convert.workers import Workers
from msport.errors import CheckpointError, UsageError
from msport.progress import Progress, Step


def plan_of(folder: Path, **options: str) -> Plan:
    with open_checkpoint(folder) as checkpoint:
        return make_plan(checkpoint, **options)  # type: ignore[arg-type]


def execute_anew(
    plan: Plan, reader: object, folder: Path, budget: Budget, progress: Progress | None = None, *, survey: bool = True
) -> dict[str, str]:
    with closing(Journal(folder / "journal", {}, Done())) as journal:
        workers = Workers(budget, progress)
        return execute(plan, reader, folder, workers, journal, survey=survey)  # type: ignore[arg-type]


def run(plan: Plan, source: Path, folder: Path, budget: Budget, progress: Progress | None = None) -> dict[str, str]:
    with open_checkpoint(source) as checkpoint:
        return execute_anew(plan, checkpoint, folder, budget, progress)


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("slab", ["smallest", "largest"])
def test_workers_and_slabs_do_not_show_in_the_result(
    packed_sample: Path, tmp_path: Path, workers: int, slab: str
) -> None:
    plan = plan_of(packed_sample, max_shard_size="300kB")
    comfortable = make_budget(plan.tensors, 10**9, workers)
    tight = max(map(least_scratch, plan.tensors))
    budget = Budget(workers, tight) if slab == "smallest" else comfortable
    hashes = run(plan, packed_sample, tmp_path, budget)
    source = read_tensors(packed_sample)
    for tensor in plan.tensors:
        with open(tmp_path / tensor.file, "rb") as file:
            ((begin, end),) = tensor.extents
            file.seek(begin)
            content = file.read(end - begin)
        assert hashlib.sha256(content).hexdigest() == hashes[tensor.name]
        if tensor.transform == Copy():
            assert content == source[tensor.name][1].tobytes()
        else:
            blocks, scales = (source[f"{tensor.name}_{part}"][1] for part in ("blocks", "scales"))
            assert content == decoded(blocks, scales, BFLOAT16).swapaxes(1, 2).tobytes()


def test_progress_grows_to_the_whole_and_names_tensors(packed_sample: Path, tmp_path: Path) -> None:
    plan = plan_of(packed_sample)
    steps: list[Step] = []
    run(plan, packed_sample, tmp_path, make_budget(plan.tensors, 10**9, 3), progress=steps.append)
    done = [step.done for step in steps]
    assert done == sorted(set(done))
    assert done[-1] == plan.nbytes == steps[0].total
    assert {step.tensor for step in steps} == {tensor.name for tensor in plan.tensors}


def memory_plan(tmp_path: Path, arrays: dict[str, Array]) -> tuple[Plan, MemoryCatalog]:
    """A plan that copies float32 arrays to float16, and its reader."""
    from msport.checkpoint import safetensors
    from msport.checkpoint.dtypes import FLOAT16
    from msport.convert.shards import Shard
    from msport.convert.tensors import OutputTensor, SourceTensor

    layout = safetensors.plan_layout((name, FLOAT16, values.shape) for name, values in arrays.items())
    tensors = tuple(
        OutputTensor(
            name,
            FLOAT16,
            arrays[name].shape,
            Copy(),
            (SourceTensor(name, FLOAT32, arrays[name].shape, "model-7.safetensors"),),
            0,
            "model.safetensors",
            info.extents,
        )
        for name, info in layout.tensors.items()
    )
    plan = Plan("A", "float16", "safetensors", tensors, (Shard("model.safetensors", layout),), ())
    return plan, MemoryCatalog({name: (FLOAT32, values) for name, values in arrays.items()})


def test_float16_names_the_tensor_and_its_largest_value_instead_of_overflowing(tmp_path: Path) -> None:
    values = np.zeros(200_000, np.float32)
    values[5], values[150_000], values[199_999] = 65520.0, -70_000.5, np.inf
    plan, reader = memory_plan(tmp_path, {"layer.weight": values})
    with pytest.raises(UsageError) as error:
        execute_anew(plan, reader, tmp_path, Budget(1, 10**6))
    assert str(error.value) == (
        "model-7.safetensors: float16 cannot hold tensor 'layer.weight', whose largest magnitude is 70000.5;"
        " convert with `dtype` (--dtype) float32 or bfloat16"
    )


def test_float16_names_every_tensor_that_it_cannot_hold_the_largest_first(tmp_path: Path) -> None:
    arrays = {f"w{number}": np.full(100_000, 10.0**number, np.float32) for number in range(9)}
    plan, reader = memory_plan(tmp_path, arrays)
    with pytest.raises(UsageError) as error:
        execute_anew(plan, reader, tmp_path, Budget(2, 10**6))
    assert str(error.value) == (
        "float16 cannot hold 4 tensors, whose largest magnitude is 1e+08: 'w8' (1e+08), 'w7' (1e+07), 'w6' (1e+06),"
        " 'w5' (100000); convert with `dtype` (--dtype) float32 or bfloat16"
    )


def test_without_a_survey_the_first_tensor_is_named_alone(tmp_path: Path) -> None:
    arrays = {f"w{number}": np.full(100_000, 1e6, np.float32) for number in range(9)}
    plan, reader = memory_plan(tmp_path, arrays)
    with pytest.raises(UsageError, match=r"cannot hold tensor 'w\d', whose largest magnitude is 1e\+06;"):
        execute_anew(plan, reader, tmp_path, Budget(2, 10**6), survey=False)
    assert len(set(reader.reads)) < 9


def test_the_first_failure_stops_the_others(tmp_path: Path) -> None:
    arrays = {f"w{number}": np.zeros(1_000_000, np.float32) for number in range(40)}
    plan, reader = memory_plan(tmp_path, arrays)
    original = reader.read_into
    pause = 0.002

    def fail(name: str, offset: int, buffer: Array) -> None:
        nonlocal pause
        if name == "w3":
            pause = 0.1  # a busy machine may take its time to stop the other worker
            raise CheckpointError("w3 is broken")
        time.sleep(pause)
        original(name, offset, buffer)

    reader.read_into = fail  # type: ignore[method-assign]
    with pytest.raises(CheckpointError, match="w3 is broken"):
        execute_anew(plan, reader, tmp_path, Budget(2, 400_000))
    assert len(set(reader.reads)) < 10
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("msport-convert")]


def test_a_disk_that_fills_up_while_writing_names_the_file(
    packed_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(packed_sample, max_shard_size="300kB")
    written = 0
    pwrite = os.pwrite

    def limited(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal written
        written += len(data)
        if written > 1_000_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", limited)
    with pytest.raises(OSError, match="No space left") as error:
        run(plan, packed_sample, tmp_path, make_budget(plan.tensors, 10**9, 2))
    assert error.value.errno == errno.ENOSPC
    assert Path(error.value.filename).parent == tmp_path


@pytest.fixture
def _python_handles_ctrl_c() -> Iterator[None]:
    """MindSpore, if a test before has used it, answers Ctrl-C by terminating the process."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)


@pytest.mark.usefixtures("_python_handles_ctrl_c")
def test_ctrl_c_stops_all_workers_between_two_slabs(tmp_path: Path) -> None:
    plan, reader = memory_plan(tmp_path, {f"w{number}": np.zeros(4_000_000, np.float32) for number in range(4)})
    original = reader.read_into
    once = threading.Lock()

    def slow(name: str, offset: int, buffer: Array) -> None:
        if len(reader.reads) >= 4 and once.acquire(blocking=False):
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1 if once.locked() else 0.001)  # a busy machine may take its time to stop the workers
        original(name, offset, buffer)

    reader.read_into = slow  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        execute_anew(plan, reader, tmp_path, Budget(2, 400_000))
    assert len(reader.reads) < 120  # of 160
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("msport-convert")]


def test_at_most_a_shard_a_worker_is_open(packed_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(packed_sample, max_shard_size="20kB")
    from msport.convert import shard_sink as module

    open_now, most = set(), 0
    writer = module.ShardWriter

    class Watched(writer):  # type: ignore[misc, valid-type]
        def __init__(self, path: Path, layout: object, *, resume: bool) -> None:
            nonlocal most
            super().__init__(path, layout, resume=resume)
            open_now.add(path)
            most = max(most, len(open_now))

        def close(self) -> None:
            super().close()
            open_now.discard(self.path)

    monkeypatch.setattr(module, "ShardWriter", Watched)
    run(plan, packed_sample, tmp_path, make_budget(plan.tensors, 10**9, 2))
    assert len(plan.shards) > 20
    assert most <= 3
    assert not open_now


def test_an_arena_too_small_for_the_smallest_slab_is_enlarged(tmp_path: Path) -> None:
    values = np.arange(100_000, dtype=np.float32)
    _, reader = memory_plan(tmp_path, {"w": values})
    tensors = [as_it_is(info, "model.safetensors") for info in reader.tensors.values()]
    hashes = Workers(Budget(1, 1)).run("read back", tensors, reader)
    assert hashes == {"w": hashlib.sha256(values.tobytes()).hexdigest()}
