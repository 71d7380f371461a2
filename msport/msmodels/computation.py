"""Chooses the dtype of computation for a checkpoint on a device, and the weights that stay as they lie."""

from __future__ import annotations

import logging
from pathlib import Path

import mindspore as ms

from msport.architectures import ModelConfig, load_config
from msport.checkpoint.index import Checkpoint, open_checkpoint
from msport.checkpoint.manifest import read_manifest
from msport.device import PACKED
from msport.encodings import Encoding
from msport.errors import UsageError
from msport.msmodels import chips, ops
from msport.sizing.kept import kept_encodings, packed_names, stored_encodings

DTYPES = {"float32": ms.float32, "float16": ms.float16, "bfloat16": ms.bfloat16}

# The activations of these may exceed 65504, float16's largest number: the residual stream of gpt-oss-120b reaches
# 45000.
_OVERFLOW_IN_FLOAT16 = ("GptOssForCausalLM",)

_log = logging.getLogger(__name__)


def choose_computation(folder: Path, dtype: str | None) -> tuple[ModelConfig, str]:
    """The config of the checkpoint in `folder`, and the dtype of computation; see `load_model`."""
    read_manifest(folder)  # a folder without one is not a finished conversion
    config = load_config(folder)
    device: str = ms.get_context("device_target")
    if dtype == PACKED:
        _refuse_plain(config, folder)
        dtype = None
    return config, choose_dtype(dtype, device)


def choose_dtype(dtype: str | None, device: str | None = None, soc: str | None = None) -> str:
    """`dtype`, or for None the best of `device` (None: this machine's). Raises `UsageError` if the device does not
    support it.

    `soc` is MindSpore's name of an Ascend chip; None: the one in this machine.
    """
    device = device or ms.get_context("device_target")
    has_bfloat16 = device != "CPU"
    if device == "Ascend":
        has_bfloat16 = chips.has_bfloat16(chips.soc_version() if soc is None else soc)
    if dtype is None:
        return "float32" if device == "CPU" else "bfloat16" if has_bfloat16 else "float16"
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r} is not one of {', '.join((*DTYPES, PACKED))}")
    if dtype == "bfloat16" and device == "CPU":
        raise UsageError(
            "MindSpore has no bfloat16 kernels on CPU; load with dtype float32 (the checkpoint may stay bfloat16)"
        )
    if dtype == "bfloat16" and not has_bfloat16:
        raise UsageError("this Ascend chip has no bfloat16; load with dtype float16 (the checkpoint may stay bfloat16)")
    return dtype


def keep(config: ModelConfig, checkpoint: Checkpoint, dtype: str, operators: str) -> dict[str, Encoding]:
    """The weights of `checkpoint` that `operators` take as they lie if they compute in `dtype`; the others are decoded
    to it.
    """
    stored = stored_encodings(config, checkpoint.tensors)
    return kept_encodings(config, stored, dtype, ops.products(operators))


def _refuse_plain(config: ModelConfig, folder: Path) -> None:
    """Raises `UsageError` for a checkpoint without packed weights."""
    with open_checkpoint(folder) as checkpoint:
        stored = stored_encodings(config, checkpoint.tensors)
    if not packed_names(stored):
        raise UsageError(
            f"{folder}: holds no packed experts, so dtype {PACKED} does not apply;"
            f" convert gpt-oss with msport convert --dtype {PACKED}, or choose another dtype"
        )


def warn_of_overflow(config: ModelConfig, dtype: str) -> None:
    """Logs a warning if the model is known to exceed the range of `dtype`."""
    if dtype == "float16" and config.architecture in _OVERFLOW_IN_FLOAT16:
        _log.warning(
            "%s overflows float16 (its activations exceed 65504): logits may not be finite; use bfloat16 or float32",
            config.architecture,
        )
