"""Runs all checks and collects their results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msport import __version__
from msport.device import PACKED, Device
from msport.doctor.ascend import check_cann, check_npus, find_ascend, is_there
from msport.doctor.check import Check, Status
from msport.doctor.device import check_device, check_dtype, check_multiply, check_train
from msport.doctor.environment import describe_environment
from msport.doctor.machine import check_compiler, check_disk, check_memory
from msport.doctor.packages import check_packages
from msport.report.document import to_json, utc_now
from msport.sizing.free import available_memory

if TYPE_CHECKING:
    from msport.doctor.fitting import Fit  # needs a working NumPy

SCHEMA = "msport.doctor/2"
TIMEOUT = 120.0
MAX_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All checks in their order, and, if a model was given, how it fits.

    `date` is the time of the checks, in UTC.
    """

    checks: tuple[Check, ...]
    fit: Fit | None = None
    date: str = field(default_factory=utc_now)

    @property
    def passed(self) -> bool:
        """Whether no check failed; there may be warnings."""
        return all(check.status is not Status.FAIL for check in self.checks)

    def to_document(self) -> dict[str, Any]:
        """As JSON values; docs/schemas/doctor.schema.json describes them."""
        checks = [asdict(check) for check in self.checks]
        fit = None if self.fit is None else self.fit.to_document()
        made = {"date": self.date, "msport": __version__}
        return {"schema": SCHEMA, **made, "passed": self.passed, "checks": checks, "fit": fit}

    def to_json(self) -> str:
        """`to_document` as one JSON text."""
        return to_json(self.to_document())

    @property
    def counts(self) -> str:
        """The numbers of checks that passed, warned and failed, as text."""
        found = {status: sum(check.status is status for check in self.checks) for status in Status}
        return ", ".join(f"{count} {status.value}" for status, count in found.items())

    def __str__(self) -> str:
        return "\n".join((*map(str, self.checks), self.counts))


def diagnose(
    folder: str | Path | None = None,
    *,
    dtype: str | None = None,
    max_length: int = MAX_LENGTH,
    batch: int = 1,
    timeout: float = TIMEOUT,
    report: Callable[[Check], None] = lambda check: None,
) -> Diagnosis:
    """Checks this machine and, if `folder` is given, whether that converted checkpoint fits it.

    `dtype`, `max_length` (tokens) and `batch` (sequences) are those with which the model would be loaded. Every problem
    becomes a failed check. A check that takes more than `timeout` seconds fails. `report` is called with each finished
    check.
    """
    checks: list[Check] = []

    def note(made: Iterable[Check]) -> None:
        for check in made:
            checks.append(check)
            report(check)

    available = available_memory()
    note(check_packages())
    note([check_memory(available), check_disk(Path())])
    kernels = check_compiler(timeout)
    note([kernels])
    device, found = check_device(dtype, timeout)
    note([found])
    note(_check_ascend(device, timeout))
    note(_check_computing(device, dtype, timeout))
    if folder is None:
        return Diagnosis(tuple(checks))
    from msport.doctor.checkpoint import check_files
    from msport.doctor.fitting import Run, check_fit, choose_memory  # imported here, because they need a working NumPy

    found, _ = check_files(Path(folder))
    note([found])
    if not Path(folder).is_dir():
        return Diagnosis(tuple(checks))
    memory = choose_memory(device, available, compiled=kernels.status is Status.PASS)
    made, fit = check_fit(Path(folder), Run(dtype or memory.dtypes[0], batch, max_length), memory)
    note(made)
    return Diagnosis(tuple(checks), fit)


def _check_ascend(device: Device | None, timeout: float) -> Iterator[Check]:
    ascend = find_ascend()
    yield check_cann(ascend, None if device is None else device.target)
    if is_there(ascend):
        yield check_npus(ascend, timeout)
    yield from describe_environment(timeout)


def _check_computing(device: Device | None, dtype: str | None, timeout: float) -> Iterator[Check]:
    if device is None:
        return
    if dtype is not None and dtype != PACKED:
        yield check_dtype(device, dtype)
    yield check_multiply(timeout)
    yield check_train(timeout)
