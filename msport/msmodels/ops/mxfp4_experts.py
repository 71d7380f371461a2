"""Experts whose weights stay packed as MXFP4 in memory and are decoded in the graph when they are needed.

This uses only floating-point arithmetic on whole tensors. Every device has it in every dtype, and graph compilers fuse
it, unlike shifts of bytes. A byte, its halves and all products below are exact in float32 and bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

# 2 ** (scale - 127), by scale; 255 is NaN in the standard, and loading refuses it.
_SCALES = Tensor(np.ldexp(np.float32(1), np.minimum(np.arange(256), 254) - 127).astype(np.float32))
# If most experts of a layer have tokens, they are decoded in this many parts, to bound the unpacked memory.
_PARTS = 4

Activation = Callable[[Tensor], Tensor]


def decode(blocks: Tensor, scales: Tensor, dtype: ms.Type) -> Tensor:
    """``blocks [..., inputs / 32, 16]`` and ``scales [..., inputs / 32]`` to ``[..., inputs]``, even inputs first.

    The low half of a byte is the even input. Interleaving even and odd inputs would move every weight once more.
    Instead, `even_first` reorders the activations, which are few.
    """
    # The scales exceed float16's range, but the products do not, if the model fits float16.
    wide = ms.float32 if dtype == ms.float16 else dtype
    codes = blocks.astype(wide)
    high = ops.floor(codes * 0.0625)
    low = codes - high * 16
    scale = ops.expand_dims(ops.gather(_SCALES, scales.astype(ms.int32), 0).astype(wide), -1)
    columns = scales.shape[:-1] + (scales.shape[-1] * 16,)
    halves = ((_value(low) * scale).reshape(columns), (_value(high) * scale).reshape(columns))
    return ops.concat(halves, -1).astype(dtype)


def _value(code: Tensor) -> Tensor:
    """The unscaled value of a code from 0 to 15: 0 .5 1 1.5 2 3 4 6, negative from 8 on.

    The magnitudes are convex: the largest of three lines through them.
    """
    negative = ops.floor(code * 0.125)
    magnitude = code - negative * 8
    value = ops.maximum(ops.maximum(magnitude * 0.5, magnitude - 2), magnitude * 2 - 8)
    return value * (1 - negative * 2)


def even_first(x: Tensor) -> Tensor:
    """Reorders the last axis as in `decode`: all even elements, then all odd ones."""
    pairs = x.reshape(x.shape[:-1] + (x.shape[-1] // 2, 2))
    return ops.concat((pairs[..., 0], pairs[..., 1]), -1)


def packed_experts(
    x: Tensor,
    indices: Tensor,
    weights: Tensor,
    gate_up_blocks: Tensor,
    gate_up_scales: Tensor,
    gate_up_bias: Tensor,
    down_blocks: Tensor,
    down_scales: Tensor,
    down_bias: Tensor,
    activation: Activation,
) -> Tensor:
    """As `experts`, with packed weights: blocks ``[experts, outputs, inputs / 32, 16]``, scales without the last axis.

    For few tokens, only their routed experts are decoded. For many tokens, all experts are decoded, one part at a time,
    and every token runs through every expert, with weight 0 if it is not routed there: reading the weights costs more
    than the products.
    """
    gate_up, down = (gate_up_blocks, gate_up_scales, gate_up_bias), (down_blocks, down_scales, down_bias)
    if indices.shape[0] * indices.shape[1] < gate_up_blocks.shape[0]:
        return _routed(x, indices, weights, gate_up, down, activation)
    return _all(x, indices, weights, gate_up, down, activation)


def _routed(
    x: Tensor,
    indices: Tensor,
    weights: Tensor,
    gate_up: tuple[Tensor, Tensor, Tensor],
    down: tuple[Tensor, Tensor, Tensor],
    activation: Activation,
) -> Tensor:
    (tokens, hidden), k = x.shape, indices.shape[1]
    experts = indices.reshape(-1)
    rows = ops.broadcast_to(x.reshape(tokens, 1, hidden), (tokens, k, hidden)).reshape(-1, 1, hidden)
    projected = _product(
        rows, ops.gather(gate_up[0], experts, 0), ops.gather(gate_up[1], experts, 0), ops.gather(gate_up[2], experts, 0)
    )
    y = _product(
        _activate(projected, activation),
        ops.gather(down[0], experts, 0),
        ops.gather(down[1], experts, 0),
        ops.gather(down[2], experts, 0),
    )
    weighted = y.reshape(tokens, k, hidden) * ops.expand_dims(weights.astype(x.dtype), -1)
    return ops.sum(weighted, 1)


def _all(
    x: Tensor,
    indices: Tensor,
    weights: Tensor,
    gate_up: tuple[Tensor, Tensor, Tensor],
    down: tuple[Tensor, Tensor, Tensor],
    activation: Activation,
) -> Tensor:
    (tokens, hidden), count = x.shape, gate_up[0].shape[0]
    size = -(-count // _PARTS)
    chosen = ops.expand_dims(indices, -1) == ops.arange(count).astype(indices.dtype)  # [tokens, k, experts]
    routing = ops.sum(chosen.astype(weights.dtype) * ops.expand_dims(weights, -1), 1).astype(x.dtype)
    shares = ops.expand_dims(routing.transpose(1, 0), -1)  # [experts, tokens, 1]
    total = ops.zeros(x.shape, x.dtype)
    for first in range(0, count, size):
        end = min(first + size, count)
        rows = ops.broadcast_to(ops.expand_dims(x, 0), (end - first, tokens, hidden))
        projected = _product(rows, gate_up[0][first:end], gate_up[1][first:end], gate_up[2][first:end])
        y = _product(_activate(projected, activation), down[0][first:end], down[1][first:end], down[2][first:end])
        total = total + ops.sum(y * shares[first:end], 0)
    return total


def _product(x: Tensor, blocks: Tensor, scales: Tensor, bias: Tensor) -> Tensor:
    """``x [n, rows, inputs]`` through n packed layers: ``[n, rows, outputs]``."""
    weight = decode(blocks, scales, x.dtype)  # [n, outputs, inputs]
    return ops.BatchMatMul(transpose_b=True)(even_first(x), weight) + ops.expand_dims(bias, 1)


def _activate(projected: Tensor, activation: Activation) -> Tensor:
    """`activation` takes rows; ``[n, rows, 2 * size]`` to ``[n, rows, size]``."""
    rows = projected.reshape(-1, projected.shape[-1])
    return activation(rows).reshape(projected.shape[:-1] + (-1,))
