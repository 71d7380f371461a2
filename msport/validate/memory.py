"""Whether a model fits in memory."""

from __future__ import annotations

from math import prod
from pathlib import Path

from msport.architectures import ARCHITECTURES, ModelConfig
from msport.checkpoint import open_checkpoint
from msport.memory import available_memory

_ITEMSIZE = {"float32": 4, "float16": 2, "bfloat16": 2}
# Beside the weights: caches, activations, the graph compiler.
_SLACK_BYTES = 2 * 10**9


def weight_nbytes(config: ModelConfig, dtype: str) -> int:
    """Bytes of all weights of `config` in `dtype`; experts that stay packed take what they take."""
    weights = ARCHITECTURES[config.architecture].weights(config)
    return sum(prod(weight.shape) * (1 if weight.packed else _ITEMSIZE[dtype]) for weight in weights)


def too_large(nbytes: int, available: int | None = None) -> bool:
    """Whether so many bytes of weights would not fit in `available` bytes (None: what is free now).

    The two sides stand in memory one after the other: `nbytes` are the larger one's.
    """
    available = available_memory() if available is None else available
    return nbytes + _SLACK_BYTES > available


def weight_dtype(folder: Path) -> str:
    """The dtype of most of the weights in `folder` that are floating, bfloat16 where there is none."""
    elements: dict[str, int] = {}
    with open_checkpoint(folder) as checkpoint:
        for tensor in checkpoint.tensors.values():
            if tensor.dtype.name in _ITEMSIZE:
                elements[tensor.dtype.name] = elements.get(tensor.dtype.name, 0) + prod(tensor.shape)
    return max(elements, key=lambda name: elements[name], default="bfloat16")
