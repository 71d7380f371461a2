"""The device on which MindSpore computes: its kind, its dtypes, and its memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msport.child import call_in_child
from msport.errors import UsageError
from msport.progress import Progress, Step

# No dtype to compute in, but the device's best, for a checkpoint with packed weights.
PACKED = "mxfp4"


@dataclass(frozen=True, slots=True)
class Device:
    """The device on which MindSpore computes: number `number` of `count` devices of MindSpore's type `target`.

    `memory` is the size of its own memory in bytes, `free` the unused part; None if it has no memory of its own or does
    not report it. `dtype` is its best dtype. `refusals` maps each unsupported dtype to the reason.
    """

    target: str
    number: int
    count: int
    memory: int | None
    free: int | None
    dtype: str
    refusals: Mapping[str, str]

    @property
    def on_host(self) -> bool:
        """Whether it computes in the host's memory, as the CPU does."""
        return self.target == "CPU"


def ask_device(
    dtypes: Sequence[str], *, task: str, timeout: float | None = None, progress: Progress | None = None
) -> Device:
    """The device, and the `dtypes` that it does not support. Asks in a separate process, because MindSpore may crash or
    hang.

    Raises `MsportError`, which names `task`, if that process fails or takes more than `timeout` seconds.
    """
    arguments = {"dtypes": list(dtypes)}
    function = "msport.device:describe"
    return Device(**call_in_child(function, arguments, task=task, timeout=timeout, progress=progress))


def describe(dtypes: Sequence[str], *, progress: Progress) -> dict[str, Any]:
    """The fields of `Device`, with refusals for `dtypes`; an unknown dtype is refused too. Runs in a child process."""
    progress(Step("device"))
    import mindspore as ms

    from msport.msmodels.computation import choose_dtype

    target: str = ms.get_context("device_target")
    refusals = {}
    for dtype in dtypes:
        if dtype == PACKED:
            continue
        try:
            choose_dtype(dtype, target)
        except UsageError as error:
            refusals[dtype] = str(error)
    memory, free = own_memory(target)
    return {
        "target": target,
        "number": ms.get_context("device_id"),
        "count": ms.hal.device_count(target),
        "memory": memory,
        "free": free,
        "dtype": choose_dtype(None, target),
        "refusals": refusals,
    }


def own_memory(target: str) -> tuple[int | None, int | None]:
    """Total and free bytes of the memory of MindSpore's device `target`; None for the CPU, or if unknown."""
    if target == "CPU":
        return None, None
    import mindspore as ms

    ms.ops.zeros((1,), ms.float32).asnumpy()  # an NPU says 0 until the first operator has initialised it
    try:
        found = ms.hal.get_device_properties(0, target)  # of the current device, for any number
        return int(found.total_memory) or None, int(found.free_memory) or None
    except (AttributeError, RuntimeError, ValueError, TypeError):
        return None, None
