"""What the device is, what it computes in, and how much memory it has. `describe` runs in a child process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msport.progress import Progress, Step

# No dtype to compute in: experts stay packed in memory, and the rest is the device's best.
PACKED = "mxfp4"


@dataclass(frozen=True, slots=True)
class Device:
    """Where MindSpore computes.

    `memory` is the device's own in bytes, `free` what nobody has taken of it; None where it has none, or does not tell.
    `dtype` is its best, and `refusals` says of each dtype that it cannot compute in why.
    """

    target: str
    memory: int | None
    free: int | None
    dtype: str
    refusals: Mapping[str, str]


def describe(dtypes: Sequence[str], *, progress: Progress) -> dict[str, Any]:
    """The fields of `Device`, with refusals among `dtypes`; an unknown dtype is refused, too."""
    progress(Step("device"))
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
        **own_memory(target),
        "dtype": choose_dtype(None, target),
        "refusals": refusals,
    }


def own_memory(target: str) -> dict[str, int | None]:
    """Bytes that MindSpore's device has, ``memory``, and has ``free``; None for the CPU, and where it does not tell."""
    if target == "CPU":
        return {"memory": None, "free": None}
    import mindspore as ms

    ms.ops.zeros((1,), ms.float32).asnumpy()  # an NPU says 0 until the first operator has initialised it
    try:
        found = ms.hal.get_device_properties(0, target)  # of the current device, whatever the number
        return {"memory": int(found.total_memory) or None, "free": int(found.free_memory) or None}
    except (AttributeError, RuntimeError, ValueError, TypeError):
        return {"memory": None, "free": None}
