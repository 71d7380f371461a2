"""The one list of encodings, and the search for that of a weight."""

from __future__ import annotations

from collections.abc import Mapping

from msport.checkpoint.layout import TensorInfo
from msport.encodings import awq, compressed_tensors, fp8, gptq, grouped, mxfp4, plain
from msport.encodings.encoding import Detect, Encoding, Shape

# Plain comes last, because the codes of FP8 have the name of a plain weight; only their scales tell them apart.
_DETECTORS: tuple[Detect, ...] = (
    mxfp4.detect,
    grouped.detect,
    gptq.detect,
    awq.detect,
    compressed_tensors.detect,
    fp8.detect,
    plain.detect,
)


def find(weight: str, shape: Shape, tensors: Mapping[str, TensorInfo]) -> Encoding | None:
    """The encoding in which `tensors` hold the matrix `weight` of `shape` ``[..., outputs, inputs]``, or None.

    An encoding is found by its first tensor. Others may be missing or misshapen: compare `tensors` with its parts.
    """
    for detect in _DETECTORS:
        if (found := detect(weight, shape, tensors)) is not None:
            return found
    return None
