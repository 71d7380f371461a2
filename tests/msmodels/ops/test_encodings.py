"""Every operator that takes a matrix takes it in every encoding, and computes with the numbers that it decodes to."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from msmodels.encoded import decoded, random_parts, tensors
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32
from msport.encodings import MXFP4, Encoding, Grouped, Plain
from msport.msmodels.layers.matrices import kind
from msport.msmodels.ops import cpu, decoding, portable
from msport.native import library
from msport.sizing import kept

needs_kernels = pytest.mark.skipif(library() is None, reason="no C++ compiler")
implementations = pytest.mark.parametrize("ops", [portable, pytest.param(cpu, marks=needs_kernels)])

INPUTS = 192
ENCODINGS = {
    "bfloat16": Plain(BFLOAT16),
    "float16": Plain(FLOAT16),
    "mxfp4": MXFP4,
    "int4": Grouped(4),
    "int4, offsets, order": Grouped(4, 64, FLOAT16, offsets=True, order=True),
    "int4, one group": Grouped(4, INPUTS, FLOAT32, order=True),
    "int8": Grouped(8),
    "int8, offsets": Grouped(8, 96, FLOAT32, offsets=True),
    "int8, one group, order": Grouped(8, INPUTS, BFLOAT16, offsets=True, order=True),
}
UNORDERED = {name: each for name, each in ENCODINGS.items() if not getattr(each, "order", False)}
# Of sums in float32, relative L2: twice the largest measured.
TOLERANCE = 9e-7


class Layer(nn.Cell):
    """An operator with a matrix that belongs to a cell, as in a network."""

    def __init__(self, function: Any, encoding: Encoding, parts: Any, *constants: Any) -> None:
        super().__init__()
        self.function = function
        self.matrix = tensors(parts)
        self.constants = constants
        self.encoding = kind(encoding)

    def construct(self, x: Tensor) -> Tensor:
        return self.function(x, self.matrix, *self.constants, self.encoding)


class Experts(nn.Cell):
    def __init__(self, function: Any, encoding: Encoding, gate_up: Any, down: Any) -> None:
        super().__init__()
        self.function = function
        self.gate_up = tensors(gate_up, "gate_up")
        self.down = tensors(down, "down")
        self.encodings = (kind(encoding), kind(encoding))

    def construct(self, x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        return self.function(x, indices, weights, self.gate_up, None, self.down, None, first_half, self.encodings)


def first_half(x: Tensor) -> Tensor:
    return x[..., : x.shape[-1] // 2]


@pytest.fixture(autouse=True)
def _strict() -> None:
    ms.set_context(mode=ms.GRAPH_MODE, jit_syntax_level=ms.STRICT)


def assert_close(found: Tensor, truth: np.ndarray) -> None:
    error = np.linalg.norm(found.asnumpy() - truth) / np.linalg.norm(truth)
    print(f"relative L2 error {error:.1e}")
    assert error <= TOLERANCE


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def test_every_encoding_that_stays_in_memory_has_a_decoder() -> None:
    assert set(kept.PACKED) == set(decoding._DECODERS)


@implementations
@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("tokens", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_linear(ops: Any, encoding: Encoding, tokens: int) -> None:
    parts = random_parts(encoding, (70, INPUTS))
    x = normal(tokens, INPUTS)
    layer = Layer(ops.linear, encoding, parts, Tensor(np.arange(70, dtype=np.float32)))
    truth = x.astype(np.float64) @ decoded(encoding, parts).T.astype(np.float64) + np.arange(70)
    assert_close(layer(Tensor(x)), truth)


@pytest.mark.parametrize("encoding", UNORDERED.values(), ids=UNORDERED)
def test_embedding_gives_the_very_rows(encoding: Encoding) -> None:
    parts = random_parts(encoding, (70, INPUTS))
    ids = np.array([[3, 69], [0, 3]], np.int32)
    found = Layer(portable.embedding, encoding, parts, ms.float32)(Tensor(ids))
    np.testing.assert_array_equal(found.asnumpy(), decoded(encoding, parts)[ids.reshape(-1)])


@implementations
@pytest.mark.parametrize("encoding", UNORDERED.values(), ids=UNORDERED)
@pytest.mark.parametrize("tokens", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_experts(ops: Any, encoding: Encoding, tokens: int) -> None:
    count, k, hidden = 5, 2, INPUTS
    gate_up = random_parts(encoding, (count, 2 * INPUTS, hidden))
    down = random_parts(encoding, (count, hidden, INPUTS), seed=1)
    rng = np.random.default_rng(5)
    indices = np.stack([rng.permutation(count)[:k] for _ in range(tokens)]).astype(np.int32)
    x, weights = normal(tokens, hidden), rng.random((tokens, k), np.float32)
    first, second = decoded(encoding, gate_up).astype(np.float64), decoded(encoding, down).astype(np.float64)
    truth = np.zeros((tokens, hidden))
    for t, j in np.ndindex(tokens, k):
        e = indices[t, j]
        truth[t] += weights[t, j] * (second[e] @ (first[e] @ x[t])[:INPUTS])
    found = Experts(ops.experts, encoding, gate_up, down)(Tensor(x), Tensor(indices), Tensor(weights))
    assert_close(found, truth)


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [1, 20])
def test_portable_experts_take_an_order_of_their_own(tokens: int) -> None:
    test_experts(portable, ENCODINGS["int4, offsets, order"], tokens)
