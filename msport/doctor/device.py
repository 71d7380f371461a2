"""Checks the device in child processes, because a broken MindSpore may crash or hang."""

from __future__ import annotations

from msport.child import call_in_child
from msport.device import Device, ask_device
from msport.doctor.check import Check, failed, passed
from msport.errors import MsportError
from msport.sizing.units import format_size

# float32 rounds to 1e-7; an NPU may use the shorter mantissa of HF32.
TOLERANCE = 1e-3

_REINSTALL = (
    "install MindSpore again in a clean environment: pip install 'mindspore>=2.10,<2.11' 'numpy<2';"
    " if it is only slow, raise --timeout"
)


def check_device(dtype: str | None, timeout: float) -> tuple[Device | None, Check]:
    """Imports MindSpore; returns the check and the device (None if that fails), including its choice for `dtype`."""
    try:
        device = ask_device([dtype] if dtype else [], task="importing MindSpore", timeout=timeout)
    except MsportError as error:
        return None, failed("device", str(error), _REINSTALL)
    count = "" if device.on_host else f", one of {device.count}"
    return device, passed("device", f"{device.target} {device.number}{count}, best dtype {device.dtype}{_room(device)}")


def check_dtype(device: Device, dtype: str) -> Check:
    """Whether the device supports `dtype`."""
    if dtype in device.refusals:
        return failed(
            "dtype", device.refusals[dtype], f"leave --dtype out: {device.dtype} is what this device does best"
        )
    return passed("dtype", f"{device.target} computes in {dtype}")


def check_multiply(timeout: float) -> Check:
    """A matrix product in graph mode, compared with NumPy's."""
    return _check_error("graph mode", "multiply", "a matrix product", timeout)


def check_train(timeout: float) -> Check:
    """A forward and a backward step in graph mode, compared with NumPy's gradients."""
    return _check_error("training step", "train", "a forward and backward step", timeout)


def _check_error(name: str, function: str, task: str, timeout: float) -> Check:
    try:
        error: float = call_in_child(f"msport.doctor.compute:{function}", {}, task=task, timeout=timeout)
    except MsportError as problem:
        return failed(name, str(problem), _REINSTALL)
    if not error <= TOLERANCE:  # NaN fails too
        return failed(name, f"{task} is wrong: relative error {error:.1e}", "check the device's driver and CANN")
    return passed(name, f"{task} agrees with NumPy, relative error {error:.1e}")


def _room(device: Device) -> str:
    if device.memory is None:
        return ""
    free = "" if device.free is None else f", {format_size(device.free)} of it free"
    return f", {format_size(device.memory)}{free}"
