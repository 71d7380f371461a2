"""Whether both sides of a verdict fit in memory."""

from __future__ import annotations

from math import prod
from pathlib import Path

from msport.architectures import ModelConfig
from msport.checkpoint import Manifest, open_checkpoint
from msport.checkpoint.dtypes import BFLOAT16, FLOAT8_E4M3FN, FLOAT16, FLOAT32
from msport.sizing.costs import Costs
from msport.sizing.fit import estimate, estimate_reference, estimate_verdict, only_portable
from msport.sizing.free import available_memory
from msport.validate.precision import holds

# Dtypes whose values may be rounded when stored in another dtype.
_ROUNDED = (FLOAT32, FLOAT16, BFLOAT16, FLOAT8_E4M3FN)


def must_stream(
    config: ModelConfig,
    dtype: str,
    tokens: int,
    reference_dtype: str | None,
    *,
    on_device: bool = False,
    available: int | None = None,
) -> bool:
    """Whether the port (`config` in `dtype`) or the reference does not fit in memory as a whole for prompts of `tokens`
    tokens.

    `reference_dtype` is None if the reference does not run. `on_device`: the port computes on another device than the
    CPU. `available` are the free bytes of the host, None: what is free now.
    """
    portable = only_portable(on_device=on_device)
    own = estimate(Costs(config, dtype), tokens, 1, portable=portable, on_device=on_device, every_logit=True)
    reference = None if reference_dtype is None else estimate_reference(config, reference_dtype, tokens)
    return estimate_verdict(own, reference) > (available_memory() if available is None else available)


def weight_dtype(folder: Path) -> str:
    """The floating-point dtype of most weights in `folder`; bfloat16 if there is none."""
    elements: dict[str, int] = {}
    with open_checkpoint(folder) as checkpoint:
        for tensor in checkpoint.tensors.values():
            if tensor.dtype in (FLOAT32, FLOAT16, BFLOAT16):
                elements[tensor.dtype.name] = elements.get(tensor.dtype.name, 0) + prod(tensor.shape)
    return max(elements, key=lambda name: elements[name], default="bfloat16")


def narrowed_to(source: Path, manifest: Manifest) -> str | None:
    """The dtype to which the conversion of `source` rounded weights; None if it kept every value.

    MXFP4 does not count as a floating-point dtype here, because bfloat16 holds its values exactly.
    """
    stored = {record.dtype.name for record in manifest.tensors.values()}
    with open_checkpoint(source) as checkpoint:
        found = {tensor.dtype for tensor in checkpoint.tensors.values() if tensor.dtype in _ROUNDED}
    kept = all(any(holds(name, dtype.name) for name in stored) for dtype in found)
    return None if kept else manifest.dtype
