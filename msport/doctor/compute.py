"""Checks that MindSpore computes correctly: compares a matrix product and a training step with NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from msport.progress import Progress

_SEED = 0
Array = np.ndarray[Any, Any]


def multiply(*, progress: Progress) -> float:
    """The relative error of a matrix product in graph mode."""
    import mindspore as ms

    ms.set_context(mode=ms.GRAPH_MODE)
    x, weight = _random((64, 1000), (32, 1000))
    layer = ms.nn.Dense(1000, 32, weight_init=ms.Tensor(weight), has_bias=False)
    return _error(layer(ms.Tensor(x)).asnumpy(), x @ weight.T)


def train(*, progress: Progress) -> float:
    """The largest relative error of a loss and its gradients, ``mean((relu(x a) b)^2)``, in graph mode."""
    import mindspore as ms
    from mindspore import ops

    ms.set_context(mode=ms.GRAPH_MODE)
    x, a, b = _random((16, 64), (64, 32), (32, 8))

    def loss(x: Any, a: Any, b: Any) -> Any:
        return ops.mean(ops.square(ops.matmul(ops.relu(ops.matmul(x, a)), b)))

    value, gradients = ms.value_and_grad(loss, grad_position=(1, 2))(*map(ms.Tensor, (x, a, b)))
    expected = _by_hand(x, a, b)
    return max(_error(found.asnumpy(), right) for found, right in zip((value, *gradients), expected, strict=True))


def _by_hand(x: Array, a: Array, b: Array) -> tuple[Array, Array, Array]:
    """The loss and its gradients with respect to `a` and `b`."""
    hidden = np.maximum(x @ a, 0)
    y = hidden @ b
    dy = 2 * y / y.size
    return np.asarray(np.mean(y * y)), x.T @ ((dy @ b.T) * (hidden > 0)), hidden.T @ dy


def _random(*shapes: tuple[int, ...]) -> list[Array]:
    generator = np.random.default_rng(_SEED)
    return [generator.standard_normal(shape).astype(np.float32) for shape in shapes]


def _error(found: Array, right: Array) -> float:
    return float(np.linalg.norm(found - right) / np.linalg.norm(right))
