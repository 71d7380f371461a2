"""The fused form means what the portable one means, if its operators mean what their documents say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from inspect import isfunction
from typing import Any

import numpy as np
import pytest
from acceptance import contracts
from hypothesis import given, settings
from hypothesis import strategies as st

from msmodels.ops.ascend.arrays import Array, array, ascend, portable, put_arrays_in_place
from msport.checkpoint.dtypes import BFLOAT16, FLOAT32
from msport.encodings import Grouped, Transposed, mxfp4
from msport.encodings.grouped import pack
from msport.msmodels.ops import decoding
from msport.msmodels.ops.ascend import operators, signatures
from msport.sizing import cann

# Of values around 1, in float64.
TOLERANCE = 1e-6
examples = settings(max_examples=60)
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module", autouse=True)
def _arrays() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        put_arrays_in_place(patch)
        yield


def normal(seed: int, *shape: int) -> Array:
    return array(np.random.default_rng(seed).standard_normal(shape))


def assert_equal(fused: Any, portable_: Any) -> None:
    assert fused.shape == portable_.shape
    np.testing.assert_allclose(np.asarray(fused), np.asarray(portable_), rtol=0, atol=TOLERANCE)


def test_every_operator_has_a_contract_and_every_contract_an_operator() -> None:
    own = {
        name
        for name, value in vars(signatures).items()
        if isfunction(value) and not name.startswith("_") and name != "bias_dtype"
    }
    assert own == {contract.function for contract in contracts.CONTRACTS}
    for contract in contracts.CONTRACTS:
        assert all((contract.source, contract.promised, contract.open_question)), contract.function


@examples
@given(seeds, st.integers(1, 5), st.integers(1, 40))
def test_norms(seed: int, rows: int, size: int) -> None:
    x, residual, weight = normal(seed, rows, size), normal(seed + 1, rows, size), normal(seed + 2, size)
    assert_equal(ascend.rms_norm(x, weight, 1e-5), portable.rms_norm(x, weight, 1e-5))
    for fused, expected in zip(
        ascend.add_rms_norm(x, residual, weight, 1e-5), portable.add_rms_norm(x, residual, weight, 1e-5), strict=True
    ):
        assert_equal(fused, expected)


@examples
@given(seeds, st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 9))
def test_rotary(seed: int, batch: int, seq: int, heads: int, half: int) -> None:
    x, angles = normal(seed, batch, seq, heads, 2 * half), normal(seed + 1, batch, seq, 1, half)
    cos, sin = 1.35 * np.cos(angles), 1.35 * np.sin(angles)
    assert_equal(operators.apply_rotary(x, cos, sin), portable.apply_rotary(x, cos, sin))


@examples
@given(seeds, st.integers(1, 6), st.integers(1, 20))
def test_activations(seed: int, rows: int, size: int) -> None:
    x = 6 * normal(seed, rows, 2 * size)  # beyond the clamp at 7 too
    assert_equal(ascend.swiglu(x), portable.swiglu(x))
    arranged = array(ascend.arrange_gate_up(x, 1))
    assert_equal(ascend.clamped_swiglu(arranged, 7.0, 1.702), portable.clamped_swiglu(x, 7.0, 1.702))


class Caches:
    """The keys and values of a layer in the form of one implementation."""

    def __init__(self, ops: Any, batch: int, groups: int, length: int, head_dim: int, window: int | None) -> None:
        # What was never written must not be seen, whatever it is.
        self.key, self.value = (array(np.full((batch * groups * length, head_dim), 1e3)) for _ in range(2))
        self.ops, self.groups, self.length, self.window = ops, groups, length, window

    def attend(self, positions: Array, query: Array, key: Array, value: Array, sinks: Any, softcap: Any) -> Array:
        slots = portable.cache_slots(positions, self.groups, self.length)
        mask = self.ops.attention_mask(positions, self.length, self.window, np.dtype(np.float64))
        angles = positions[..., None, None] / (1 + np.arange(query.shape[-1] // 2))
        caches = (self.key, self.value, slots)
        query, keys, values = self.ops.rotate_and_cache(query, key, value, np.cos(angles), np.sin(angles), *caches)
        return self.ops.attention(query, keys, values, mask, 0.3, sinks, softcap)


@settings(max_examples=40)
@given(
    seed=seeds,
    batch=st.integers(1, 3),
    groups=st.integers(1, 3),
    repeats=st.integers(1, 4),
    head_dim=st.sampled_from([16, 32, 12]),  # the last is no multiple of 16: composed
    chunk=st.integers(2, 7),
    window=st.one_of(st.none(), st.integers(1, 9)),
    chunks=st.integers(1, 5),
    decoded=st.integers(0, 4),
    with_sinks=st.booleans(),
    softcap=st.one_of(st.none(), st.just(2.0)),
)
def test_attention_over_the_caches(
    seed: int,
    batch: int,
    groups: int,
    repeats: int,
    head_dim: int,
    chunk: int,
    window: int | None,
    chunks: int,
    decoded: int,
    with_sinks: bool,
    softcap: float | None,
) -> None:
    """Chunks of prompts, then tokens one by one, past the window and around the ring; sequences at different places."""
    context = (chunks + 2) * chunk + decoded
    length = context if window is None else min(context, window + chunk)
    both = [Caches(ops, batch, groups, length, head_dim, window) for ops in (ascend, portable)]
    heads = groups * repeats
    sinks = 2 * normal(seed, heads) if with_sinks else None
    # Each sequence starts as many chunks later as its number, up to two: shorter prompts repeat their last chunk.
    counts = [max(1, chunks - row) for row in range(batch)]
    starts = [[min(step, count - 1) * chunk for count in counts] for step in range(chunks)]
    lengths = np.array(counts) * chunk - np.arange(batch) % chunk  # the last chunk may carry padding
    steps = [(np.array(start), chunk) for start in starts] + [(lengths + step, 1) for step in range(decoded)]
    for number, (start, seq) in enumerate(steps):
        positions = array(start[:, None] + np.arange(seq))
        query = normal(seed + 3 * number, batch, seq, heads, head_dim)
        # Of a repeated chunk the same keys are written again.
        seeded = [seed + 7919 * row + 13 * int(at) for row, at in enumerate(start)]
        key, value = (
            array(np.stack([normal(each + which, seq, groups, head_dim) for each in seeded])) for which in (1, 2)
        )
        fused, expected = (caches.attend(positions, query, key, value, sinks, softcap) for caches in both)
        assert np.isfinite(expected).all()
        assert_equal(fused, expected)


@examples
@given(seeds, st.integers(1, 9), st.integers(1, 8), st.data(), st.booleans())
def test_routing_by_softmax_over_all(seed: int, tokens: int, experts: int, data: Any, normalize: bool) -> None:
    k = data.draw(st.integers(1, experts))
    logits = normal(seed, tokens, experts)
    for fused, expected in zip(
        ascend.softmax_top_k(logits, k, normalize), portable.softmax_top_k(logits, k, normalize), strict=True
    ):
        assert_equal(fused, expected)


@examples
@given(
    seed=seeds,
    tokens=st.integers(1, 12),
    count=st.integers(1, 7),
    bias=st.booleans(),
    routing=st.sampled_from(["spread", "one expert takes all", "few experts"]),
    data=st.data(),
)
def test_experts(seed: int, tokens: int, count: int, bias: bool, routing: str, data: Any) -> None:
    """Experts without tokens, one with all of them; permutation and its inverse."""
    k = 1 if routing == "one expert takes all" else data.draw(st.integers(1, count))
    hidden, intermediate = 6, 5
    rng = np.random.default_rng(seed)
    if routing == "spread":
        indices = np.stack([rng.permutation(count)[:k] for _ in range(tokens)])
    else:  # the same experts for every token: the others stay empty
        indices = np.tile(rng.permutation(count)[:k], (tokens, 1))
    x, shares = normal(seed, tokens, hidden), array(rng.random((tokens, k)))
    gate_up, down = normal(seed + 1, count, hidden, 2 * intermediate), normal(seed + 2, count, intermediate, hidden)
    biases = (normal(seed + 3, count, 2 * intermediate), normal(seed + 4, count, hidden)) if bias else (None, None)

    def run(ops: Any) -> Array:
        encodings = ("plain", "plain")
        return ops.experts(
            x, array(indices), shares, (gate_up,), biases[0], (down,), biases[1], portable.swiglu, encodings
        )

    assert_equal(run(ascend), run(portable))


def quantised(seed: int, encoding: Grouped, *shape: int) -> tuple[tuple[Array, ...], Array]:
    """What loading makes of random parts for CANN's products, in the numbers that the device sees, and the matrix."""
    rng = np.random.default_rng(seed)
    most = 1 << encoding.bits - 1
    groups = (*shape[:-1], shape[-1] // encoding.group)
    codes = pack(rng.integers(-most, most, shape).astype(np.float32), encoding.bits)
    parts = [codes, (rng.integers(1, 8, groups) / 256).astype(np.float32)]
    if encoding.offsets:
        parts.append(rng.integers(-most, most + 1, groups).astype(np.float32))
    if encoding.order:
        parts.append(rng.permutation(shape[-1]).astype(np.int32))
    stored, *others = Transposed(encoding).transpose(parts)
    pairs = stored.view(np.uint8) if encoding.bits == 4 else stored
    floats = (part if part.dtype == np.int32 else part.astype(np.float64) for part in others)
    return (array(pairs), *map(array, floats)), array(encoding.decode(parts, FLOAT32).astype(np.float64))


@examples
@given(
    seed=seeds,
    tokens=st.integers(1, 6),
    encoding=st.builds(
        Grouped,
        bits=st.sampled_from([4, 8]),
        group=st.sampled_from([32, 96]),
        scale_dtype=st.just(FLOAT32),
        offsets=st.booleans(),
        order=st.booleans(),
    ),
    bias=st.booleans(),
)
def test_quantised_layers(seed: int, tokens: int, encoding: Grouped, bias: bool) -> None:
    """int4 and int8, in groups and with one scale per output, symmetric and not, in act-order and not."""
    matrix, weight = quantised(seed, encoding, 10, 96)
    x, shift = normal(seed + 1, tokens, 96), normal(seed + 2, 10) if bias else None
    expected = x @ weight.T + (0 if shift is None else shift)
    assert_equal(ascend.linear(x, matrix, shift, "transposed"), expected)


@examples
@given(
    seed=seeds,
    tokens=st.integers(1, 9),
    count=st.integers(1, 5),
    encoding=st.sampled_from(
        [
            Grouped(4, 32, FLOAT32),
            Grouped(4, 64, FLOAT32),
            Grouped(4, 64, FLOAT32, offsets=True),
            Grouped(8, 64, FLOAT32),
            Grouped(8, 64, FLOAT32, offsets=True),
        ]
    ),
    bias=st.booleans(),
    data=st.data(),
)
def test_quantised_experts(seed: int, tokens: int, count: int, encoding: Grouped, bias: bool, data: Any) -> None:
    """Those of which CANN documents a product; `down` may be plain."""
    assert cann.takes_experts(replace(encoding, scale_dtype=BFLOAT16), (count, 64, 64), "bfloat16")
    k = data.draw(st.integers(1, count))
    rng = np.random.default_rng(seed)
    indices = array(np.stack([rng.permutation(count)[:k] for _ in range(tokens)]))
    x, shares = normal(seed, tokens, 64), array(rng.random((tokens, k)))
    (gate_up, up), (down, plain) = (
        quantised(seed, encoding, count, 128, 64),
        quantised(seed + 1, encoding, count, 64, 64),
    )
    biases = (normal(seed + 3, count, 128), normal(seed + 4, count, 64)) if bias else (None, None)

    def run(ops: Any, first: Any, second: Any, *encodings: str) -> Array:
        return ops.experts(x, indices, shares, first, biases[0], second, biases[1], portable.swiglu, encodings)

    plain_up, plain_down = (array(up.swapaxes(1, 2)),), (array(plain.swapaxes(1, 2)),)
    expected = run(portable, plain_up, plain_down, "plain", "plain")
    assert_equal(run(ascend, gate_up, down, "transposed", "transposed"), expected)
    assert_equal(run(ascend, gate_up, plain_down, "transposed", "plain"), expected)


def packed_weights(seed: int, *shape: int) -> tuple[Array, Array, Array]:
    """Blocks, scales and, by ``encodings.mxfp4``, what they stand for, ``[experts, outputs, inputs]``."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (*shape, 16), np.uint8)
    scales = rng.integers(120, 128, shape, np.uint8)
    decoded = np.stack([mxfp4.decode_transposed(b, s, FLOAT32).T for b, s in zip(blocks, scales, strict=True)])
    return array(blocks), array(scales), array(decoded.astype(np.float64))


def test_every_code_at_every_scale_decodes_to_what_the_converter_makes_of_it() -> None:
    codes = np.arange(256, dtype=np.uint8).reshape(1, 16, 1, 16)
    for scale in range(253):
        scales = np.full((1, 16, 1), scale, np.uint8)
        expected = mxfp4.decode_transposed(codes[0], scales[0], FLOAT32).T.astype(np.float64)
        decoded = np.asarray(decoding.decode((array(codes), array(scales)), "mxfp4", np.dtype(np.float64)))[0]
        np.testing.assert_array_equal(decoded[:, :16], expected[:, ::2])
        np.testing.assert_array_equal(decoded[:, 16:], expected[:, 1::2])


@settings(max_examples=30)
@given(seeds, st.integers(1, 6), st.sampled_from([1, 2, 3, 5, 8]), st.data())
def test_packed_experts(seed: int, tokens: int, count: int, data: Any) -> None:
    """Against the same weights unpacked, in both orders of gate and up; few tokens and many."""
    k = data.draw(st.integers(1, count))
    hidden, intermediate = 64, 32
    rng = np.random.default_rng(seed)
    indices = array(np.stack([rng.permutation(count)[:k] for _ in range(tokens)]))
    x, shares = normal(seed, tokens, hidden) / 8, array(rng.random((tokens, k)))
    up_blocks, up_scales, up = packed_weights(seed, count, 2 * intermediate, hidden // 32)
    down_blocks, down_scales, down = packed_weights(seed + 1, count, hidden, intermediate // 32)
    up_bias, down_bias = normal(seed + 2, count, 2 * intermediate), normal(seed + 3, count, hidden)

    def activation(ops: Any) -> Any:
        return lambda projected: ops.clamped_swiglu(projected, 7.0, 1.702)

    expected = portable.experts(
        x,
        indices,
        shares,
        (up.swapaxes(1, 2),),
        up_bias,
        (down.swapaxes(1, 2),),
        down_bias,
        activation(portable),
        ("plain", "plain"),
    )
    for ops in (portable, ascend):
        *gate_up, bias = (array(ops.arrange_gate_up(each, 1)) for each in (up_blocks, up_scales, up_bias))
        packed = (down_blocks, down_scales)
        encodings = ("mxfp4", "mxfp4")
        found = ops.experts(x, indices, shares, tuple(gate_up), bias, packed, down_bias, activation(ops), encodings)
        assert_equal(found, expected)
