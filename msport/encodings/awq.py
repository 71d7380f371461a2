"""AWQ checkpoints of AutoAWQ and GPTQModel in the layout ``gemm``: codes of 4 bits with zero points.

A linear layer ``X`` of ``[outputs, inputs]`` is ``X.qweight`` int32 ``[inputs, outputs / 8]``, ``X.qzeros`` int32
``[groups, outputs / 8]`` and ``X.scales`` ``[groups, outputs]``. Eight outputs share a word, from the lowest bits on in
the order 0, 2, 4, 6, 1, 3, 5, 7. A value is ``(code - zero point) * scale``.

Sources: ``awq/modules/linear/gemm.py`` (packing) and ``awq/utils/packing_utils.py`` (``dequantize_gemm``) in
https://github.com/casper-hansen/AutoAWQ. In float16 every bit is as theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from msport.checkpoint.dtypes import FLOAT16, FLOATING, INT32, Array, DType
from msport.checkpoint.layout import TensorInfo
from msport.encodings import packed_words
from msport.encodings.encoding import Part, Shape
from msport.encodings.gptq import SUFFIX
from msport.encodings.grouped import Grouped
from msport.encodings.packed_words import PackedMatrix, Regroupable
from msport.errors import CheckpointError, quote

BITS = 4
_PER_WORD = 8
# The output of each 4 bits of a word, the lowest first; in a byte of the word, the low and the high half.
_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
_LOW, _HIGH = _ORDER[0::2], _ORDER[1::2]
_PLACES = tuple(_ORDER.index(output) for output in range(_PER_WORD))


@dataclass(frozen=True, slots=True)
class Awq(Regroupable):
    """A layer in groups of `group` inputs."""

    group: int
    scale_dtype: DType = FLOAT16
    name: str = "awq"

    def parts(self, weight: str, shape: Shape) -> tuple[Part, ...]:
        """``qweight``, ``qzeros`` and ``scales``."""
        outputs, inputs = shape
        layer, groups = weight.removesuffix(SUFFIX), inputs // self.group
        return (
            Part(f"{layer}.qweight", (inputs, outputs // _PER_WORD), (INT32,)),
            Part(f"{layer}.qzeros", (groups, outputs // _PER_WORD), (INT32,)),
            Part(f"{layer}.scales", (groups, outputs), packed_words.as_floats(self.scale_dtype)),
        )

    def rows(self, part: int, begin: int, end: int) -> tuple[int, int] | None:
        """None: the outputs lie along the second axis, so all of a part is needed."""
        return None

    def grouped(self) -> Grouped:
        return Grouped(BITS, self.group, self.scale_dtype, offsets=True)

    def read(self, parts: Sequence[Array], first: int, end: int | None, where: str) -> PackedMatrix:
        qweight, qzeros, scales = parts
        outputs = slice(first, end)
        first_word, skipped = divmod(first, _PER_WORD)
        words = slice(first_word, None if end is None else -(-end // _PER_WORD))
        numbers = packed_words.unpack_words(qzeros[:, words], BITS).reshape(len(qzeros), -1, _PER_WORD)
        zero_points = numbers[:, :, _PLACES].reshape(len(qzeros), -1).astype(np.int16) - (1 << BITS - 1)
        scales = scales[:, outputs]
        return PackedMatrix(
            bits=BITS,
            group=self.group,
            scale_dtype=self.scale_dtype,
            inputs=len(qweight),
            codes=lambda begin, stop: _codes(qweight, first + begin, first + stop),
            scales=scales.T,
            zero_points=zero_points[:, skipped : skipped + scales.shape[1]].T,
            group_of_input=None,
        )


def _codes(qweight: Array, begin: int, end: int) -> Array:
    """The outputs ``[begin, end)`` of ``qweight [inputs, outputs / 8]`` as `Grouped` stores them."""
    first, skipped = divmod(begin, _PER_WORD)
    words = np.ascontiguousarray(qweight[:, first : -(-end // _PER_WORD)])
    data = words.view(np.uint8).reshape(len(words), -1, 4) ^ np.uint8(0x88)
    even, odd = data[0::2], data[1::2]  # [inputs / 2, words, 4]
    codes = np.empty((words.shape[1], _PER_WORD, len(words) // 2), np.uint8)
    codes[:, _LOW] = ((even & 0x0F) | odd << 4).transpose(1, 2, 0)
    codes[:, _HIGH] = (even >> 4 | (odd & 0xF0)).transpose(1, 2, 0)
    return codes.reshape(-1, len(words) // 2)[skipped : skipped + end - begin]


def detect(weight: str, shape: Shape, tensors: Mapping[str, TensorInfo]) -> Awq | None:
    """AWQ if there is a ``qweight`` whose words run along the outputs.

    Raises CheckpointError for groups that do not divide the inputs, and for scales of the layout ``gemv``.
    """
    layer = weight.removesuffix(SUFFIX)
    qweight, scales = tensors.get(f"{layer}.qweight"), tensors.get(f"{layer}.scales")
    if layer == weight or qweight is None or len(shape) != 2:
        return None
    outputs, inputs = shape
    if qweight.shape != (inputs, outputs // _PER_WORD) or outputs % _PER_WORD or inputs % 2:
        return None
    if scales and scales.shape[1:] != (outputs,):
        raise CheckpointError(
            f"tensor {quote(scales.name)} is {list(scales.shape)}, not [groups, {outputs}] as in AWQ's layout gemm, the"
            " one that msport reads; take another quantization of the model"
        )
    groups = scales.shape[0] if scales else 1
    group = packed_words.group_of(f"{layer}.scales", groups, inputs)
    return Awq(group, scales.dtype if scales and scales.dtype in FLOATING else FLOAT16)
