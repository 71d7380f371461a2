"""The values of a checkpoint's weights, computed a second time and independently of the converter and its encodings.

Each definition is written here anew: MXFP4 as ``code * 2^(scale - 127)`` by `ldexp`, FP8 from its fields, integers of
GPTQ, AWQ, compressed-tensors and msport's groups as ``(code - zero point) * scale``, bit field by bit field.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from msport.checkpoint import Checkpoint, DType
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, INT8
from msport.convert.matching import Match
from msport.encodings import Encoding, Fp8Blocks, Grouped, Plain
from msport.encodings.awq import Awq
from msport.encodings.compressed_tensors import CompressedTensors
from msport.encodings.gptq import Gptq

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

_E2M1 = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], np.float32)
# The outputs that share a word of AWQ, from its lowest bits on.
_AWQ_ORDER = np.array([0, 2, 4, 6, 1, 3, 5, 7])


def read_matrix(found: Match, expert: int | None, source: Checkpoint) -> Floats:
    """The matrix ``[outputs, inputs]`` of a weight, or of `expert` of a stack, as float32."""
    per_expert = found.form.per_expert
    if per_expert is None:
        return read_layer(found, 0, source, expert)
    layers = range((expert or 0) * per_expert, ((expert or 0) + 1) * per_expert)
    return np.concatenate([read_layer(found, layer, source) for layer in layers], axis=0)


def read_layer(found: Match, number: int, source: Checkpoint, expert: int | None = None) -> Floats:
    """Matrix `number` of the form of a weight, ``[outputs, inputs]`` as float32; of a stack, that of `expert`."""
    names = [part.name for part in found.parts[number]]
    rows = () if expert is None else (expert, expert + 1)
    arrays = [widen(source.read(name, *rows), source.tensors[name].dtype) for name in names]
    if expert is not None:
        arrays = [array[0] for array in arrays]
    values = decode(found.encodings[number], arrays)
    return values.T if expert is not None and isinstance(found.encodings[number], Plain) else values


def decode(encoding: Encoding, arrays: Sequence[Array]) -> Floats:
    """The matrix ``[outputs, inputs]`` in `encoding`, whose tensors are `arrays`; floating ones as float32."""
    if isinstance(encoding, Plain):
        return np.asarray(arrays[0], np.float32)
    if isinstance(encoding, Fp8Blocks):
        values, scales = decode_float8(arrays[0]), arrays[1]
        rows, columns = (np.arange(size) // 128 for size in values.shape)
        return np.asarray(values * scales[rows[:, None], columns], np.float32)
    if isinstance(encoding, Grouped):
        return decode_grouped(encoding, arrays)
    if isinstance(encoding, Gptq):
        return _decode_gptq(encoding, arrays)
    if isinstance(encoding, Awq):
        return _decode_awq(encoding, arrays)
    if isinstance(encoding, CompressedTensors):
        return _decode_compressed(encoding, arrays)
    return decode_mxfp4(arrays[0], arrays[1])


def decode_float8(codes: npt.NDArray[np.uint8]) -> Floats:
    """Codes of float8_e4m3fn as float32.

    Source: OCP 8-bit Floating Point 1.0. Four bits of exponent with bias 7, three of mantissa; no infinity, one NaN.
    """
    exponent, mantissa = codes >> 3 & 15, codes & 7
    normal = exponent > 0
    values = np.ldexp(mantissa + normal * np.float32(8), np.maximum(exponent, 1).astype(np.int32) - 10)
    values[codes & 127 == 127] = np.nan
    return np.asarray(np.where(codes & 128, -values, values), np.float32)


def decode_mxfp4(blocks: npt.NDArray[np.uint8], scales: npt.NDArray[np.uint8]) -> Floats:
    """Blocks ``[rows, groups, 16]`` and scales ``[rows, groups]`` as float32 ``[rows, groups * 32]``.

    Source: OCP Microscaling Formats (MX) 1.0. The low nibble is the even element; bit 3 is the sign; scale 255 is NaN.
    """
    codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*scales.shape, 32)
    values = np.where(codes & 8, -_E2M1[codes & 7], _E2M1[codes & 7])
    with np.errstate(over="ignore"):
        values = np.ldexp(values, scales[..., None].astype(np.int32) - 127)
    values[scales == 255] = np.nan
    return np.asarray(values.reshape(len(blocks), -1))


def signed_codes(codes: Array, bits: int) -> Floats:
    """The integers ``[rows, inputs]`` of a tensor of codes: int8, or two in a byte, that of the even input in its low
    half.
    """
    if bits == 8:
        return codes.astype(np.float32)
    nibbles = np.stack([codes % 16, codes // 16], axis=-1).reshape(len(codes), -1).astype(np.float32)
    return np.where(nibbles > 7, nibbles - 16, nibbles)


def decode_grouped(encoding: Grouped, arrays: Sequence[Array]) -> Floats:
    """``(code + offset) * scale``, the columns in the order of the inputs."""
    codes, scales, *others = arrays
    levels = signed_codes(codes, encoding.bits)
    if encoding.offsets:
        levels = levels + np.repeat(others[0], encoding.group, axis=1)
    values = levels * np.repeat(scales, encoding.group, axis=1)
    if encoding.order:
        sorted_values, values = values, np.empty_like(values)
        values[:, others[-1]] = sorted_values
    return np.asarray(values, np.float32)


def _decode_gptq(encoding: Gptq, arrays: Sequence[Array]) -> Floats:
    qweight, qzeros, scales, *index = arrays
    codes = _fields(qweight, encoding.bits)  # [inputs, outputs]
    zeros = _fields(qzeros.T, encoding.bits).T + encoding.zero_shift  # [groups, outputs]
    group_of_input = _groups_of(len(codes), encoding.group, index[0] if encoding.act_order else None)
    return np.asarray(((codes - zeros[group_of_input]) * scales[group_of_input]).T, np.float32)


def _decode_awq(encoding: Awq, arrays: Sequence[Array]) -> Floats:
    qweight, qzeros, scales = arrays
    codes, zeros = _awq_fields(qweight), _awq_fields(qzeros)
    group_of_input = _groups_of(len(codes), encoding.group, None)
    return np.asarray(((codes - zeros[group_of_input]) * scales[group_of_input]).T, np.float32)


def _decode_compressed(encoding: CompressedTensors, arrays: Sequence[Array]) -> Floats:
    packed, scales, _shape, *others = arrays
    half = np.float32(1 << encoding.bits - 1)
    codes = _fields(packed.T, encoding.bits).T - half  # [outputs, inputs]
    group_of_input = _groups_of(codes.shape[1], encoding.group, others[-1] if encoding.act_order else None)
    if encoding.zero_dtype == INT8:
        codes = codes - others[0].astype(np.float32)[:, group_of_input]
    elif encoding.zero_dtype is not None:
        codes = codes - (_fields(others[0], encoding.bits)[: len(codes)] - half)[:, group_of_input]
    return np.asarray(codes * scales[:, group_of_input], np.float32)


def _fields(words: Array, bits: int) -> Floats:
    """The numbers in int32 words ``[n, columns]``, the lowest bits first: ``[n * 32 / bits, columns]``."""
    shifts = np.arange(0, 32, bits, dtype=np.int64)
    numbers = (words.astype(np.int64)[:, None] >> shifts[:, None]) % (1 << bits)
    return numbers.reshape(-1, words.shape[1]).astype(np.float32)


def _awq_fields(words: Array) -> Floats:
    """The numbers in int32 words ``[n, outputs / 8]``: ``[n, outputs]``."""
    fields = _fields(words.T, 4).T.reshape(*words.shape, 8)
    numbers = np.empty_like(fields)
    numbers[..., _AWQ_ORDER] = fields
    return numbers.reshape(len(words), -1)


def _groups_of(inputs: int, group: int, index: Array | None) -> Array:
    if index is None or (index < 0).all():
        return np.arange(inputs) // group
    return index.astype(np.int64)


def widen(array: Array, dtype: DType) -> Array:
    """Converts storage form to float32 exactly; integers stay unchanged."""
    if dtype == BFLOAT16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32) if dtype == FLOAT16 else array
