"""int4 and int8 in groups: every value is the exact product, rounded once; bad parts end in one clear line."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msport.checkpoint import TensorInfo
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, INT8, INT32, UINT8, Array, DType, cast
from msport.encodings import Grouped, find, nbytes
from msport.encodings.grouped import pack, unpack
from msport.errors import CheckpointError, UnsupportedError

# Bits of the significand, and the exponent of the smallest subnormal value.
FORMATS = {FLOAT32: (24, -149), FLOAT16: (11, -24), BFLOAT16: (8, -133)}
INPUTS = 96
encodings = st.builds(
    Grouped,
    bits=st.sampled_from([4, 8]),
    group=st.sampled_from([32, INPUTS]),
    scale_dtype=st.sampled_from(list(FORMATS)),
    offsets=st.booleans(),
    order=st.booleans(),
)


def stored(values: Any, dtype: DType) -> Array:
    return cast(np.array(values, np.float32), FLOAT32, dtype)


def random_parts(encoding: Grouped, shape: tuple[int, ...], seed: int, exponent: int = -4) -> list[Array]:
    generator = np.random.default_rng(seed)
    codes, scales, *others = encoding.parts("w", shape)
    levels = generator.integers(-128, 128, codes.shape).astype(np.int8).view(encoding.code_dtype.storage)
    parts = [levels, stored(np.ldexp(generator.standard_normal(scales.shape), exponent), encoding.scale_dtype)]
    most = 1 << encoding.bits - 1
    for part in others:
        if part.dtype == INT32:
            parts.append(generator.permuted(np.broadcast_to(np.arange(shape[-1], dtype=np.int32), part.shape), axis=-1))
        else:
            parts.append(stored(generator.integers(-most, most + 1, part.shape), part.dtype))
    return parts


def rounded(value: Fraction, dtype: DType) -> float:
    """The nearest value of `dtype`, the even one of two."""
    digits, least = FORMATS[dtype]
    if value == 0:
        return 0.0
    exponent = math.floor(math.log2(abs(value))) - digits + 1
    unit = Fraction(2) ** max(exponent, least)
    return float(round(value / unit) * unit)


def code_of(codes: Array, bits: int, row: int, column: int) -> int:
    if bits == 8:
        return int(codes[row, column])
    nibble = int(codes[row, column // 2]) >> 4 * (column % 2) & 15
    return nibble - 16 if nibble > 7 else nibble


def one_by_one(encoding: Grouped, parts: list[Array], shape: tuple[int, int], dtype: DType) -> Array:
    codes, scales, *others = parts
    scales = cast(scales, encoding.scale_dtype, FLOAT32)
    offsets = cast(others.pop(0), encoding.scale_dtype, FLOAT32) if encoding.offsets else np.zeros_like(scales)
    order = others.pop(0) if encoding.order else np.arange(shape[1])
    values = np.full(shape, np.nan)
    for row, column in np.ndindex(shape):
        group = column // encoding.group
        level = Fraction(code_of(codes, encoding.bits, row, column)) + Fraction(float(offsets[row, group]))
        values[row, order[column]] = rounded(level * Fraction(float(scales[row, group])), dtype)
    return values


@settings(max_examples=60)
@given(encoding=encodings, dtype=st.sampled_from(list(FORMATS)), seed=st.integers(0, 99), exponent=st.integers(-18, 3))
def test_every_value_is_the_exact_product_rounded_once(
    encoding: Grouped, dtype: DType, seed: int, exponent: int
) -> None:
    shape = (3, INPUTS)
    parts = random_parts(encoding, shape, seed, exponent)
    decoded = cast(encoding.decode(parts, dtype), dtype, FLOAT32)
    np.testing.assert_array_equal(decoded, one_by_one(encoding, parts, shape, dtype))


def test_products_that_a_float32_in_between_would_round_twice() -> None:
    encoding = Grouped(8, group=32, scale_dtype=FLOAT32)
    for dtype in (BFLOAT16, FLOAT16):
        digits, _ = FORMATS[dtype]
        # The middles of two values, which no float32 times 127 hits exactly.
        middles = np.arange(2**digits + 1, 2 ** (digits + 1), 2) / 2 ** (digits + 1)
        scales = (middles / 127).astype(np.float32)
        twice = cast((127 * scales.astype(np.float64)).astype(np.float32), FLOAT32, dtype)
        decoded = encoding.decode([np.full((len(scales), 32), 127, np.int8), scales[:, None]], dtype)[:, 0]
        once = [rounded(127 * Fraction(float(scale)), dtype) for scale in scales]
        np.testing.assert_array_equal(cast(decoded, dtype, FLOAT32), once)
        assert (twice != decoded).any()


@given(encoding=encodings, seed=st.integers(0, 99), begin=st.integers(0, 6), rows=st.integers(0, 6))
def test_a_range_of_outputs_decodes_to_that_range(encoding: Grouped, seed: int, begin: int, rows: int) -> None:
    shape = (2, 9, INPUTS)
    parts = random_parts(encoding, shape, seed)
    end = min(begin + rows, shape[1])
    ranges = [encoding.rows(number, begin, end) for number in range(len(parts))]
    cut = [part if row is None else part[:, slice(*row)] for part, row in zip(parts, ranges, strict=True)]
    memory = np.zeros((2, end - begin, 2 * INPUTS), np.uint16)
    out = memory[..., ::2]
    assert encoding.decode(cut, BFLOAT16, out, first_row=begin) is out
    np.testing.assert_array_equal(out, encoding.decode(parts, BFLOAT16)[:, begin:end])
    assert not memory[..., 1::2].any()


def test_a_matrix_of_many_tiles_equals_its_rows() -> None:
    encoding = Grouped(4, order=True)
    parts = random_parts(encoding, (70, 1024), 0)
    whole = encoding.decode(parts, BFLOAT16)
    rows = [encoding.decode([parts[0][i : i + 1], parts[1][i : i + 1], parts[2]], BFLOAT16) for i in range(70)]
    np.testing.assert_array_equal(whole, np.concatenate(rows))


@given(bits=st.sampled_from([4, 8]), seed=st.integers(0, 99))
def test_codes_survive_packing(bits: int, seed: int) -> None:
    levels = np.random.default_rng(seed).integers(-1 << bits - 1, 1 << bits - 1, (3, 5, 64))
    np.testing.assert_array_equal(unpack(pack(levels, bits), bits), levels)


@given(encoding=encodings)
def test_an_encoding_is_found_by_its_tensors(encoding: Grouped) -> None:
    for shape in ((5, INPUTS), (2, 5, INPUTS)):
        tensors = {part.name: TensorInfo(part.name, part.dtype, part.shape, ()) for part in encoding.parts("w", shape)}
        assert find("w", shape, tensors) == encoding


def test_the_default_takes_as_many_bits_as_llama_cpp() -> None:
    assert nbytes(Grouped(4), (64, 256)) * 8 == 4.5 * 64 * 256
    assert nbytes(Grouped(8), (64, 256)) * 8 == 8.5 * 64 * 256
    assert [Grouped(4).name, Grouped(8).name] == ["int4", "int8"]


def test_codes_without_scales_are_still_found() -> None:
    assert find("w", (2, 64), {"w_codes": TensorInfo("w_codes", INT8, (2, 64), ())}) == Grouped(8)


def test_scales_of_another_dtype_are_not_among_the_parts() -> None:
    tensors = {
        "w_codes": TensorInfo("w_codes", UINT8, (2, 32), ()),
        "w_scales": TensorInfo("w_scales", FLOAT64, (2, 2), ()),
    }
    found = find("w", (2, 64), tensors)
    assert found is not None
    assert FLOAT64 not in found.parts("w", (2, 64))[1].dtypes


@pytest.mark.parametrize("shape", [(2, 5), (2, 0), ()])
def test_groups_that_do_not_divide_the_inputs_are_refused(shape: tuple[int, ...]) -> None:
    tensors = {
        "w_codes": TensorInfo("w_codes", UINT8, (2, 32), ()),
        "w_scales": TensorInfo("w_scales", BFLOAT16, shape, ()),
    }
    with pytest.raises(CheckpointError, match=r"'w_scales' has . scales per output, which do not divide the 64 inputs"):
        find("w", (2, 64), tensors)


@pytest.mark.parametrize(
    ("encoding", "inputs", "said"),
    [
        (Grouped(4, group=48), 576, "groups of 48 do not fit 576 inputs; possible sizes are 32, 64, 96, 192, 288, 576"),
        (Grouped(8, group=0), 64, "groups of 0 do not fit 64 inputs; possible sizes are 32, 64"),
        (Grouped(8, group=32), 100, "groups of 32 do not fit 100 inputs; possible sizes are 100"),
        (Grouped(4, group=33), 33, "int4 needs an even number of inputs, not 33"),
    ],
)
def test_a_group_that_does_not_fit_is_refused(encoding: Grouped, inputs: int, said: str) -> None:
    with pytest.raises(UnsupportedError) as refused:
        encoding.parts("w", (2, inputs))
    assert str(refused.value) == f"tensor 'w': {said}"


@pytest.mark.parametrize("scale", [0.0, -0.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", list(FORMATS), ids=lambda dtype: dtype.name)
def test_a_scale_that_is_no_number_or_zero_is_refused(scale: float, dtype: DType) -> None:
    encoding = Grouped(4, scale_dtype=dtype)
    codes, scales = random_parts(encoding, (4, INPUTS), 0)
    scales[3, 1] = stored(scale, dtype)
    with pytest.raises(CheckpointError, match=r"^a\.safetensors: the scale of group \(3, 1\) is -?(0\.0|nan|inf), not"):
        encoding.decode([codes, scales], BFLOAT16, where="a.safetensors")
    encoding.decode([codes[:3], scales[:3]], BFLOAT16)


@pytest.mark.parametrize(("bits", "offset"), [(4, 9), (4, -9), (4, 0.5), (8, 129), (8, math.nan)])
def test_an_offset_outside_the_range_of_codes_is_refused(bits: int, offset: float) -> None:
    encoding = Grouped(bits, offsets=True, scale_dtype=FLOAT32)
    codes, scales, offsets = random_parts(encoding, (4, INPUTS), 0)
    offsets[2, 0] = offset
    most = 1 << bits - 1
    with pytest.raises(CheckpointError, match=rf"^x: the offset of group \(2, 0\) is .*from -{most} to {most}; "):
        encoding.check([codes, scales, offsets], "x")


@pytest.mark.parametrize("wrong", [-1, INPUTS, 5])
def test_an_order_that_is_no_permutation_is_refused(wrong: int) -> None:
    encoding = Grouped(4, order=True)
    codes, scales, order = random_parts(encoding, (2, 4, INPUTS), 0)
    order[1, order[1] == 7] = wrong
    with pytest.raises(CheckpointError, match=r"^x: the order of the inputs is no permutation of 0 to 95; "):
        encoding.check([codes, scales, order], "x")


@pytest.mark.parametrize(
    ("encoding", "scale", "dtype"),
    [
        (Grouped(8), 1e37, FLOAT32),
        (Grouped(8), 1e37, BFLOAT16),
        (Grouped(4), 9000.0, FLOAT16),
        (Grouped(8, scale_dtype=FLOAT32), 3e36, FLOAT16),
    ],
)
def test_a_value_beyond_the_dtype_is_an_overflow(encoding: Grouped, scale: float, dtype: DType) -> None:
    codes, _scales = random_parts(encoding, (1, 32), 0)
    codes[0, 0] = -128 if encoding.bits == 8 else 0x88
    with pytest.raises(OverflowError, match=f"^{dtype.name} cannot hold"):
        encoding.decode([codes, stored([[scale]], encoding.scale_dtype)], dtype)
    small = replace(encoding, scale_dtype=FLOAT32)
    codes[:] = 0
    assert not small.decode([codes, np.array([[scale]], np.float32)], dtype).any()
