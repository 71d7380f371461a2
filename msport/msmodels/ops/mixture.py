"""The definition of `experts`: a mixture's feed-forward, for weights in any encoding."""

from __future__ import annotations

from collections.abc import Callable

from mindspore import Tensor, ops

from msport.msmodels.ops.decoding import Matrix, arrange, cut, decode, take

# If most experts of a layer have tokens and are packed, they are decoded in this many parts, to bound the unpacked
# memory.
_PARTS = 4

Activation = Callable[[Tensor], Tensor]


def experts(
    x: Tensor,
    indices: Tensor,
    weights: Tensor,
    gate_up: Matrix,
    gate_up_bias: Tensor | None,
    down: Matrix,
    down_bias: Tensor | None,
    activation: Activation,
    encodings: tuple[str, str],
) -> Tensor:
    """The routed experts' feed-forward, weighted and summed: ``x [tokens, hidden]`` to ``[tokens, hidden]``.

    `indices` and `weights` are ``[tokens, k]``; biases are ``[experts, ...]``. `gate_up` and `down` are in the two
    `encodings`; plain, they are ``[experts, hidden, 2 * intermediate]`` and ``[experts, intermediate, hidden]``. For
    few tokens, only their routed experts are read. Many tokens would read all experts anyway, so they run through every
    expert, with weight 0 if they are not routed there: reading the weights costs more than the products. `activation`
    takes gate and up projections as one tensor and halves the last axis.
    """
    layers = (gate_up, gate_up_bias, down, down_bias)
    if indices.shape[0] * indices.shape[1] < gate_up[0].shape[0]:
        return _routed(x, indices, weights, layers, activation, encodings)
    if encodings == ("plain", "plain"):
        return _dense(x, indices, weights, layers, activation)
    return _in_parts(x, indices, weights, layers, activation, encodings)


# Matrix and bias of gate and up, and of down.
_Layers = tuple[Matrix, Tensor | None, Matrix, Tensor | None]


def _routed(
    x: Tensor,
    indices: Tensor,
    weights: Tensor,
    layers: _Layers,
    activation: Activation,
    encodings: tuple[str, str],
) -> Tensor:
    """Gathers the experts of each token."""
    gate_up, gate_up_bias, down, down_bias = layers
    (tokens, hidden), k = x.shape, indices.shape[1]
    routed = indices.reshape(-1)
    rows = ops.broadcast_to(x.reshape(tokens, 1, hidden), (tokens, k, hidden)).reshape(-1, 1, hidden)
    projected = _product(rows, take(gate_up, routed, x.dtype), _taken(gate_up_bias, routed), encodings[0])
    y = _product(_activate(projected, activation), take(down, routed, x.dtype), _taken(down_bias, routed), encodings[1])
    weighted = y.reshape(tokens, k, hidden) * ops.expand_dims(weights.astype(x.dtype), -1)
    return ops.sum(weighted, 1)


def _dense(x: Tensor, indices: Tensor, weights: Tensor, layers: _Layers, activation: Activation) -> Tensor:
    """Every token through every expert, of plain weights."""
    gate_up, gate_up_bias, down, down_bias = layers
    tokens, hidden = x.shape
    count, intermediate, _ = down[0].shape
    routing = _routing(x, indices, weights, count)
    rows = ops.broadcast_to(ops.expand_dims(x, 0), (count, tokens, hidden))
    projected = _product(rows, gate_up, gate_up_bias, "plain")  # [experts, tokens, 2 * intermediate]
    # With weights applied before the second product, one matrix product also sums over the experts.
    activated = activation(projected) * ops.expand_dims(routing.transpose(1, 0), -1)
    activated = activated.transpose(1, 0, 2).reshape(tokens, count * intermediate)
    y = ops.MatMul()(activated, down[0].astype(x.dtype).reshape(count * intermediate, hidden))
    if down_bias is None:
        return y
    return y + ops.MatMul()(routing, down_bias)


def _in_parts(
    x: Tensor,
    indices: Tensor,
    weights: Tensor,
    layers: _Layers,
    activation: Activation,
    encodings: tuple[str, str],
) -> Tensor:
    """Every token through every expert, some experts at a time."""
    gate_up, gate_up_bias, down, down_bias = layers
    (tokens, hidden), count = x.shape, gate_up[0].shape[0]
    size = -(-count // _PARTS)
    shares = ops.expand_dims(_routing(x, indices, weights, count).transpose(1, 0), -1)  # [experts, tokens, 1]
    total = ops.zeros(x.shape, x.dtype)
    for first in range(0, count, size):
        end = min(first + size, count)
        rows = ops.broadcast_to(ops.expand_dims(x, 0), (end - first, tokens, hidden))
        projected = _product(rows, cut(gate_up, first, end, x.dtype), _cut_bias(gate_up_bias, first, end), encodings[0])
        activated = _activate(projected, activation)
        y = _product(activated, cut(down, first, end, x.dtype), _cut_bias(down_bias, first, end), encodings[1])
        total = total + ops.sum(y * shares[first:end], 0)
    return total


def _routing(x: Tensor, indices: Tensor, weights: Tensor, count: int) -> Tensor:
    """The weight of each expert for each token, ``[tokens, experts]``."""
    chosen = ops.expand_dims(indices, -1) == ops.arange(count).astype(indices.dtype)  # [tokens, k, experts]
    return ops.sum(chosen.astype(weights.dtype) * ops.expand_dims(weights, -1), 1).astype(x.dtype)


def _product(x: Tensor, matrix: Matrix, bias: Tensor | None, encoding: str) -> Tensor:
    """``x [n, rows, inputs]`` through n layers: ``[n, rows, outputs]``."""
    if encoding == "plain":
        y = ops.BatchMatMul()(x, matrix[0].astype(x.dtype))
    else:
        y = ops.BatchMatMul(transpose_b=True)(arrange(x, matrix, encoding), decode(matrix, encoding, x.dtype))
    if bias is None:
        return y
    return y + ops.expand_dims(bias, 1)


def _activate(projected: Tensor, activation: Activation) -> Tensor:
    """`activation` takes rows; ``[n, rows, 2 * size]`` to ``[n, rows, size]``."""
    rows = projected.reshape(-1, projected.shape[-1])
    return activation(rows).reshape(projected.shape[:-1] + (-1,))


def _taken(bias: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if bias is None else ops.gather(bias, rows, 0)


def _cut_bias(bias: Tensor | None, first: int, end: int) -> Tensor | None:
    return None if bias is None else bias[first:end]
