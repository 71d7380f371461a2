"""What ``quantization_config`` of a config.json says, and which of it msport reads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from msport.checkpoint import fp8
from msport.errors import CheckpointError, UnsupportedError, quote

# Tools write decoded copies of these and leave config.json as it was.
_OFTEN_DECODED = ("mxfp4", "fp8")
_FP8_BLOCK = [fp8.BLOCK, fp8.BLOCK]


def check_method(quantization: Any, where: Path) -> None:
    """Raises UnsupportedError, which names the file `where`, if weights quantised so would not be computed exactly."""
    if quantization is None:
        return
    fields = quantization if isinstance(quantization, Mapping) else {}
    method = fields.get("quant_method")
    if method not in METHODS:
        raise UnsupportedError(f"{where}: quantized with {quote(method)}; msport reads {', '.join(METHODS)}")
    METHODS[method](fields, where)


def check_use(quantization: Any, found: Collection[str], folder: Path) -> None:
    """Raises CheckpointError if ``config.json`` in `folder` names a method in which no weight is stored.

    `found` are the names of the weights' encodings.
    """
    method = None if quantization is None else quantization["quant_method"]
    if method is not None and method not in (*found, *_OFTEN_DECODED):
        raise CheckpointError(
            f"{folder}: config.json says {quote(method)}, but no weight is stored so; download the model again, or"
            " remove quantization_config from config.json"
        )


def _accept(fields: Mapping[str, Any], where: Path) -> None:
    pass


def _check_fp8(fields: Mapping[str, Any], where: Path) -> None:
    block = fields.get("weight_block_size")
    if block != _FP8_BLOCK:
        raise UnsupportedError(f"{where}: FP8 with weight_block_size {quote(block)}; msport reads {_FP8_BLOCK} alone")


METHODS: dict[str, Callable[[Mapping[str, Any], Path], None]] = {"mxfp4": _accept, "fp8": _check_fp8}
