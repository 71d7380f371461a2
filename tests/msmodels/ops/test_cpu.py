"""The fused CPU operators mean what the portable ones mean, and both what NumPy says in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from checkpoint.mxfp4_definition import decoded
from mindspore import Parameter, Tensor, nn
from mindspore import ops as msops

from msport.encodings import mxfp4
from msport.msmodels.ops import cpu, portable

# Relative L2 to float64 over whole outputs, twice the worst measured: 7.2e-7 and 3.9e-7.
TOLERANCE = {portable: 1.5e-6, cpu: 7.8e-7}

needs_kernels = pytest.mark.skipif(not cpu._NATIVE, reason="no C++ compiler on this machine")
implementations = pytest.mark.parametrize("ops", [portable, pytest.param(cpu, marks=needs_kernels)])


class Graph(nn.Cell):
    """`function` of its tensors, compiled."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def construct(self, *tensors: Tensor) -> Tensor:
        return self.function(*tensors)


def run(function: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
    ms.set_context(mode=ms.GRAPH_MODE, jit_syntax_level=ms.STRICT)
    return Graph(function)(*(Tensor(array) for array in arrays)).asnumpy()


def assert_close(ops: Any, ours: np.ndarray, truth: np.ndarray) -> None:
    assert ours.dtype == np.float32
    assert ours.shape == truth.shape
    error = np.linalg.norm(ours - truth) / np.linalg.norm(truth)
    print(f"{ops.__name__.rpartition('.')[2]}: relative L2 error {error:.2e}")
    assert error <= TOLERANCE[ops]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@implementations
@pytest.mark.parametrize("tokens", [1, 3, 8, 9])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_multiplies_any_number_of_tokens(ops: Any, tokens: int, bias: bool) -> None:
    x, weight, b = normal(tokens, 37), normal(51, 37, seed=1), normal(51, seed=2)
    truth = x.astype(np.float64) @ weight.T + (b if bias else 0)

    def with_bias(x: Tensor, weight: Tensor, b: Tensor) -> Tensor:
        return ops.linear(x, (weight,), b, "plain")

    def without(x: Tensor, weight: Tensor, b: Tensor) -> Tensor:
        return ops.linear(x, (weight,), None, "plain")

    assert_close(ops, run(with_bias if bias else without, x, weight, b), truth)


@implementations
@pytest.mark.parametrize("size", [5, 64, 130])
def test_rms_norm_divides_by_the_root_mean_square(ops: Any, size: int) -> None:
    x, weight = normal(7, size) * 30, normal(size, seed=1) + 1
    wide = x.astype(np.float64)
    truth = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-3) * weight

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return ops.rms_norm(x, weight, 1e-3)

    assert_close(ops, run(norm, x, weight), truth)


@implementations
@pytest.mark.parametrize("size", [5, 64])
def test_add_rms_norm_also_returns_the_sum(ops: Any, size: int) -> None:
    x, residual, weight = normal(7, size) * 30, normal(7, size, seed=1), normal(size, seed=2) + 1
    total = x.astype(np.float64) + residual
    truth = total / np.sqrt((total**2).mean(-1, keepdims=True) + 1e-3) * weight

    def norm(x: Tensor, residual: Tensor, weight: Tensor) -> Tensor:
        return msops.stack(ops.add_rms_norm(x, residual, weight, 1e-3))

    normalised, summed = run(norm, x, residual, weight)
    assert_close(ops, normalised, truth)
    np.testing.assert_array_equal(summed, x + residual)


class RotateAndCache(nn.Cell):
    """`ops.rotate_and_cache` on two parameters; the rotated query, and what then is in the slots."""

    def __init__(self, ops: Any, caches: list[np.ndarray]) -> None:
        super().__init__()
        self.rotate_and_cache = ops.rotate_and_cache
        self.key, self.value = (Parameter(Tensor(cache), name=name) for cache, name in zip(caches, "kv", strict=True))
        self.kept = Parameter(Tensor(np.zeros(1, np.float32)), name="kept")  # another side effect, as a tap of validate

    def construct(self, *t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, cos, sin, slots = t
        msops.assign(self.kept, query.reshape(-1)[:1])
        rotated, keys, values = self.rotate_and_cache(query, key, value, cos, sin, self.key, self.value, slots)
        msops.assign(self.kept, keys.reshape(-1)[:1])
        return rotated, msops.gather(keys, slots, 0), msops.gather(values, slots, 0)


def rotated_in_float64(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """The first half turned against the second."""
    first, second = np.split(x.astype(np.float64), 2, -1)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


@implementations
def test_rotate_and_cache_turns_queries_and_keys_and_writes_only_the_slots(ops: Any) -> None:
    batch, heads, groups, length, size = 2, 4, 2, 9, 6
    caches = [normal(batch * groups * length, size, seed=seed) for seed in (10, 11)]
    expected = [cache.copy() for cache in caches]
    cell = RotateAndCache(ops, caches)
    ms.set_context(mode=ms.GRAPH_MODE, jit_syntax_level=ms.STRICT)
    for seq, first in ((7, 5), (1, 3), (1, 4)):  # the first wraps around the ring; the last two share a graph
        query, key = normal(batch, seq, heads, size, seed=seq), normal(batch, seq, groups, size, seed=first)
        value = normal(batch, seq, groups, size, seed=12)
        angles = normal(batch, seq, 1, size // 2, seed=1).astype(np.float64)
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        positions = (first + np.arange(seq)) % length
        slots = (np.arange(batch * groups).reshape(batch, 1, groups) * length + positions[:, None]).astype(np.int32)
        inputs = (Tensor(array) for array in (query, key, value, cos, sin, slots.reshape(-1)))
        rotated, keys, values = (output.asnumpy() for output in cell(*inputs))
        assert_close(ops, rotated, rotated_in_float64(query, angles))
        expected[0][slots.reshape(-1)] = rotated_in_float64(key, angles).reshape(-1, size)
        expected[1][slots.reshape(-1)] = value.reshape(-1, size)
        np.testing.assert_array_equal(values, value.reshape(-1, size))
        np.testing.assert_array_equal(keys, cell.key.asnumpy()[slots.reshape(-1)])
        assert_close(ops, cell.key.asnumpy(), expected[0])
        np.testing.assert_array_equal(cell.value.asnumpy(), expected[1])


@needs_kernels
@pytest.mark.parametrize("slot", [-1, 8])
def test_a_slot_that_does_not_exist_stops_the_graph(slot: int) -> None:
    one, angle = normal(1, 1, 1, 4), normal(1, 1, 1, 2)
    cell = RotateAndCache(cpu, [normal(8, 4), normal(8, 4)])
    ms.set_context(mode=ms.GRAPH_MODE, jit_syntax_level=ms.STRICT)
    with pytest.raises(RuntimeError, match="rotate_and_cache"):
        cell(*(Tensor(array) for array in (one, one, one, angle, angle, np.array([slot], np.int32))))[0].asnumpy()


@implementations
def test_clamped_swiglu_clamps_the_gate_above_and_up_on_both_sides(ops: Any) -> None:
    x = np.array([[-20, -9, 20, 9, 3, -3, 6.9, 7.1], [0, 0, -1, 1, 7, 7, -7, -7]], np.float32)
    gate = np.minimum(x[:, ::2].astype(np.float64), 7)
    up = np.clip(x[:, 1::2].astype(np.float64), -7, 7)
    truth = gate / (1 + np.exp(-1.702 * gate)) * (up + 1)

    def activate(x: Tensor) -> Tensor:
        return ops.clamped_swiglu(x, 7.0, 1.702)

    assert_close(ops, run(activate, x), truth)


# Both signs, from where the function is nearly linear to where it has long levelled off.
ARGUMENTS = np.concatenate([np.linspace(-30, 30, 993), np.geomspace(1e-20, 1, 50), [0, 90, -90]]).astype(np.float32)


def gate_in_float64(function: str, gate: np.ndarray) -> np.ndarray:
    wide = gate.astype(np.float64)
    if function == "gated_silu":
        return wide / (1 + np.exp(-wide))
    return wide / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))


@implementations
@pytest.mark.parametrize("function", ["gated_silu", "gated_gelu_tanh"])
def test_a_gate_is_right_for_all_magnitudes(ops: Any, function: str) -> None:
    up = normal(*ARGUMENTS.shape)

    def activate(gate: Tensor, up: Tensor) -> Tensor:
        return getattr(ops, function)(gate, up)

    assert_close(ops, run(activate, ARGUMENTS, up), gate_in_float64(function, ARGUMENTS) * up)


@needs_kernels
@pytest.mark.parametrize("function", ["gated_silu", "gated_gelu_tanh", "soft_cap"])
def test_small_arguments_keep_their_relative_precision(function: str) -> None:
    x = np.concatenate([np.geomspace(1e-30, 0.5, 301), -np.geomspace(1e-30, 0.5, 301)]).astype(np.float32)
    capped = function == "soft_cap"
    truth = 2 * np.tanh(x.astype(np.float64) / 2) if capped else gate_in_float64(function, x)

    def activate(x: Tensor, ones: Tensor) -> Tensor:
        return getattr(cpu, function)(x, 2.0 if capped else ones)

    worst = np.abs(run(activate, x, np.ones_like(x)) / truth - 1).max()
    print(f"{function}: relative error {worst:.2e}")
    assert worst <= 2.8e-7  # twice the measured


@implementations
@pytest.mark.parametrize("size", [5, 64, 130])
def test_swiglu_takes_the_gate_first(ops: Any, size: int) -> None:
    x = normal(7, 2 * size) * 4
    gate, up = x[:, :size].astype(np.float64), x[:, size:].astype(np.float64)

    def activate(x: Tensor) -> Tensor:
        return ops.swiglu(x)

    assert_close(ops, run(activate, x), gate / (1 + np.exp(-gate)) * up)


@implementations
def test_soft_cap_bounds_both_sides(ops: Any) -> None:
    x = np.linspace(-400, 400, 999, dtype=np.float32).reshape(27, 37)

    def cap(x: Tensor) -> Tensor:
        return ops.soft_cap(x, 30.0)

    assert_close(ops, run(cap, x), 30 * np.tanh(x.astype(np.float64) / 30))


@needs_kernels  # MindSpore's own minimum takes the number, which is not what Transformers' clamp does
@pytest.mark.parametrize("function", ["gated_silu", "gated_gelu_tanh", "soft_cap", "clamped_swiglu"])
def test_what_is_no_number_stays_none(function: str) -> None:
    x = np.linspace(-3, 3, 64, dtype=np.float32).reshape(2, 32)
    x[1, 4] = x[1, 20] = np.nan
    arguments = {"soft_cap": (30.0,), "clamped_swiglu": (7.0, 1.702)}.get(function)

    def activate(x: Tensor, ones: Tensor) -> Tensor:
        return getattr(cpu, function)(x, ones) if arguments is None else getattr(cpu, function)(x, *arguments)

    found = np.isnan(run(activate, x, np.ones_like(x)))
    assert not found[0].any()
    assert found[1].sum() == 2


@implementations
def test_a_gate_or_a_sum_with_nan_stays_nan(ops: Any) -> None:
    x, other = normal(2, 32), normal(2, 32, seed=1)
    other[1, 4] = np.nan

    def both(x: Tensor, other: Tensor, weight: Tensor) -> Tensor:
        normalised, total = ops.add_rms_norm(x, other, weight, 1e-5)
        return msops.stack((ops.gated_silu(x, other), normalised, total))

    gated, normalised, total = np.isnan(run(both, x, other, np.ones(32, np.float32)))
    assert gated.sum() == total.sum() == 1
    assert normalised[1].all()
    assert not normalised[0].any()


@implementations
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_attention_returns_nan_for_a_query_that_is_nan(ops: Any, softcap: float | None) -> None:
    query, keys, values = normal(1, 5, 2, 16), normal(8, 16, seed=1), normal(8, 16, seed=2)
    query[0, 3, 1, 7] = np.nan
    positions = np.arange(5, dtype=np.int32)[None]

    def attend(query: Tensor, keys: Tensor, values: Tensor, positions: Tensor) -> Tensor:
        mask = ops.attention_mask(positions, 8, None, ms.float32)
        return ops.attention(query, keys, values, mask, 0.3, None, softcap)

    found = np.isnan(run(attend, query, keys, values, positions)).reshape(5, 2, 16)
    assert found[3, 1].all()
    assert found.sum() == 16, "and no other head or token does"


def attention_in_float64(
    query: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    positions: np.ndarray,
    window: int | None,
    sinks: np.ndarray | None,
    softcap: float | None,
    scale: float,
) -> np.ndarray:
    """`keys` and `values` are ``[batch, groups, total, head_dim]``, in the order of positions: no ring, no mask."""
    batch, seq, heads, head_dim = query.shape
    groups = keys.shape[1]
    out = np.zeros((batch, seq, heads, head_dim))
    for b, t, h in np.ndindex(batch, seq, heads):
        end = positions[b, t] + 1
        begin = 0 if window is None else max(0, end - window)
        group = h // (heads // groups)
        scores = keys[b, group, begin:end].astype(np.float64) @ query[b, t, h] * scale
        if softcap is not None:
            scores = softcap * np.tanh(scores / softcap)
        weights = np.exp(scores)
        total = weights.sum() + (0 if sinks is None else np.exp(np.float64(sinks[h])))
        out[b, t, h] = weights / total @ values[b, group, begin:end]
    return out.reshape(batch * seq, heads * head_dim)


# Window, length of the ring, sinks, soft-cap, heads, head_dim.
ATTENTION = {
    "full": (None, 320, None, None, 2, 64),
    "full with sinks": (None, 320, "sinks", None, 8, 20),
    "ring": (24, 24 + 70, None, None, 8, 80),
    "ring with sinks": (24, 24 + 70, "sinks", None, 2, 20),
    "window of one": (1, 73, "sinks", None, 4, 16),
    "ring with soft-cap": (40, 113, None, 3.0, 4, 100),
}


@implementations
@pytest.mark.parametrize("case", ATTENTION)
@pytest.mark.parametrize("seq", [1, 19, 70])  # a token, less than a tile of queries, several
def test_attention_sees_its_window_through_a_ring(ops: Any, case: str, seq: int) -> None:
    window, length, with_sinks, softcap, heads, head_dim = ATTENTION[case]
    batch, groups, total = 2, 2, 320
    query = normal(batch, seq, heads, head_dim) * 2
    keys, values = normal(batch, groups, total, head_dim, seed=1), normal(batch, groups, total, head_dim, seed=2)
    sinks = normal(heads, seed=3) * 2 if with_sinks else None
    # The sequences stand at different positions; each ring holds what was written up to there.
    positions = np.stack([np.arange(seq) + 250, np.arange(seq) + 7]).astype(np.int32)
    ring_keys, ring_values = (np.full((batch, groups, length, head_dim), 99, np.float32) for _ in range(2))
    for b in range(batch):
        for p in range(max(0, positions[b, -1] + 1 - length), positions[b, -1] + 1):
            ring_keys[b, :, p % length], ring_values[b, :, p % length] = keys[b, :, p], values[b, :, p]
    truth = attention_in_float64(query, keys, values, positions, window, sinks, softcap, 0.3)
    flat = (-1, head_dim)

    def attend(query: Tensor, keys: Tensor, values: Tensor, positions: Tensor, sinks: Tensor) -> Tensor:
        mask = ops.attention_mask(positions, length, window, ms.float32)
        return ops.attention(query, keys, values, mask, 0.3, sinks if with_sinks else None, softcap)

    given = sinks if sinks is not None else np.zeros(heads, np.float32)
    ours = run(attend, query, ring_keys.reshape(flat), ring_values.reshape(flat), positions, given)
    assert_close(ops, ours, truth)


class Experts(nn.Cell):
    """`ops.experts` with an activation that keeps the first half, so that the truth is a plain product."""

    def __init__(self, ops: Any, bias: bool) -> None:
        super().__init__()
        self.ops = ops.experts
        self.bias = bias

    def construct(self, *t: Tensor) -> Tensor:
        x, indices, weights, gate_up, gate_up_bias, down, down_bias = t
        encodings = ("plain", "plain")
        if self.bias:
            return self.ops(x, indices, weights, (gate_up,), gate_up_bias, (down,), down_bias, first_half, encodings)
        return self.ops(x, indices, weights, (gate_up,), None, (down,), None, first_half, encodings)


def first_half(x: Tensor) -> Tensor:
    return x[..., : x.shape[-1] // 2]


@implementations
@pytest.mark.parametrize("tokens", [1, 30])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("routing", ["spread", "one expert takes all"])
def test_experts_sum_what_each_token_was_routed_to(ops: Any, tokens: int, bias: bool, routing: str) -> None:
    count, k, hidden, intermediate = 6, 2, 70, 35  # neither is a multiple of a vector: edges are computed too
    x = normal(tokens, hidden)
    gate_up, down = normal(count, hidden, 2 * intermediate, seed=1), normal(count, intermediate, hidden, seed=2)
    gate_up_bias, down_bias = normal(count, 2 * intermediate, seed=3), normal(count, hidden, seed=4)
    rng = np.random.default_rng(5)
    spread = [rng.permutation(count)[:k] for _ in range(tokens)]
    indices = np.array(spread if routing == "spread" else [[4, 1]] * tokens, np.int32)
    weights = np.abs(normal(tokens, k, seed=6))
    truth = np.zeros((tokens, hidden))
    for t, j in np.ndindex(tokens, k):
        e = indices[t, j]
        up = x[t].astype(np.float64) @ gate_up[e] + (gate_up_bias[e] if bias else 0)
        truth[t] += weights[t, j] * (up[:intermediate] @ down[e] + (down_bias[e] if bias else 0))
    ms.set_context(mode=ms.GRAPH_MODE, jit_syntax_level=ms.STRICT)
    tensors = [Tensor(a) for a in (x, indices, weights, gate_up, gate_up_bias, down, down_bias)]
    assert_close(ops, Experts(ops, bias)(*tensors).asnumpy(), truth)


@implementations
@pytest.mark.parametrize("tokens", [1, 30])
@pytest.mark.parametrize("routing", ["spread", "one expert takes all"])
def test_packed_experts_decode_what_each_token_was_routed_to(ops: Any, tokens: int, routing: str) -> None:
    count, k, hidden, intermediate = 6, 2, 96, 64
    x, rng = normal(tokens, hidden), np.random.default_rng(5)
    layers = [packed_layer(rng, count, 2 * intermediate, hidden), packed_layer(rng, count, hidden, intermediate)]
    spread = [rng.permutation(count)[:k] for _ in range(tokens)]
    indices = np.array(spread if routing == "spread" else [[4, 1]] * tokens, np.int32)
    weights = np.abs(normal(tokens, k, seed=6))
    (gate_up, up_bias), (down, down_bias) = ((decoded(b, s), bias) for b, s, bias in layers)
    truth = np.zeros((tokens, hidden))
    for t, j in np.ndindex(tokens, k):
        e = indices[t, j]
        up = gate_up[e] @ x[t].astype(np.float64) + up_bias[e]
        truth[t] += weights[t, j] * (down[e] @ up[:intermediate] + down_bias[e])

    def mix(*tensors: Tensor) -> Tensor:
        x, indices, weights, up_blocks, up_scales, up_bias, down_blocks, down_scales, down_bias = tensors
        gate_up, down = (up_blocks, up_scales), (down_blocks, down_scales)
        return ops.experts(x, indices, weights, gate_up, up_bias, down, down_bias, first_half, ("mxfp4", "mxfp4"))

    assert_close(ops, run(mix, x, indices, weights, *layers[0], *layers[1]), truth)


def packed_layer(rng: np.random.Generator, count: int, outputs: int, inputs: int) -> tuple[np.ndarray, ...]:
    """All codes, and scales of four orders of magnitude."""
    groups = inputs // mxfp4.BLOCK_VALUES
    blocks = rng.integers(0, 256, (count, outputs, groups, mxfp4.BLOCK_BYTES), np.uint8)
    scales = rng.integers(114, 128, (count, outputs, groups), np.uint8)
    return blocks, scales, rng.standard_normal((count, outputs), np.float32)


@needs_kernels
@pytest.mark.parametrize("columns", [1, 4, 7])
@pytest.mark.parametrize("scale", [2, 127, 252])  # below, MindSpore's threads flush subnormal values to zero
def test_every_code_is_decoded_exactly_at_every_scale(columns: int, scale: int) -> None:
    """One-hot rows read single values out of the weight: all 32 of a block, with its neighbour full of the largest."""
    blocks = np.random.default_rng(columns).integers(0, 256, (1, columns, 2, 16), np.uint8)
    scales = np.full((1, columns, 2), scale, np.uint8)
    x, group = np.eye(64, dtype=np.float32), np.zeros(64, np.int32)
    ours = run(cpu._GROUPED["mxfp4"], x, group, blocks, scales, np.zeros((1, columns), np.float32))
    np.testing.assert_array_equal(ours.T, decoded(blocks[0], scales[0]))


@needs_kernels
@pytest.mark.parametrize("expert", [-1, 6])
def test_an_expert_that_does_not_exist_stops_the_graph(expert: int) -> None:
    ms.set_context(mode=ms.GRAPH_MODE, jit_syntax_level=ms.STRICT)
    arrays = (normal(1, 8), np.array([[expert]], np.int32), np.ones((1, 1), np.float32))
    weights = (normal(6, 8, 16), normal(6, 16), normal(6, 8, 8), normal(6, 8))
    with pytest.raises(RuntimeError, match="grouped_linear"):
        Experts(cpu, bias=True)(*(Tensor(a) for a in (*arrays, *weights))).asnumpy()
