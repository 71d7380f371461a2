"""The result of one check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

_NAME_WIDTH = len("training step")


class Status(str, Enum):
    """With `WARN` a user can still work; with `FAIL` not."""

    PASS = "pass"  # noqa: S105  not a password
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """The name of a check, its finding, and, unless it passed, the remedy."""

    name: str
    status: Status
    finding: str
    remedy: str | None = None

    def __str__(self) -> str:
        line = f"{self.status.value}  {self.name:<{_NAME_WIDTH}}  {self.finding}"
        return line if self.remedy is None else f"{line}\n{'':{_NAME_WIDTH + 6}}  -> {self.remedy}"


def passed(name: str, finding: str) -> Check:
    """A check that passed, with its finding."""
    return Check(name, Status.PASS, finding)


def warned(name: str, finding: str, remedy: str) -> Check:
    """A check that warns, with its finding and the remedy."""
    return Check(name, Status.WARN, finding, remedy)


def failed(name: str, finding: str, remedy: str) -> Check:
    """A check that failed, with its finding and the remedy."""
    return Check(name, Status.FAIL, finding, remedy)
