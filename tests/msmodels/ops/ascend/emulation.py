"""Ascend's operators in plain MindSpore ones, float32, so that whole networks of the fused form run on a CPU.

NumPy's contracts cannot stand in a graph; these say the same in what a graph compiler understands. Everything around
the operators is the real thing: parameters, caches written in place, load-time arrangement, chunks, ring buffers.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops

from msport import convert_checkpoint, load_model
from msport.checkpoint.dtypes import INT4_PAIRS
from msport.msmodels.layers import matrices
from msport.msmodels.ops import portable
from msport.msmodels.ops.ascend import attention, signatures
from msport.progress import Progress
from msport.sample import write_sample
from msport.sizing import cann

CHUNK, LENGTHS, DECODED = 16, (50, 21), 6


def errors(families: list[str], *, progress: Progress) -> dict[str, float]:
    """How far the emulated fused form is from the portable one, relative L2 of logits; runs in a child."""
    _emulate()
    return {family: _error(family) for family in families}


def quantised_errors(cases: list[list[Any]], *, progress: Progress) -> dict[str, float]:
    """As `errors`, of families converted with a dtype and perhaps zero points: ``[family, dtype, zero_points]``.

    The operators take no float32, so here everything is said to have the dtype of the activations.
    """
    _emulate()
    cann._fits = lambda encoding, shape, dtype: True
    matrices.TYPES[INT4_PAIRS] = ms.int8
    return {f"{family}, {dtype}": _quantised_error(family, dtype, points) for family, dtype, points in cases}


def _quantised_error(family: str, dtype: str, zero_points: bool) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        plain = {"overrides": {"num_hidden_layers": 2}, "dtype": "bfloat16"}
        hub = write_sample(family, Path(scratch) / "hub", seed=5, **plain)
        folder = Path(scratch) / "ms"
        convert_checkpoint(hub, folder, dtype=dtype, zero_points=zero_points)
        truth, fused = (_logits(folder, operators, "float32") for operators in ("portable", "ascend"))
        return float(np.linalg.norm(fused - truth) / np.linalg.norm(truth))


def _error(family: str) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        hub = write_sample(family, Path(scratch) / "hub", seed=5, overrides={"num_hidden_layers": 2})
        folder = Path(scratch) / "ms"
        dtype = "mxfp4" if family == "gpt-oss" else "float32"
        convert_checkpoint(hub, folder, dtype=dtype)
        truth = _logits(folder, "portable", "float32")
        fused = [_logits(folder, "ascend", kept) for kept in {"float32", dtype}]
        return max(float(np.linalg.norm(other - truth) / np.linalg.norm(truth)) for other in fused)


def _logits(folder: Path, operators: str, dtype: str) -> np.ndarray:
    """Two prompts of different lengths in one batch, past every window, then tokens one by one."""
    os.environ["MSPORT_OPS"] = operators
    model = load_model(folder, dtype, max_length=80, batch_size=2, prefill_chunk=CHUNK)
    assert model.operators == operators
    ids = np.random.default_rng(0).integers(0, 1000, (2, 80))
    outputs = [model.prefill([row[:length] for row, length in zip(ids, LENGTHS, strict=True)])]
    outputs += [model.decode(ids[:, -step]) for step in range(1, DECODED + 1)]
    return np.stack(outputs)


def _emulate() -> None:
    attention.HALF_DTYPES = (ms.float32,)
    for function in (
        rotary,
        index_copy,
        flash_attention,
        incremental_attention,
        init_routing,
        grouped_matmul,
        grouped_weight_quant_matmul,
        weight_quant_matmul,
        token_unpermute,
        gating_top_k_softmax,
    ):
        setattr(signatures, function.__name__, function)
    signatures.rms_norm = portable.rms_norm
    signatures.add_rms_norm = portable.add_rms_norm
    signatures.swiglu = portable.swiglu


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = ops.split(x, x.shape[-1] // 2, -1)
    return x * cos + ops.concat((-second, first), -1) * sin


def index_copy(target: Parameter, rows: Tensor, values: Tensor) -> Tensor:
    return ops.scatter_update(target, rows, values)


def flash_attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, heads: int, scale: float) -> Any:
    repeated = [_repeat(each, heads) for each in (keys, values)]
    scores = ops.BatchMatMul(transpose_b=True)(query, repeated[0]) * scale
    hidden = ops.broadcast_to(mask, scores.shape)
    scores = ops.select(hidden, ops.full(scores.shape, float("-inf"), dtype=ms.float32), scores)
    top = ops.amax(scores, -1, True)
    exponentials = ops.exp(scores - top)
    total = ops.sum(exponentials, -1, True)
    attended = ops.BatchMatMul()(exponentials / total, repeated[1])
    return attended, ops.tile(top, (1, 1, 1, 8)), ops.tile(total, (1, 1, 1, 8))


def _repeat(x: Tensor, heads: int) -> Tensor:
    batch, groups, length, size = x.shape
    wide = ops.broadcast_to(ops.expand_dims(x, 2), (batch, groups, heads // groups, length, size))
    return wide.reshape(batch, heads, length, size)


def incremental_attention(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, heads: int, key_value_heads: int, scale: float
) -> Any:
    attended, top, total = flash_attention(query, keys, values, mask, heads, scale)
    return attended, top[..., :1] + ops.log(total[..., :1])


def init_routing(x: Tensor, indices: Tensor, experts: int) -> Any:
    flat = indices.reshape(-1).astype(ms.float32)
    _, order = ops.sort(flat)
    _, destinations = ops.sort(order.astype(ms.float32))
    rows = ops.gather(x, ops.floor_div(order, indices.shape[1]), 0)
    chosen = ops.expand_dims(flat, 1) == ops.arange(experts).astype(ms.float32)
    return rows, destinations.astype(ms.int32), ops.sum(chosen.astype(ms.int32), 0)


def grouped_matmul(x: Tensor, weight: Tensor, bias: Tensor | None, counts: Tensor) -> Tensor:
    ends = ops.cumsum(counts.astype(ms.int32), 0)
    passed = ops.arange(x.shape[0]).astype(ms.int32).reshape(-1, 1) >= ends
    expert = ops.sum(passed.astype(ms.int32), 1)
    y = ops.BatchMatMul()(ops.expand_dims(x, 1), ops.gather(weight, expert, 0))[:, 0]
    if bias is None:
        return y
    return y + ops.gather(bias, expert, 0)


def grouped_weight_quant_matmul(
    x: Tensor, weight: Tensor, counts: Tensor, scales: Tensor, offsets: Tensor | None, bias: Tensor | None
) -> Tensor:
    return grouped_matmul(x, _antiquantised(weight, scales, offsets), bias, counts)


def weight_quant_matmul(x: Tensor, weight: Tensor, scales: Tensor, offsets: Tensor | None) -> Tensor:
    return ops.MatMul()(x, _antiquantised(weight, scales, offsets))


def _antiquantised(weight: Tensor, scales: Tensor, offsets: Tensor | None) -> Tensor:
    """``[..., in, out]`` of int8, or of signed bytes with two int4, the low half first."""
    codes = weight.astype(ms.float32)
    outputs = scales.shape[-1]
    if weight.shape[-1] < outputs:
        high = ops.floor(codes / 16)
        low = codes - 16 * high
        codes = ops.stack((low - 16 * ops.floor(low / 8), high), -1)
    groups = scales.shape[-2] if len(scales.shape) == len(weight.shape) else 1
    stack, whole, one = weight.shape[:-2], (groups, -1, outputs), (groups, 1, outputs)
    codes, single = codes.reshape(stack + whole), stack + one
    if offsets is not None:
        codes = codes + offsets.astype(ms.float32).reshape(single)
    values = codes * scales.astype(ms.float32).reshape(single)
    flat = (weight.shape[-2], outputs)
    return values.reshape(stack + flat)


def token_unpermute(rows: Tensor, destinations: Tensor, shares: Tensor) -> Tensor:
    routed = ops.gather(rows, destinations, 0).reshape(shares.shape[0], shares.shape[1], -1)
    return ops.sum(routed * ops.expand_dims(shares, -1), 1)


def gating_top_k_softmax(logits: Tensor, k: int) -> Any:
    shares, indices = ops.topk(ops.softmax(logits, -1), k)
    return shares, indices
