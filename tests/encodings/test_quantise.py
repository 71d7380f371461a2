"""The scale of a group is the best of those tried, never worse than the usual one; what has no code is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32, INT8, Array, DType, cast
from msport.encodings import Grouped
from msport.encodings.quantise import divisors, quantise
from msport.errors import CheckpointError, UnsupportedError

FLOATS = (FLOAT32, FLOAT16, BFLOAT16)
encodings = st.builds(
    Grouped,
    bits=st.sampled_from([4, 8]),
    group=st.sampled_from([32, 96, 288]),
    scale_dtype=st.sampled_from(FLOATS),
    offsets=st.booleans(),
)


def random_weights(shape: tuple[int, ...], seed: int, exponent: int = -5) -> Array:
    """Float32 weights; the spread differs from row to row, and some groups are not centred on zero."""
    generator = np.random.default_rng(seed)
    weights: Array = generator.standard_normal(shape) + generator.choice([0, 0, 1, -4], (*shape[:-1], 1))
    weights *= np.exp(generator.standard_normal((*shape[:-1], 1))) * 2.0**exponent
    return weights.astype(np.float32)


def errors(weights: Array, encoding: Grouped) -> Array:
    """The squared error of each group after quantising, float64."""
    decoded = encoding.decode(quantise(weights, FLOAT32, encoding), FLOAT32)
    squares: Array = (weights.astype(np.float64) - decoded) ** 2
    totals: Array = squares.reshape(-1, encoding.group).sum(axis=1)
    return totals


def errors_with(weights: Array, encoding: Grouped, divisor: float) -> Array:
    """The same with the scale of one divisor, in float64 but for the scale and the zero point."""
    groups = weights.reshape(-1, encoding.group).astype(np.float64)
    low, high = groups.min(axis=1), groups.max(axis=1)
    if encoding.offsets:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        span = high - low
    else:
        span = np.where(high >= -low, high, low)
    scales = (span.astype(np.float32) / np.float32(divisor)).astype(np.float32)
    scale = cast(cast(scales, FLOAT32, encoding.scale_dtype), encoding.scale_dtype, FLOAT32).astype(np.float64)
    count = 1 << encoding.bits
    first = -count / 2 * np.ones_like(scale)
    if encoding.offsets:
        middle = ((low + high) / 2).astype(np.float32) * (1 / scale).astype(np.float32)
        first = np.clip(np.rint(middle - np.float32((count - 1) / 2)), 1 - count, 0)
    levels = np.clip(np.rint(groups / scale[:, None]), first[:, None], first[:, None] + count - 1)
    squared: Array = ((groups - levels * scale[:, None]) ** 2).sum(axis=1)
    return squared


@settings(max_examples=40)
@given(encoding=encodings, seed=st.integers(0, 99))
def test_a_group_has_the_least_error_of_all_scales_tried(encoding: Grouped, seed: int) -> None:
    weights = random_weights((6, 288), seed)
    tried = np.stack([errors_with(weights, encoding, float(divisor)) for divisor in divisors(encoding)])
    # A weight in the middle of two codes may go either way, so the sums differ in their last bits.
    np.testing.assert_allclose(errors(weights, encoding), tried.min(axis=0), rtol=1e-4)


@settings(max_examples=40)
@given(encoding=encodings, seed=st.integers(0, 99))
def test_no_group_is_worse_than_with_the_usual_scale(encoding: Grouped, seed: int) -> None:
    weights = random_weights((6, 288), seed)
    most = 2**encoding.bits - 1 if encoding.offsets else 2 ** (encoding.bits - 1) - 1
    assert (errors(weights, encoding) <= errors_with(weights, encoding, most) * (1 + 1e-4)).all()


def q4_0(groups: Array) -> Array:
    """What ggml's quantize_row_q4_0_ref makes of ``[groups, 32]``, decoded."""
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=1)[:, None], axis=1)
    scale = largest / np.float32(-8)
    codes = np.minimum(15, np.trunc(groups * (1 / scale) + np.float32(8.5))) - 8
    decoded: Array = codes * scale.astype(np.float16).astype(np.float32)
    return decoded


def q8_0(groups: Array) -> Array:
    """What ggml's quantize_row_q8_0_ref makes of ``[groups, 32]``, decoded."""
    scale = np.abs(groups).max(axis=1, keepdims=True) / np.float32(127)
    decoded: Array = np.round(groups * (1 / scale)) * scale.astype(np.float16).astype(np.float32)
    return decoded


@pytest.mark.parametrize(("bits", "rule", "ratio"), [(4, q4_0, 0.92), (8, q8_0, 0.82)])
def test_gaussian_weights_lose_less_than_in_llama_cpp(bits: int, rule: Any, ratio: float) -> None:
    weights = np.random.default_rng(0).standard_normal((512, 256)).astype(np.float32)
    groups = weights.reshape(-1, 32)
    assert errors(weights, Grouped(bits)).sum() < ratio * ((groups - rule(groups)).astype(np.float64) ** 2).sum()


@given(
    bits=st.sampled_from([4, 8]),
    offsets=st.booleans(),
    scale=st.sampled_from([2.0**-9, -(2.0**-3), 0.76171875, 3.0]),
    seed=st.integers(0, 99),
)
def test_weights_that_codes_hold_exactly_stay_as_they_are(bits: int, offsets: bool, scale: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    most = 1 << bits - 1
    levels = generator.integers(-most, most, (7, 3, 32))
    if offsets:
        levels[..., :2] = -most, most - 1
        levels += generator.integers(1 - most, most + 1, (7, 3, 1))
        scale = 2.0 ** math.frexp(scale)[1]
    else:
        levels[..., 0] = -most
    weights = (levels * scale).astype(np.float32).reshape(7, 96)
    encoding = Grouped(bits, offsets=offsets)
    np.testing.assert_array_equal(encoding.decode(quantise(weights, FLOAT32, encoding), FLOAT32), weights)


@given(encoding=encodings, dtype=st.sampled_from(FLOATS))
def test_zeros_have_scale_one(encoding: Grouped, dtype: DType) -> None:
    weights = random_weights((3, 576), 0)
    weights[1] = 0
    weights[2, 288:] = -0.0
    parts = quantise(cast(weights, FLOAT32, dtype), dtype, encoding)
    encoding.check(parts, "x")
    scales = cast(parts[1], encoding.scale_dtype, FLOAT32)
    assert (scales[1] == 1).all()
    assert (scales[2, scales.shape[1] // 2 :] == 1).all()
    decoded = encoding.decode(parts, FLOAT32)
    assert not decoded[1].any()
    assert not decoded[2, 288:].any()


@given(encoding=encodings, dtype=st.sampled_from(FLOATS), seed=st.integers(0, 99), begin=st.integers(0, 8))
def test_any_range_of_outputs_can_be_quantised_by_itself(
    encoding: Grouped, dtype: DType, seed: int, begin: int
) -> None:
    weights = cast(random_weights((2, 9, 288), seed), FLOAT32, dtype)
    whole = quantise(weights, dtype, encoding)
    out = [np.zeros(part.shape, part.dtype.storage) for part in encoding.parts("w", weights.shape)]
    for rows in (slice(begin, None), slice(0, begin)):
        quantise(weights[:, rows], dtype, encoding, [array[:, rows] for array in out])
    for ours, expected in zip(out, whole, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_weights_may_have_any_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msport.encodings.quantise._COPIED_VALUES", 200)
    weights, encoding = random_weights((2, 7, 64), 0), Grouped(4, offsets=True)
    whole = quantise(weights, FLOAT32, encoding)
    for other in (
        np.asfortranarray(weights),
        weights[:, ::-1].copy()[:, ::-1],
        np.repeat(weights, 2, axis=-1)[..., ::2],
    ):
        for ours, expected in zip(quantise(other, FLOAT32, encoding), whole, strict=True):
            np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("exponent", [-149, -126, -100, 100, 120])
@pytest.mark.parametrize("bits", [4, 8])
def test_tiny_and_huge_weights_keep_a_valid_scale(bits: int, exponent: int) -> None:
    weights = np.ldexp(np.linspace(-1, 1, 64, dtype=np.float32), exponent).reshape(1, 64)
    encoding = Grouped(bits)
    decoded = encoding.decode(quantise(weights, FLOAT32, encoding), FLOAT32)
    largest = 2.0**exponent
    # Half a step, or a whole weight if that is below the smallest scale.
    assert np.abs(decoded - weights).max() <= max(largest / 2 ** (bits - 1) * 1.01, 2.0**-127)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: dtype.name)
def test_a_weight_that_is_not_finite_is_refused_with_its_place(value: float, dtype: DType) -> None:
    weights = random_weights((2, 9, 64), 0)
    weights[1, 7, 33] = value
    with pytest.raises(CheckpointError) as refused:
        quantise(cast(weights, FLOAT32, dtype), dtype, Grouped(4), where="a.safetensors: tensor 'w'")
    assert str(refused.value) == (
        f"a.safetensors: tensor 'w': the weight of output 7 and input 33 is {value}, which has no code; download the"
        " file again"
    )


def test_a_scale_beyond_its_dtype_is_refused() -> None:
    weights = np.full((1, 32), 1e6, np.float32)
    with pytest.raises(UnsupportedError, match=r"^w: float16 cannot hold the scale of its largest value; choose"):
        quantise(weights, FLOAT32, Grouped(4, scale_dtype=FLOAT16), where="w")
    quantise(weights, FLOAT32, Grouped(8, scale_dtype=FLOAT16))


def test_groups_that_do_not_fit_and_other_dtypes_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"tensor 'w': groups of 32 do not fit 80 inputs; .* 80$"):
        quantise(np.zeros((1, 80), np.float32), FLOAT32, Grouped(4), where="w")
    with pytest.raises(TypeError):
        quantise(np.zeros((1, 32), np.int8), INT8, Grouped(4))
    with pytest.raises(TypeError):
        quantise(np.zeros((1, 32), np.float32), FLOAT32, Grouped(4, order=True))
    with pytest.raises(ValueError, match="out must be uint8 of shape"):
        quantise(np.zeros((1, 32), np.float32), FLOAT32, Grouped(4), [np.zeros((1, 15), np.uint8), np.zeros((1, 1))])
