"""One thing examined, and all of them together."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from msport import __version__
from msport.report.document import to_json, utc_now

if TYPE_CHECKING:
    from msport.doctor.fitting import Fit  # which needs a working NumPy

SCHEMA = "msport.doctor/2"

_NAME_WIDTH = len("training step")


class Status(str, Enum):
    """`WARN` does not stop a user from working; `FAIL` does."""

    PASS = "pass"  # noqa: S105  not a password
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """What was examined, what was found, and, unless it passed, what to do about it."""

    name: str
    status: Status
    finding: str
    remedy: str | None = None

    def __str__(self) -> str:
        line = f"{self.status.value}  {self.name:<{_NAME_WIDTH}}  {self.finding}"
        return line if self.remedy is None else f"{line}\n{'':{_NAME_WIDTH + 6}}  -> {self.remedy}"


def passed(name: str, finding: str) -> Check:
    return Check(name, Status.PASS, finding)


def warned(name: str, finding: str, remedy: str) -> Check:
    return Check(name, Status.WARN, finding, remedy)


def failed(name: str, finding: str, remedy: str) -> Check:
    return Check(name, Status.FAIL, finding, remedy)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All checks, in the order in which they were made, and, if a model was given, how it fits.

    `date` is when they were made, in UTC.
    """

    checks: tuple[Check, ...]
    fit: Fit | None = None
    date: str = field(default_factory=utc_now)

    @property
    def passed(self) -> bool:
        """Whether no check failed; warnings may remain."""
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
        """How many checks passed, warned and failed, as text."""
        found = {status: sum(check.status is status for check in self.checks) for status in Status}
        return ", ".join(f"{count} {status.value}" for status, count in found.items())

    def __str__(self) -> str:
        return "\n".join((*map(str, self.checks), self.counts))
