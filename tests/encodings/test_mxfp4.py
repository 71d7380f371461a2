"""MXFP4 decoding, compiled and in NumPy: bit-identical with Transformers, in any ranges."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint.mxfp4_definition import decoded
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32, INT8, DType
from msport.encodings import mxfp4, mxfp4_kernel
from msport.errors import CheckpointError, UnsupportedError

Array = NDArray[Any]

# The largest scale at which all eight magnitudes are finite: 6 * 2**(scale - 127).
LAST_SCALE = {FLOAT32: 252, BFLOAT16: 252, FLOAT16: 140}
# Codes (of sixteen) that are still finite at the scales above.
FINITE_CODES = {
    FLOAT32: {253: (0, 1, 2, 3, 4, 5), 254: (0, 1, 2, 3)},
    BFLOAT16: {253: (0, 1, 2, 3, 4, 5), 254: (0, 1, 2, 3)},
    FLOAT16: {141: (0, 1, 2, 3, 4, 5), 142: (0, 1, 2, 3), 143: (0, 1), 144: (0,), 254: (0,)},
}
every_dtype = pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT32, FLOAT16], ids=lambda dtype: dtype.name)


@pytest.fixture(autouse=True, scope="module", params=["compiled", "NumPy"])
def _form(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test runs with the compiled form, if there is a compiler, and with NumPy's."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "NumPy":
            patch.setattr(mxfp4_kernel, "decode", lambda *arguments, **options: False)
        elif not mxfp4_kernel.available():
            pytest.skip("no C++ compiler on this machine")
        yield


def transformers_decodes(blocks: Array, scales: Array, dtype: DType) -> Array:
    """The reference: bits of shape [E, K, rows]."""
    import torch
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    decoded = convert_moe_packed_tensors(
        torch.from_numpy(blocks.copy()), torch.from_numpy(scales.copy()), dtype=getattr(torch, dtype.name)
    )
    bits: Array = decoded.view({2: torch.int16, 4: torch.int32}[dtype.itemsize]).numpy()
    return bits.view(f"u{dtype.itemsize}")


def bits(array: Array) -> Array:
    return array.view(f"u{array.dtype.itemsize}")


def random_weights(shape: tuple[int, ...], seed: int = 0, low: int = 100, high: int = 135) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 256, (*shape, 16), dtype=np.uint8)
    return blocks, generator.integers(low, high, shape, dtype=np.uint8)


def every_byte_at(scales: list[int]) -> tuple[Array, Array]:
    """[1, scales, 16 groups]: all 256 bytes, that is every pair of codes, at each scale."""
    blocks = np.tile(np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16), (1, len(scales), 1, 1))
    return blocks, np.repeat(np.array(scales, np.uint8)[None, :, None], 16, axis=2)


def codes_at(scale: int, codes: tuple[int, ...]) -> tuple[Array, Array]:
    """[1, 1, groups]: every pair of these codes and their negatives at one scale."""
    signed = [code | sign for code in codes for sign in (0, 8)]
    pairs = np.array([low | high << 4 for low in signed for high in signed], np.uint8)
    blocks = np.resize(pairs, (-(-len(pairs) // 16), 16))[None, None]
    return blocks, np.full(blocks.shape[:-1], scale, np.uint8)


@pytest.mark.reference
@every_dtype
def test_every_code_at_every_finite_scale_is_decoded_as_transformers_decodes_it(dtype: DType) -> None:
    blocks, scales = every_byte_at(list(range(LAST_SCALE[dtype] + 1)))
    reference = transformers_decodes(blocks, scales, dtype)
    np.testing.assert_array_equal(bits(mxfp4.decode_transposed(blocks, scales, dtype)), reference)


@pytest.mark.reference
@every_dtype
def test_the_codes_that_are_finite_at_the_last_scales_are_decoded_too(dtype: DType) -> None:
    for scale, codes in FINITE_CODES[dtype].items():
        blocks, scales = codes_at(scale, codes)
        reference = transformers_decodes(blocks, scales, dtype)
        np.testing.assert_array_equal(bits(mxfp4.decode_transposed(blocks, scales, dtype)), reference)


@pytest.mark.reference
@every_dtype
def test_a_value_beyond_the_dtype_is_refused_where_transformers_gives_infinity(dtype: DType) -> None:
    for scale, finite in FINITE_CODES[dtype].items():
        for code in set(range(8)) - set(finite):
            blocks, scales = codes_at(scale, (0,))
            blocks[0, 0, 0, 7] = code << 4
            assert np.isinf(transformers_decodes(blocks, scales, FLOAT32).view(np.float32)).any() or dtype is FLOAT16
            with pytest.raises(
                CheckpointError, match=f"a block of scale {scale} holds values too large for {dtype.name}"
            ):
                mxfp4.decode_transposed(blocks, scales, dtype)


def test_bfloat16_holds_every_finite_value_exactly() -> None:
    blocks, scales = every_byte_at(list(range(LAST_SCALE[BFLOAT16] + 1)))
    as_bfloat16 = (mxfp4.decode_transposed(blocks, scales).astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(as_bfloat16, mxfp4.decode_transposed(blocks, scales, FLOAT32))
    as_bfloat16 = as_bfloat16.swapaxes(1, 2)
    codes = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
    packed = np.arange(256)
    expected = np.stack([codes[packed & 15], codes[packed >> 4]], axis=-1).reshape(512)
    exact = np.ldexp(expected, np.arange(LAST_SCALE[BFLOAT16] + 1)[:, None] - 127)
    np.testing.assert_array_equal(as_bfloat16[0].astype(np.float64), exact)
    np.testing.assert_array_equal(np.signbit(as_bfloat16[0]), np.signbit(exact))


def test_scale_255_is_refused_and_the_tensor_named() -> None:
    blocks, scales = random_weights((2, 3, 4))
    scales[1, 2, 3] = 255
    out = np.full((2, 128, 3), 9, np.uint16)
    with pytest.raises(
        CheckpointError, match=re.escape("x.safetensors: tensor 'w': the scale of block (1, 2, 3) is 255")
    ):
        mxfp4.decode_transposed(blocks, scales, out=out, where="x.safetensors: tensor 'w'")
    assert (out == 9).all()


def test_a_value_too_large_for_float16_names_the_remedy() -> None:
    blocks, scales = random_weights((1, 1, 1))
    scales[:] = 150
    with pytest.raises(CheckpointError, match="too large for float16; convert to bfloat16 or float32"):
        mxfp4.decode_transposed(blocks, scales, FLOAT16)


@pytest.mark.reference
@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 5)),
    dtype=st.sampled_from([BFLOAT16, FLOAT32, FLOAT16]),
    tile_blocks=st.sampled_from([1, 3, 64, 8192]),
    tile_rows=st.sampled_from([1, 7, 1024]),
    seed=st.integers(0, 1000),
)
def test_tiles_of_any_size_give_the_same_values(
    shape: tuple[int, int, int], dtype: DType, tile_blocks: int, tile_rows: int, seed: int
) -> None:
    blocks, scales = random_weights(shape, seed)
    reference = transformers_decodes(blocks, scales, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mxfp4, "_TILE_BLOCKS", tile_blocks)
        patch.setattr(mxfp4, "_TILE_ROWS", tile_rows)
        np.testing.assert_array_equal(bits(mxfp4.decode_transposed(blocks, scales, dtype)), reference)


@pytest.mark.reference
@every_dtype
def test_more_than_one_tile_in_rows_and_in_groups(dtype: DType) -> None:
    blocks, scales = random_weights((1, 2500, 10))
    reference = transformers_decodes(blocks, scales, dtype)
    np.testing.assert_array_equal(bits(mxfp4.decode_transposed(blocks, scales, dtype)), reference)
    wide = mxfp4.decode_transposed(blocks.reshape(1, 2, 12500, 16), scales.reshape(1, 2, 12500), dtype)
    straight = bits(wide).transpose(0, 2, 1).reshape(-1)
    np.testing.assert_array_equal(straight, reference.transpose(0, 2, 1).reshape(-1))


@every_dtype
def test_ranges_of_rows_and_of_blocks_fill_their_part_of_the_whole(dtype: DType) -> None:
    blocks, scales = random_weights((2, 90, 12))
    whole = mxfp4.decode_transposed(blocks, scales, dtype)
    out = np.zeros_like(whole)

    def fill(part: tuple[slice, slice]) -> None:
        rows, groups = part
        columns = slice(groups.start * 32, groups.stop * 32)
        mxfp4.decode_transposed(blocks[:, rows, groups], scales[:, rows, groups], dtype, out[:, columns, rows])

    parts = [(slice(r, r + 13), slice(g, g + 5)) for r in range(0, 91, 13) for g in range(0, 11, 5)]
    parts = [(slice(r.start, min(r.stop, 90)), slice(g.start, min(g.stop, 12))) for r, g in parts]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fill, parts))
    np.testing.assert_array_equal(bits(out), bits(whole))


@pytest.mark.parametrize("prefix", [(), (1,), (2, 3), (0,)])
def test_any_number_of_leading_axes_is_decoded(prefix: tuple[int, ...]) -> None:
    blocks, scales = random_weights((*prefix, 5, 2))
    transposed = mxfp4.decode_transposed(blocks, scales)
    assert transposed.shape == (*prefix, 64, 5)
    np.testing.assert_array_equal(transposed, np.swapaxes(decoded(blocks, scales, BFLOAT16), -1, -2))


@pytest.mark.parametrize("shape", [(1, 0, 3), (1, 3, 0)])
def test_nothing_decodes_to_nothing(shape: tuple[int, ...]) -> None:
    blocks, scales = random_weights(shape)
    assert mxfp4.decode_transposed(blocks, scales).shape == (1, shape[2] * 32, shape[1])


@every_dtype
def test_scratch_memory_is_what_the_module_says(dtype: DType) -> None:
    blocks, scales = random_weights((2, 3000, 40))
    out = mxfp4.decode_transposed(blocks, scales, dtype)
    tracemalloc.start()
    mxfp4.decode_transposed(blocks, scales, dtype, out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"to {dtype.name}: {peak} bytes of scratch")
    assert peak <= mxfp4.SCRATCH_BYTES < out.nbytes


@pytest.mark.reference
@pytest.mark.slow
def test_the_benchmark_ends_in_a_line_of_json() -> None:
    program = Path(__file__).parents[2] / "benchmarks" / "mxfp4.py"
    sizes = ["--experts", "1", "--rows", "64", "--columns", "64", "--rounds", "1", "--threads", "2"]
    result = subprocess.run([sys.executable, program, *sizes], capture_output=True, text=True, check=True)
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["identical"] is True
    assert {"NumPy", "msport", "memory copy"} < report["gb_per_s"].keys()
    assert report["times_transformers"]["Transformers"] == {"1": 1.0, "2": 1.0}


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="not to int8"):
        mxfp4.decode_transposed(*random_weights((1, 1, 1)), INT8)


def test_shapes_and_dtypes_that_do_not_fit_are_mistakes() -> None:
    decode = mxfp4.decode_transposed
    blocks, scales = random_weights((2, 3, 4))
    with pytest.raises(ValueError, match=r"not \[\.\.\., rows, K/32, 16\]"):
        decode(blocks, scales[:, :2])
    with pytest.raises(ValueError, match=r"not \[\.\.\., rows, K/32, 16\]"):
        decode(blocks[..., :8], scales)
    with pytest.raises(TypeError, match="uint8, got int8"):
        decode(blocks.view(np.int8), scales)
    with pytest.raises(ValueError, match="out must be"):
        decode(blocks, scales, out=np.empty((2, 3, 4), np.uint16))
