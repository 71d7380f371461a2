"""Linear and embedding layers, without initialisation."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn

from msport.msmodels import ops
from msport.msmodels.layers.parameters import weight


class Linear(nn.Cell):
    """``x [tokens, inputs]`` to ``[tokens, outputs]``; `weight` is ``[outputs, inputs]``."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, dtype: ms.Type) -> None:
        super().__init__()
        self.weight = weight(outputs, inputs, dtype=dtype)
        self.bias = weight(outputs, dtype=dtype) if bias else None

    def construct(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight, self.bias)


class Embedding(nn.Cell):
    """``ids [batch, seq]`` to ``[batch * seq, hidden_size]``."""

    def __init__(self, vocab_size: int, hidden_size: int, *, dtype: ms.Type) -> None:
        super().__init__()
        self.weight = weight(vocab_size, hidden_size, dtype=dtype)

    def construct(self, ids: Tensor) -> Tensor:
        return ops.embedding(ids, self.weight)
