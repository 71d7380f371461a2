"""All checks, one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msport.doctor.ascend import check_cann, check_npus, find_ascend, is_there
from msport.doctor.check import Check, Diagnosis
from msport.doctor.device import Device, ask_device, check_dtype, check_multiply, check_train
from msport.doctor.facts import collect_facts
from msport.doctor.machine import check_compiler, check_disk, check_memory
from msport.doctor.packages import check_packages
from msport.sizing.free import available_memory

if TYPE_CHECKING:
    from msport.doctor.fitting import Fit

Note = Callable[[Check], None]

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
    report: Note | None = None,
) -> Diagnosis:
    """Examines this machine and, if `folder` is given, whether that converted checkpoint fits it.

    `dtype`, `max_length` and `batch` are those that the model would be loaded with. Whatever is wrong becomes a failed
    check; `timeout` is the seconds after which a check that hangs has failed; `report` is called with each when made.
    """
    checks: list[Check] = []

    def note(check: Check) -> None:
        checks.append(check)
        if report is not None:
            report(check)

    device, available = _examine_machine(None if dtype == PACKED else dtype, timeout, note)
    fit = None
    if folder is not None:
        fit = _examine_folder(Path(folder), device, available, dtype, max_length, batch, note)
    return Diagnosis(tuple(checks), fit)


def _examine_machine(dtype: str | None, timeout: float, note: Note) -> tuple[Device | None, int]:
    """The device, None if it cannot be asked, and the bytes that are free on the host."""
    for check in check_packages():
        note(check)
    available = available_memory()
    note(check_memory(available))
    note(check_disk(Path()))
    note(check_compiler(timeout))
    device, check = ask_device(dtype, timeout)
    note(check)
    ascend = find_ascend()
    note(check_cann(ascend, None if device is None else device.target))
    if is_there(ascend):
        note(check_npus(ascend, timeout))
    for check in collect_facts(timeout):
        note(check)
    if device is not None:
        if dtype is not None:
            note(check_dtype(device, dtype))
        note(check_multiply(timeout))
        note(check_train(timeout))
    return device, available


def _examine_folder(
    folder: Path, device: Device | None, available: int, dtype: str | None, max_length: int, batch: int, note: Note
) -> Fit | None:
    from msport.doctor.checkpoint import check_files
    from msport.doctor.fitting import Memory, check_fit  # here, for it needs a working NumPy

    check, manifest = check_files(folder)
    note(check)
    if not folder.is_dir():
        return None
    holds_packed = manifest is not None and manifest.dtype == PACKED
    packed = dtype == PACKED or (dtype is None and holds_packed)  # as load_model has it
    best = "float32" if device is None else device.dtype
    chosen = dtype if dtype and dtype != PACKED else best
    portable = os.environ.get("MSPORT_OPS") == "portable" or os.environ.get("MSPORT_NATIVE") == "0"
    if device is None or device.target == "CPU":
        memory = Memory(available, ("float32", "float16"), portable=portable)
    else:
        memory = Memory(device.free, tuple(dict.fromkeys((best, "float16"))), on_device=True, portable=portable)
    made, fit = check_fit(folder, chosen, max_length, batch, memory, packed=packed, may_be_packed=holds_packed)
    for check in made:
        note(check)
    return fit
