"""Element types and casts, compared with torch bit by bit."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from msport.checkpoint import dtypes
from msport.checkpoint.dtypes import BFLOAT16, DTYPES, FLOAT16, FLOAT32, FLOAT64, INT8, DType, cast
from msport.errors import CheckpointError, UnsupportedError

Array = NDArray[Any]

# Around each of these the rounding, the overflow or the class of a value changes.
SPECIAL_FLOAT32 = (
    0x00000000,  # 0
    0x00000001,  # the smallest subnormal
    0x00007FFF,  # just below half of bfloat16's smallest
    0x00008000,  # exactly half: to even, 0
    0x00008001,
    0x007FFFFF,  # the largest subnormal
    0x00800000,
    0x33000000,  # 2**-25: half of float16's smallest
    0x33000001,
    0x387FE000,  # halfway between float16's largest subnormal and its smallest normal
    0x3F800000,  # 1
    0x3F807FFF,
    0x3F808000,  # halfway, even below
    0x3F808001,
    0x3F818000,  # halfway, even above
    0x3F801000,  # halfway for float16, even below
    0x3F803000,  # halfway for float16, even above
    0x477FE000,  # 65504, float16's largest
    0x477FEFFF,  # just below the halfway to 65536
    0x477FF000,  # the halfway: overflows
    0x7F7F7FFF,  # the largest that does not round to infinity in bfloat16
    0x7F7F8000,
    0x7F7FFFFF,  # float32's largest
    0x7F800000,  # infinity
)
NANS_FLOAT32 = (0x7F800001, 0x7F80FFFF, 0x7FBFFFFF, 0x7FC00000, 0x7FFF8000, 0x7FFFFFFF)


def float32_patterns() -> Array:
    generator = np.random.default_rng(0)
    special = np.array(SPECIAL_FLOAT32, np.uint32)
    random = generator.integers(0, 2**32, 300_000, dtype=np.uint32)
    random = random[~np.isnan(random.view(np.float32))]
    patterns: Array = np.concatenate([special, special | 0x80000000, random])
    return patterns.view(np.float32)


def every_16_bit_pattern(dtype: DType) -> Array:
    return np.arange(65536, dtype=np.uint16).view(dtype.storage)


def torch_cast(array: Array, source: DType, target: DType) -> Array:
    import torch

    bits = {2: torch.int16, 4: torch.int32}
    tensor = torch.from_numpy(array.view(f"i{source.itemsize}").copy()).view(getattr(torch, source.name))
    result: Array = tensor.to(getattr(torch, target.name)).view(bits[target.itemsize]).numpy()
    stored: Array = result.view(target.storage)
    return stored


def is_nan(array: Array, dtype: DType) -> NDArray[np.bool_]:
    nan: NDArray[np.bool_] = np.isnan(
        array if dtype is not BFLOAT16 else (array.astype(np.uint32) << 16).view(np.float32)
    )
    return nan


def assert_same(ours: Array, theirs: Array, dtype: DType) -> None:
    """Equal bits, except that one NaN is as good as another."""
    nan = is_nan(theirs, dtype)
    np.testing.assert_array_equal(is_nan(ours, dtype), nan)
    unsigned = f"u{dtype.itemsize}"
    np.testing.assert_array_equal(ours.view(unsigned)[~nan], theirs.view(unsigned)[~nan])


@pytest.mark.reference
@pytest.mark.parametrize("target", [FLOAT32, FLOAT16], ids=lambda dtype: dtype.name)
def test_every_bfloat16_casts_as_torch_casts_it(target: DType) -> None:
    patterns = every_16_bit_pattern(BFLOAT16)
    assert_same(cast(patterns, BFLOAT16, target), torch_cast(patterns, BFLOAT16, target), target)


@pytest.mark.reference
@pytest.mark.parametrize("target", [FLOAT32, BFLOAT16], ids=lambda dtype: dtype.name)
def test_every_float16_casts_as_torch_casts_it(target: DType) -> None:
    patterns = every_16_bit_pattern(FLOAT16)
    assert_same(cast(patterns, FLOAT16, target), torch_cast(patterns, FLOAT16, target), target)


@pytest.mark.reference
@pytest.mark.parametrize("target", [BFLOAT16, FLOAT16], ids=lambda dtype: dtype.name)
def test_float32_rounds_as_torch_rounds_it(target: DType) -> None:
    values = float32_patterns()
    assert_same(cast(values, FLOAT32, target), torch_cast(values, FLOAT32, target), target)


@pytest.mark.parametrize("target", [BFLOAT16, FLOAT16], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("sign", [0, 0x80000000])
def test_a_nan_stays_a_nan_with_its_sign(target: DType, sign: int) -> None:
    values = (np.array(NANS_FLOAT32, np.uint32) | np.uint32(sign)).view(np.float32)
    result = cast(values, FLOAT32, target)
    assert is_nan(result, target).all()
    assert (result.view(np.uint16) >> 15 == sign >> 31).all()


def test_bfloat16_survives_the_way_to_float32_and_back() -> None:
    patterns = every_16_bit_pattern(BFLOAT16)
    back = cast(cast(patterns, BFLOAT16, FLOAT32), FLOAT32, BFLOAT16)
    signalling = is_nan(patterns, BFLOAT16) & (patterns & 0x40 == 0)
    np.testing.assert_array_equal(back[~signalling], patterns[~signalling])
    np.testing.assert_array_equal(back[signalling], patterns[signalling] | 0x40)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (70_001,), (3, 5, 7)])
def test_a_cast_keeps_the_shape_and_fills_the_given_array(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    out = np.full(shape, 7, np.uint16)
    assert cast(array, FLOAT32, BFLOAT16, out) is out
    np.testing.assert_array_equal(cast(out, BFLOAT16, FLOAT32), cast(cast(array, FLOAT32, BFLOAT16), BFLOAT16, FLOAT32))
    np.testing.assert_allclose(cast(out, BFLOAT16, FLOAT32), array, rtol=2**-8)


def test_a_strided_array_is_cast_like_any_other() -> None:
    array = np.random.default_rng(0).standard_normal((40, 50)).astype(np.float32)[::3, ::-2].T
    np.testing.assert_array_equal(cast(array, FLOAT32, BFLOAT16), cast(array.copy(), FLOAT32, BFLOAT16))


def test_the_same_dtype_is_a_copy() -> None:
    array = np.arange(4, dtype=np.int8)
    result = cast(array, INT8, INT8)
    np.testing.assert_array_equal(result, array)
    assert not np.shares_memory(result, array)


@pytest.mark.parametrize(("source", "target"), [(FLOAT32, BFLOAT16), (BFLOAT16, FLOAT16), (FLOAT16, BFLOAT16)])
def test_scratch_memory_does_not_grow_with_the_tensor(source: DType, target: DType) -> None:
    array, out = np.zeros(10_000_000, source.storage), np.empty(10_000_000, target.storage)
    cast(array[:10], source, target)
    tracemalloc.start()
    cast(array, source, target, out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(("source", "target"), [(FLOAT32, INT8), (FLOAT64, BFLOAT16), (INT8, FLOAT32)])
def test_other_casts_are_refused(source: DType, target: DType) -> None:
    with pytest.raises(UnsupportedError, match=f"does not cast {source.name} to {target.name}"):
        cast(np.zeros(1, source.storage), source, target)


@pytest.mark.parametrize("out", [np.empty(2, np.uint16), np.empty(3, np.float32), np.empty(6, np.uint16)[::2]])
def test_an_out_array_that_does_not_fit_is_a_mistake(out: Array) -> None:
    with pytest.raises(ValueError, match="out must be a C-contiguous uint16 array"):
        cast(np.zeros(3, np.float32), FLOAT32, BFLOAT16, out)


def test_an_array_of_another_dtype_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="bfloat16 is held as uint16"):
        cast(np.zeros(3, np.float32), BFLOAT16, FLOAT32)


@pytest.mark.reference
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_every_dtype_is_found_by_each_of_its_names(dtype: DType) -> None:
    import torch

    assert dtypes.by_name(dtype.name) is dtype
    assert dtypes.by_safetensors(dtype.safetensors) is dtype
    assert dtype.ckpt is None or dtypes.by_ckpt(dtype.ckpt) is dtype
    assert getattr(torch, dtype.name).itemsize == dtype.itemsize


def test_an_unknown_name_lists_the_known_ones() -> None:
    assert dtypes.by_safetensors("F31") is None
    assert dtypes.by_ckpt("str") is None
    with pytest.raises(
        CheckpointError, match="unknown dtype 'half': choose one of float64, float32, float16, bfloat16"
    ):
        dtypes.by_name("half")
