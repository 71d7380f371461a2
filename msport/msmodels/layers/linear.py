"""Linear and embedding layers, without initialisation."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor

from msport.msmodels import ops
from msport.msmodels.layers.matrices import MatrixCell
from msport.msmodels.layers.parameters import weight
from msport.msmodels.ops.decoding import Matrix


class Linear(MatrixCell):
    """``x [tokens, inputs]`` to ``[tokens, outputs]``; `weight` is a matrix ``[outputs, inputs]``."""

    weight: Matrix
    weight_encoding: str

    def __init__(self, inputs: int, outputs: int, *, bias: bool, dtype: ms.Type) -> None:
        super().__init__()
        self.add_matrix("weight", outputs, inputs, dtype=dtype)
        self.bias = weight(outputs, dtype=dtype) if bias else None

    def construct(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight, self.bias, self.weight_encoding)


class Embedding(MatrixCell):
    """``ids [batch, seq]`` to ``[batch * seq, hidden_size]`` in `dtype`; `weight` is a matrix ``[vocab_size,
    hidden_size]``.
    """

    weight: Matrix
    weight_encoding: str

    def __init__(self, vocab_size: int, hidden_size: int, *, dtype: ms.Type) -> None:
        super().__init__()
        self.add_matrix("weight", vocab_size, hidden_size, dtype=dtype)
        self.dtype = dtype

    def construct(self, ids: Tensor) -> Tensor:
        return ops.embedding(ids, self.weight, self.dtype, self.weight_encoding)
