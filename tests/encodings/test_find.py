"""The encoding of a weight follows from the tensors that are there."""

from __future__ import annotations

import numpy as np

from msport.checkpoint import TensorInfo
from msport.checkpoint.dtypes import BFLOAT16, FLOAT8_E4M3FN, FLOAT16, FLOAT32, INT8, UINT8
from msport.encodings import MXFP4, Encoding, Plain, find, fp8, nbytes, stored_shape

SHAPE = (256, 64)


def tensors(encoding: Encoding, weight: str, shape: tuple[int, ...]) -> dict[str, TensorInfo]:
    return {part.name: TensorInfo(part.name, part.dtype, part.shape, ()) for part in encoding.parts(weight, shape)}


def test_a_plain_weight_is_found_with_its_dtype() -> None:
    for dtype in (BFLOAT16, FLOAT16, FLOAT32):
        assert find("w", SHAPE, tensors(Plain(dtype), "w", SHAPE)) == Plain(dtype)
    assert find("w", SHAPE, {"w": TensorInfo("w", INT8, SHAPE, ())}) == Plain(BFLOAT16)
    assert find("w", SHAPE, {}) is None


def test_a_plain_stack_of_experts_has_its_inputs_first() -> None:
    assert stored_shape((3, 5, 7)) == (3, 7, 5)
    values = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    assert np.array_equal(Plain(FLOAT32).decode([values], FLOAT32), values.transpose(0, 2, 1))


def test_mxfp4_is_found_by_its_blocks_and_decodes_to_rows_of_outputs() -> None:
    assert find("w", (2, 6, 64), tensors(MXFP4, "w", (2, 6, 64))) == MXFP4
    assert nbytes(MXFP4, (2, 6, 64)) == 2 * 6 * 64 // 2 + 2 * 6 * 2
    codes = np.zeros((1, 2, 1, 16), np.uint8)
    codes[0, 1, 0, 3] = 0x72  # output 1: input 6 is 1, input 7 is 6
    decoded = MXFP4.decode([codes, np.full((1, 2, 1), 128, np.uint8)], FLOAT32)
    assert decoded.shape == (1, 2, 32)
    assert {(int(row), int(column)): float(decoded[0, row, column]) for _, row, column in np.argwhere(decoded)} == {
        (1, 6): 2.0,
        (1, 7): 12.0,
    }


def test_fp8_is_told_from_a_plain_weight_by_its_scales() -> None:
    found = find(
        "w",
        SHAPE,
        {
            "w": TensorInfo("w", FLOAT8_E4M3FN, SHAPE, ()),
            "w_scale_inv": TensorInfo("w_scale_inv", BFLOAT16, (2, 1), ()),
        },
    )
    assert found is not None
    assert found.name == "fp8"
    assert [part.dtype for part in found.parts("w", SHAPE)] == [FLOAT8_E4M3FN, BFLOAT16]


def test_fp8_is_decoded_in_any_range_of_rows() -> None:
    codes = np.random.default_rng(0).integers(0, 127, SHAPE, dtype=np.uint8)
    scales = np.array([[2.0], [3.0]], np.float32)
    encoding = find(
        "w",
        SHAPE,
        {
            "w": TensorInfo("w", FLOAT8_E4M3FN, SHAPE, ()),
            "w_scale_inv": TensorInfo("w_scale_inv", FLOAT32, (2, 1), ()),
        },
    )
    assert encoding is not None
    whole = encoding.decode([codes, scales], FLOAT32)
    assert np.array_equal(whole, fp8.code_values()[codes] * np.repeat(scales, 128, 0))
    assert encoding.rows(1, 120, 140) == (0, 2)
    begin, end = encoding.rows(1, 130, 140) or (0, 0)
    assert np.array_equal(encoding.decode([codes[130:140], scales[begin:end]], FLOAT32, first_row=130), whole[130:140])
    assert encoding.rows(0, 130, 140) == (130, 140)
    assert UINT8 not in encoding.parts("w", SHAPE)[0].dtypes
