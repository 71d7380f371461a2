"""The compiled form of MXFP4 decoding gives NumPy's bits, on any processor."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32, DType
from msport.encodings import mxfp4, mxfp4_kernel
from msport.native import build

Array = NDArray[Any]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler on this machine")

# Above these scales some code overflows and is refused before either form sees it.
LAST_SCALE = {FLOAT32: 252, BFLOAT16: 252, FLOAT16: 140}
every_dtype = pytest.mark.parametrize("dtype", list(LAST_SCALE), ids=lambda dtype: dtype.name)
decode = mxfp4.decode_transposed

# What a processor without a byte shuffle or streaming stores is given.
PLAIN = ["-march=x86-64", "-mno-sse3"] if platform.machine() == "x86_64" else []


@pytest.fixture(autouse=True, scope="module", params=["native", "plain"])
def _library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MSPORT_NATIVE", raising=False)
        build._find.cache_clear()
        if request.param == "plain":
            target = tmp_path_factory.mktemp("plain") / "mxfp4.so"
            source = Path(build.__file__).with_name("mxfp4.cpp")
            command = ["g++", "-std=c++17", "-O1", "-shared", "-fPIC", *PLAIN, str(source), "-o", str(target)]
            subprocess.run(command, check=True)
            patch.setattr(mxfp4_kernel, "library", lambda name: target)
        mxfp4_kernel._function.cache_clear()
        assert mxfp4_kernel.available()
        yield
    build._find.cache_clear()
    mxfp4_kernel._function.cache_clear()


def in_numpy(*arguments: Any) -> Array:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mxfp4_kernel, "decode", lambda *arguments, **options: False)
        return decode(*arguments)


def bits(array: Array) -> Array:
    return array.view(f"u{array.itemsize}")


def aligned(shape: tuple[int, ...], dtype: DType, offset: int) -> Array:
    """An array that begins `offset` elements behind a cache line."""
    nbytes = int(np.prod(shape)) * dtype.itemsize
    memory = np.zeros(nbytes + 128, np.uint8)
    begin = -memory.__array_interface__["data"][0] % 64 + offset * dtype.itemsize
    return memory[begin : begin + nbytes].view(dtype.storage).reshape(shape)


@every_dtype
def test_every_byte_at_every_scale(dtype: DType) -> None:
    scales = np.arange(LAST_SCALE[dtype] + 1, dtype=np.uint8).repeat(16).reshape(-1, 16)
    blocks = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(16, 16), (*scales.shape, 16)).copy()
    np.testing.assert_array_equal(bits(decode(blocks, scales, dtype)), bits(in_numpy(blocks, scales, dtype)))


@every_dtype
def test_the_last_scales_with_the_codes_that_do_not_overflow(dtype: DType) -> None:
    scales = np.full((64, 2), LAST_SCALE[dtype] + 1, np.uint8)
    scales[::3] = 1
    blocks = np.resize(np.array([0x10, 0x89, 0xA2, 0x3B], np.uint8), (64, 2, 16))
    np.testing.assert_array_equal(bits(decode(blocks, scales, dtype)), bits(in_numpy(blocks, scales, dtype)))


@settings(max_examples=80)
@given(
    dtype=st.sampled_from(list(LAST_SCALE)),
    shape=st.tuples(st.integers(1, 2), st.sampled_from([1, 15, 16, 17, 63, 64, 65, 128, 150]), st.integers(1, 6)),
    scales_from=st.sampled_from([0, 100, 110, 125]),
    groups=st.tuples(st.integers(0, 5), st.integers(0, 6)),
    offset=st.sampled_from([0, 0, 1, 8]),
    seed=st.integers(0, 100),
)
def test_any_range_into_memory_of_any_alignment(
    dtype: DType, shape: tuple[int, int, int], scales_from: int, groups: tuple[int, int], offset: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    part = slice(*groups)
    blocks = generator.integers(0, 256, (*shape, 16), dtype=np.uint8)[:, :, part]
    scales = generator.integers(scales_from, 130, shape, dtype=np.uint8)[:, :, part]
    experts, rows, width = shape[0], shape[1], 32 * scales.shape[2]
    out = aligned((experts, width, rows), dtype, offset)
    decode(blocks, scales, dtype, out=out)
    np.testing.assert_array_equal(bits(out), bits(in_numpy(blocks, scales, dtype)))


def test_nothing_is_written_outside_the_range() -> None:
    blocks = np.full((1, 70, 3, 16), 0x22, np.uint8)
    scales = np.full((1, 70, 3), 127, np.uint8)
    whole = np.full((1, 98, 70 + 64), 9, np.uint16)
    inside = whole[:, 1:-1, 32:-32]
    decode(blocks, scales, out=inside)
    assert (inside == 0x3F80).all()
    assert np.count_nonzero(whole != 9) == inside.size


def test_what_is_not_contiguous_is_left_to_numpy() -> None:
    generator = np.random.default_rng(0)
    blocks, scales = generator.integers(0, 256, (2, 5, 4, 16), dtype=np.uint8), np.full((2, 5, 4), 120, np.uint8)
    expected = decode(blocks, scales)
    backwards = decode(blocks[:, :, ::-1], scales[:, :, ::-1])
    np.testing.assert_array_equal(backwards, decode(blocks[:, :, ::-1].copy(), scales[:, :, ::-1].copy()))
    np.testing.assert_array_equal(decode(np.asfortranarray(blocks), np.asfortranarray(scales)), expected)
    out = np.empty((*expected.shape[:-1], 2 * expected.shape[-1]), np.uint16)[..., ::2]
    np.testing.assert_array_equal(decode(blocks, scales, out=out), expected)


def test_a_library_that_cannot_be_loaded_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "mxfp4.so").touch()
    monkeypatch.setattr(mxfp4_kernel, "library", lambda name: tmp_path / "mxfp4.so")
    mxfp4_kernel._function.cache_clear()
    blocks, scales = np.zeros((1, 2, 16), np.uint8), np.zeros((1, 2), np.uint8)
    try:
        assert not decode(blocks, scales).any()
        assert not decode(blocks, scales).any()
    finally:
        mxfp4_kernel._function.cache_clear()
    assert caplog.text.count("decoded by NumPy") == 1


def test_python_runs_on_while_a_tensor_is_decoded() -> None:
    assert isinstance(mxfp4_kernel._function(), ctypes._CFuncPtr)  # which, unlike PyDLL's, gives up Python's lock
    assert not mxfp4_kernel._function()._flags_ & ctypes._FUNCFLAG_PYTHONAPI  # type: ignore
