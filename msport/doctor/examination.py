"""All checks, one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from msport.bench.machine import available_memory
from msport.doctor.ascend import check_cann, check_npus, find_ascend
from msport.doctor.check import Check, Diagnosis
from msport.doctor.device import Device, ask_device, check_dtype, check_multiply, check_train
from msport.doctor.facts import collect_facts
from msport.doctor.machine import check_compiler, check_disk, check_memory
from msport.doctor.packages import check_packages

TIMEOUT = 120.0
MAX_LENGTH = 4096
PACKED = "mxfp4"


def diagnose(
    folder: str | Path | None = None,
    *,
    dtype: str | None = None,
    max_length: int = MAX_LENGTH,
    batch: int = 1,
    timeout: float = TIMEOUT,
    report: Callable[[Check], None] | None = None,
) -> Diagnosis:
    """Examines this machine and, if `folder` is given, whether that converted checkpoint fits it.

    `dtype`, `max_length` and `batch` are those that the model would be loaded with. Whatever is wrong becomes a failed
    check; `timeout` is the seconds after which a check that hangs has failed; `report` is called with each when made.
    """
    checks: list[Check] = []
    for check in _examine(None if folder is None else Path(folder), dtype, max_length, batch, timeout):
        checks.append(check)
        if report is not None:
            report(check)
    return Diagnosis(tuple(checks))


def _examine(folder: Path | None, dtype: str | None, max_length: int, batch: int, timeout: float) -> Iterator[Check]:
    yield from check_packages()
    computed = None if dtype == PACKED else dtype
    available = available_memory()
    yield check_memory(available)
    yield check_disk(Path())
    yield check_compiler(timeout)
    device, check = ask_device(computed, timeout)
    yield check
    ascend = find_ascend()
    yield check_cann(ascend, None if device is None else device.target)
    yield check_npus(ascend, timeout)
    yield from collect_facts(timeout)
    if device is not None:
        yield from _check_device(device, computed, timeout)
    if folder is not None:
        yield from _check_folder(folder, device, dtype, max_length, batch, available)


def _check_folder(
    folder: Path, device: Device | None, dtype: str | None, max_length: int, batch: int, available: int
) -> Iterator[Check]:
    from msport.doctor.checkpoint import Memory, check_files, check_fit  # here, for it needs a working NumPy

    yield check_files(folder)
    if folder.is_dir():
        packed = dtype == PACKED
        best = "float32" if device is None else device.dtype
        chosen = dtype if dtype and not packed else best
        portable = os.environ.get("MSPORT_OPS") == "portable" or os.environ.get("MSPORT_NATIVE") == "0"
        if device is None or device.memory is None:
            memory = Memory(available, ("float32", "float16"), portable=portable)
        else:
            memory = Memory(device.memory, tuple(dict.fromkeys((best, "float16"))), on_device=True, portable=portable)
        yield from check_fit(folder, chosen, max_length, batch, memory, packed=packed)


def _check_device(device: Device, dtype: str | None, timeout: float) -> Iterator[Check]:
    if dtype is not None:
        yield check_dtype(device, dtype)
    yield check_multiply(timeout)
    yield check_train(timeout)
