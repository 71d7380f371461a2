"""int4 and int8 with the inputs first: every code, scale and offset is where CANN's operators look for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32, INT4_PAIRS, Array, cast
from msport.encodings import Grouped, Transposed, nbytes
from msport.encodings.grouped import pack, unpack

INPUTS = 96
encodings = st.builds(
    Grouped,
    bits=st.sampled_from([4, 8]),
    group=st.sampled_from([32, INPUTS]),
    scale_dtype=st.sampled_from([BFLOAT16, FLOAT16]),
    offsets=st.booleans(),
    order=st.booleans(),
)


def random_parts(encoding: Grouped, shape: tuple[int, ...], seed: int) -> list[Array]:
    generator = np.random.default_rng(seed)
    most = 1 << encoding.bits - 1
    groups = (*shape[:-1], shape[-1] // encoding.group)
    parts = [
        pack(generator.integers(-most, most, shape).astype(np.float32), encoding.bits),
        cast(generator.uniform(0.5, 2, groups).astype(np.float32), FLOAT32, encoding.scale_dtype),
    ]
    if encoding.offsets:
        offsets = generator.integers(-most, most + 1, groups).astype(np.float32)
        parts.append(cast(offsets, FLOAT32, encoding.scale_dtype))
    if encoding.order:
        rows = np.broadcast_to(np.arange(shape[-1], dtype=np.int32), (*shape[:-2], shape[-1]))
        parts.append(generator.permuted(rows, axis=-1))
    return parts


@settings(max_examples=60, deadline=None)
@given(encodings, st.sampled_from([(2,), (34,), (64,), (3, 6)]), st.integers(0, 2**32 - 1))
def test_the_parts_are_those_that_it_names_and_hold_the_same_matrix(
    grouped: Grouped, outputs: tuple[int, ...], seed: int
) -> None:
    shape = (*outputs, INPUTS)
    parts, encoding = random_parts(grouped, shape, seed), Transposed(grouped)
    transposed = encoding.transpose(parts)
    for array, part in zip(transposed, encoding.parts("w", shape), strict=True):
        assert array.shape == part.shape, part.name
        assert array.dtype == part.dtype.storage, part.name
    assert sum(array.nbytes for array in transposed) == nbytes(encoding, shape) == nbytes(grouped, shape)
    np.testing.assert_array_equal(encoding.decode(transposed, FLOAT32), grouped.decode(parts, FLOAT32))


@pytest.mark.parametrize("shape", [(6, 96), (128, 64), (2, 34, 160)])
def test_the_low_half_of_a_byte_is_the_even_output_of_an_input(shape: tuple[int, ...]) -> None:
    parts = random_parts(Grouped(4), shape, 0)
    codes, scales = Transposed(Grouped(4)).transpose(parts)
    expected = np.moveaxis(unpack(parts[0], 4), -1, -2)
    np.testing.assert_array_equal((codes << 4) >> 4, expected[..., 0::2])
    np.testing.assert_array_equal(codes >> 4, expected[..., 1::2])
    np.testing.assert_array_equal(scales, np.moveaxis(parts[1], -1, -2))


def test_int8_has_one_code_in_a_byte_and_one_scale_per_output_no_axis_of_groups() -> None:
    grouped = Grouped(8, group=64, offsets=True)
    parts = random_parts(grouped, (5, 64), 0)
    codes, scales, offsets = Transposed(grouped).transpose(parts)
    np.testing.assert_array_equal(codes, parts[0].T)
    np.testing.assert_array_equal(scales, parts[1][:, 0])
    np.testing.assert_array_equal(offsets, parts[2][:, 0])


def test_int4_says_that_its_bytes_are_pairs() -> None:
    assert Transposed(Grouped(4)).parts("w", (4, 64))[0].dtype == INT4_PAIRS
