"""What the device is, what it computes in, and how much memory it has. `describe` runs in a child process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msport.child import Progress

# No dtype to compute in: experts stay packed in memory, and the rest is the device's best.
PACKED = "mxfp4"


@dataclass(frozen=True, slots=True)
class Device:
    """Where MindSpore computes.

    `memory` is the device's own in bytes; None where it has none, or does not tell. `dtype` is its best, and
    `refusals` says of each dtype that it cannot compute in why.
    """

    target: str
    memory: int | None
    dtype: str
    refusals: Mapping[str, str]

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Device:
        return cls(**document)


def describe(dtypes: Sequence[str], *, progress: Progress) -> dict[str, Any]:
    """The fields of `Device`, with refusals among `dtypes`; an unknown dtype is refused, too."""
    progress("device", 0, 1)
    import mindspore as ms

    from msport.errors import UsageError
    from msport.msmodels.loading import choose_dtype

    target: str = ms.get_context("device_target")
    refusals = {}
    for dtype in dtypes:
        if dtype == PACKED:
            continue
        try:
            choose_dtype(dtype, target)
        except UsageError as error:
            refusals[dtype] = str(error)
    return {
        "target": target,
        "memory": own_memory(target),
        "dtype": choose_dtype(None, target),
        "refusals": refusals,
    }


def own_memory(target: str) -> int | None:
    """Bytes of the device that MindSpore computes on; None for the CPU, and where it does not tell."""
    if target == "CPU":
        return None
    import mindspore as ms

    try:
        return int(ms.hal.get_device_properties(0, target).total_memory)
    except (AttributeError, RuntimeError, ValueError, TypeError):
        return None
