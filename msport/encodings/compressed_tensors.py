"""Checkpoints of compressed-tensors (LLM Compressor, vLLM) in the format ``pack-quantized``, with codes of 4 or 8 bits.

A linear layer ``X`` of ``[outputs, inputs]`` is ``X.weight_packed`` int32 ``[outputs, inputs * bits / 32]``, the first
input in the lowest bits of a word, each code plus half the range; ``X.weight_scale`` ``[outputs, groups]``, one group
if channel-wise; and ``X.weight_shape`` ``[2]``. An asymmetric one has ``X.weight_zero_point``, packed along the outputs
in the same way, int32 ``[outputs * bits / 32, groups]``, or unpacked, int8 ``[outputs, groups]``. With ``actorder:
group`` there is ``X.weight_g_idx`` ``[inputs]``, the group of each input, or -1 everywhere, which means ``i // group``.
A value is ``(code - zero point) * scale``.

Sources: ``compressors/pack_quantized`` and ``quantization/lifecycle/forward.py`` of compressed-tensors 0.20, and of 0.9
for act-order, which later versions do not have. In the scales' dtype every bit is as theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from msport.checkpoint.dtypes import BFLOAT16, FLOATING, INT8, INT32, INT64, Array, DType
from msport.checkpoint.layout import TensorInfo
from msport.encodings import packed_words
from msport.encodings.encoding import Part, Shape
from msport.encodings.gptq import BITS, SUFFIX
from msport.encodings.grouped import Grouped
from msport.encodings.packed_words import WORD_BITS, PackedMatrix, Regroupable
from msport.errors import CheckpointError, UnsupportedError, quote

_PACKED, _SCALES, _SHAPE, _ZEROS, _INDEX = (
    f"weight_{name}" for name in ("packed", "scale", "shape", "zero_point", "g_idx")
)


@dataclass(frozen=True, slots=True)
class CompressedTensors(Regroupable):
    """A layer in groups of `group` inputs.

    `zero_dtype` is that of the zero points: int32 if packed, int8 if not, None if there are none. `act_order` says that
    there is a ``weight_g_idx``.
    """

    bits: int
    group: int
    scale_dtype: DType = BFLOAT16
    zero_dtype: DType | None = None
    act_order: bool = False
    name: str = "compressed-tensors"

    def parts(self, weight: str, shape: Shape) -> tuple[Part, ...]:
        """``weight_packed``, ``weight_scale``, ``weight_shape``, and the zero points and ``weight_g_idx`` if any."""
        outputs, inputs = shape
        layer, groups, codes = weight.removesuffix(SUFFIX), inputs // self.group, WORD_BITS // self.bits
        found = [
            Part(f"{layer}.{_PACKED}", (outputs, inputs // codes), (INT32,)),
            Part(f"{layer}.{_SCALES}", (outputs, groups), packed_words.as_floats(self.scale_dtype)),
            Part(f"{layer}.{_SHAPE}", (2,), (INT64, INT32)),
        ]
        if self.zero_dtype is not None:
            rows = outputs if self.zero_dtype == INT8 else -(-outputs // codes)
            found.append(Part(f"{layer}.{_ZEROS}", (rows, groups), (self.zero_dtype,)))
        if self.act_order:
            found.append(Part(f"{layer}.{_INDEX}", (inputs,), (INT32, INT64)))
        return tuple(found)

    def rows(self, part: int, begin: int, end: int) -> tuple[int, int] | None:
        """Each output has its own codes and scales; packed zero points are shared words; the rest is needed whole."""
        if part == 3 and self.zero_dtype == INT32:
            codes = WORD_BITS // self.bits
            return begin // codes, -(-end // codes)
        return (begin, end) if part < 2 or (part == 3 and self.zero_dtype == INT8) else None

    def grouped(self) -> Grouped:
        return Grouped(self.bits, self.group, self.scale_dtype, self.zero_dtype is not None, self.act_order)

    def read(self, parts: Sequence[Array], first: int, end: int | None, where: str) -> PackedMatrix:
        packed, scales, shape, *others = parts
        inputs = packed.shape[1] * WORD_BITS // self.bits
        outputs, columns = (int(size) for size in shape)
        if columns != inputs or outputs < first + len(packed):
            raise CheckpointError(
                f"{where}: weight_shape says {[outputs, columns]}, weight_packed holds {[len(packed), inputs]};"
                " download the model again"
            )
        zeros = others.pop(0) if self.zero_dtype is not None else None
        index = others.pop(0) if self.act_order else None
        return PackedMatrix(
            bits=self.bits,
            group=self.group,
            scale_dtype=self.scale_dtype,
            inputs=inputs,
            codes=lambda begin, end: packed_words.signed_codes(packed[begin:end], self.bits),
            scales=scales,
            zero_points=None if zeros is None else self._zero_points(zeros, first, len(packed)),
            group_of_input=None if index is None or (index == -1).all() else index,
        )

    def _zero_points(self, zeros: Array, first_row: int, outputs: int) -> Array:
        if self.zero_dtype == INT8:
            return zeros.astype(np.int16)
        numbers = packed_words.unpack_words(zeros.T, self.bits).T.astype(np.int16)
        skipped = first_row % (WORD_BITS // self.bits)
        values: Array = numbers[skipped : skipped + outputs] - (1 << self.bits - 1)
        return values


def detect(weight: str, shape: Shape, tensors: Mapping[str, TensorInfo]) -> CompressedTensors | None:
    """compressed-tensors if there is a ``weight_packed``.

    Raises CheckpointError for groups that do not divide the inputs, UnsupportedError for other than 4 or 8 bits.
    """
    layer = weight.removesuffix(SUFFIX)
    packed, scales = tensors.get(f"{layer}.{_PACKED}"), tensors.get(f"{layer}.{_SCALES}")
    if layer == weight or packed is None or len(shape) != 2:
        return None
    bits = packed.shape[-1] * WORD_BITS / shape[1] if packed.shape else 0
    if bits not in BITS:
        raise UnsupportedError(
            f"tensor {quote(packed.name)} holds codes of {bits:.4g} bits; msport reads 4 and 8: take another"
            " quantization of the model"
        )
    groups = scales.shape[1] if scales and len(scales.shape) == 2 else 1
    group = packed_words.group_of(f"{layer}.{_SCALES}", groups, shape[1])
    dtype = scales.dtype if scales and scales.dtype in FLOATING else BFLOAT16
    zeros = tensors.get(f"{layer}.{_ZEROS}")
    zero_dtype = None if zeros is None else (INT8 if zeros.dtype == INT8 else INT32)
    return CompressedTensors(int(bits), group, dtype, zero_dtype, f"{layer}.{_INDEX}" in tensors)
