"""What ``quantization_config`` of a config.json says, and which of it msport reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msport.encodings import fp8, quantization_config
from msport.errors import UnsupportedError, quote

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


def _accept(fields: Mapping[str, Any], where: Path) -> None:
    pass


def _check_fp8(fields: Mapping[str, Any], where: Path) -> None:
    block = fields.get("weight_block_size")
    if block != _FP8_BLOCK:
        raise UnsupportedError(f"{where}: FP8 with weight_block_size {quote(block)}; msport reads {_FP8_BLOCK} alone")


METHODS: dict[str, Callable[[Mapping[str, Any], Path], None]] = {
    "mxfp4": _accept,
    "fp8": _check_fp8,
    **dict.fromkeys(quantization_config.METHODS, _accept),  # `read_quantization` reads more of these
}
