"""GPTQ checkpoints of AutoGPTQ, GPTQModel and Optimum, with codes of 4 or 8 bits.

A linear layer ``X`` of ``[outputs, inputs]`` is ``X.qweight`` int32 ``[inputs * bits / 32, outputs]``, the first input
in the lowest bits of a word; ``X.qzeros`` int32 ``[groups, outputs * bits / 32]``, packed along the outputs;
``X.scales`` ``[groups, outputs]``; and ``X.g_idx`` int32 ``[inputs]``, the group of each input, which act-order
(``desc_act``) scatters. A value is ``(code - zero point) * scale``. The checkpoint format ``gptq`` stores the zero
point minus 1, ``gptq_v2`` the zero point itself; no tensor tells them apart.

Sources: ``auto_gptq/nn_modules/qlinear/qlinear_cuda_old.py`` in https://github.com/AutoGPTQ/AutoGPTQ, and
``gptqmodel/nn_modules/qlinear/__init__.py`` and ``gptqmodel/utils/model.py`` in
https://github.com/ModelCloud/GPTQModel. In float16 every bit is as theirs. They disagree on a zero point of 16 (256 in
8 bits), which the format ``gptq`` can express: it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from msport.checkpoint.dtypes import FLOAT16, FLOATING, INT32, Array, DType
from msport.checkpoint.layout import TensorInfo
from msport.encodings import packed_words
from msport.encodings.encoding import Part, Shape
from msport.encodings.grouped import Grouped
from msport.encodings.packed_words import WORD_BITS, PackedMatrix, Regroupable
from msport.errors import CheckpointError, UnsupportedError, quote

BITS = (4, 8)
SUFFIX = ".weight"


@dataclass(frozen=True, slots=True)
class Gptq(Regroupable):
    """A layer in groups of `group` inputs.

    `index` says that there is a ``g_idx``, `act_order` that it may be another one than ``i // group``, and `symmetric`
    that all zero points are half the range. `zero_shift` is what was subtracted from them.
    """

    bits: int
    group: int
    scale_dtype: DType = FLOAT16
    index: bool = True
    act_order: bool = True
    symmetric: bool = False
    zero_shift: int = 1
    name: str = "gptq"

    def parts(self, weight: str, shape: Shape) -> tuple[Part, ...]:
        """``qweight``, ``qzeros``, ``scales`` and, with `index`, ``g_idx``."""
        outputs, inputs = shape
        layer, groups, codes = weight.removesuffix(SUFFIX), inputs // self.group, WORD_BITS // self.bits
        found = [
            Part(f"{layer}.qweight", (inputs // codes, outputs), (INT32,)),
            Part(f"{layer}.qzeros", (groups, outputs // codes), (INT32,)),
            Part(f"{layer}.scales", (groups, outputs), packed_words.as_floats(self.scale_dtype)),
        ]
        if self.index:
            found.append(Part(f"{layer}.g_idx", (inputs,), (INT32,)))
        return tuple(found)

    def rows(self, part: int, begin: int, end: int) -> tuple[int, int] | None:
        """None: the outputs lie along the second axis, so all of a part is needed."""
        return None

    def grouped(self) -> Grouped:
        return Grouped(self.bits, self.group, self.scale_dtype, not self.symmetric, self.act_order)

    def read(self, parts: Sequence[Array], first: int, end: int | None, where: str) -> PackedMatrix:
        qweight, qzeros, scales, *index = parts
        words, scales = qweight[:, first:end], scales[:, first:end]
        per_word = WORD_BITS // self.bits
        columns = slice(first // per_word, None if end is None else -(-end // per_word))
        numbers = packed_words.unpack_words(qzeros[:, columns], self.bits)[:, first % per_word :]
        stored = numbers[:, : scales.shape[1]].astype(np.int16) + (self.zero_shift - (1 << self.bits - 1))
        return PackedMatrix(
            bits=self.bits,
            group=self.group,
            scale_dtype=self.scale_dtype,
            inputs=len(qweight) * per_word,
            codes=lambda begin, end: packed_words.signed_codes(words[:, begin:end].T, self.bits),
            scales=scales.T,
            zero_points=stored.T if stored.any() else None,
            group_of_input=index[0] if index else None,
        )


def detect(weight: str, shape: Shape, tensors: Mapping[str, TensorInfo]) -> Gptq | None:
    """GPTQ if there is a ``qweight`` whose words run along the inputs, with all that the shapes and dtypes say.

    What only ``config.json`` says (`quantization_config.Quantization.adopt`) is as general as it can be. Raises
    CheckpointError for groups that do not divide the inputs, UnsupportedError for other than 4 or 8 bits.
    """
    layer = weight.removesuffix(SUFFIX)
    qweight, scales = tensors.get(f"{layer}.qweight"), tensors.get(f"{layer}.scales")
    if layer == weight or qweight is None or len(shape) != 2 or len(qweight.shape) != 2:
        return None
    outputs, inputs = shape
    words, columns = qweight.shape
    if columns != outputs or words == inputs or words * WORD_BITS % inputs:
        return None
    bits = words * WORD_BITS // inputs
    _refuse_bits(bits, outputs, qweight.name)
    groups = scales.shape[0] if scales and scales.shape else 1
    group = packed_words.group_of(f"{layer}.scales", groups, inputs)
    dtype = scales.dtype if scales and scales.dtype in FLOATING else FLOAT16
    index = f"{layer}.g_idx" in tensors
    return Gptq(bits, group, dtype, index, index)


def _refuse_bits(bits: int, outputs: int, name: str) -> None:
    if bits not in BITS:
        raise UnsupportedError(
            f"tensor {quote(name)} holds GPTQ codes of {bits} bits; msport reads 4 and 8: take another quantization"
            " of the model"
        )
    if outputs * bits % WORD_BITS:
        raise CheckpointError(
            f"tensor {quote(name)}: the zero points of {outputs} outputs with {bits} bits do not fill whole words;"
            " take another quantization of the model"
        )
