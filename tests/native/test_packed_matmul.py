"""The product with MXFP4 weights decodes every value exactly and sums in float32, with any instruction set."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint.mxfp4_definition import decoded
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from msport.checkpoint import mxfp4
from msport.native import build

Array = NDArray[Any]
Multiply = Callable[..., Array]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler on this machine")

INSTRUCTION_SETS = {"native": ["-march=native"]}
if platform.machine() == "x86_64":
    INSTRUCTION_SETS |= {"no AVX-512": ["-march=native", "-mno-avx512f"], "plain": ["-march=x86-64", "-mno-sse3"]}

# Largest error to float64 over the sum of magnitudes, twice the largest measured: 1.6e-7.
TOLERANCE = 3.2e-7


@pytest.fixture(scope="module", params=INSTRUCTION_SETS)
def multiply(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Multiply:
    target = tmp_path_factory.mktemp("packed") / "packed_matmul.so"
    source = Path(build.__file__).with_name("packed_matmul.cpp")
    flags = [*INSTRUCTION_SETS[request.param], "-std=c++17", "-O2", "-Wno-psabi", "-shared", "-fPIC", "-pthread"]
    subprocess.run(["g++", *flags, str(source), "-o", str(target)], check=True)
    kernel = ctypes.CDLL(str(target)).packed_matmul

    def call(x: Array, group: Array, blocks: Array, scales: Array, bias: Array) -> Array:
        out = np.full((len(group), blocks.shape[1]), np.nan, np.float32)
        arrays = [np.ascontiguousarray(array) for array in (x, group, blocks, scales, bias, out)]
        shapes = [(ctypes.c_int64 * array.ndim)(*array.shape) for array in arrays]
        pointers = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
        ranks = (ctypes.c_int * len(arrays))(*(array.ndim for array in arrays))
        of_shapes = (ctypes.c_void_p * len(arrays))(*(ctypes.addressof(shape) for shape in shapes))
        result = kernel(len(arrays), pointers, ranks, of_shapes, None, None, None)
        if result:
            raise ValueError(result)
        return arrays[-1]

    return call


@pytest.mark.parametrize("scale", [2, 127, 252])  # below, MindSpore flushes subnormal values to zero
def test_every_code_is_decoded_exactly(multiply: Multiply, scale: int) -> None:
    """Rows of the unit matrix read single values out of the weight."""
    blocks = np.random.default_rng(0).integers(0, 256, (1, 37, 2, mxfp4.BLOCK_BYTES), np.uint8)
    scales = np.full((1, 37, 2), scale, np.uint8)
    bias = np.zeros((1, 37), np.float32)
    ours = multiply(np.eye(64, dtype=np.float32), np.zeros(64, np.int32), blocks, scales, bias)
    np.testing.assert_array_equal(ours.T, decoded(blocks[0], scales[0]))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    tokens=st.integers(1, 20),
    fanout=st.integers(1, 3),
    groups=st.integers(1, 5),
    columns=st.integers(1, 40),
    width=st.integers(1, 5),
)
def test_each_row_meets_the_weight_of_its_group(
    multiply: Multiply, seed: int, tokens: int, fanout: int, groups: int, columns: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((tokens, width * mxfp4.BLOCK_VALUES), np.float32)
    group = rng.integers(0, groups, tokens * fanout, np.int32)
    blocks = rng.integers(0, 256, (groups, columns, width, mxfp4.BLOCK_BYTES), np.uint8)
    scales = rng.integers(117, 131, (groups, columns, width), np.uint8)
    bias = rng.standard_normal((groups, columns), np.float32)
    weight = decoded(blocks, scales).astype(np.float64)
    rows = np.repeat(x, fanout, axis=0)
    truth = np.einsum("rk,rnk->rn", rows, weight[group]) + bias[group]
    magnitude = np.einsum("rk,rnk->rn", abs(rows), abs(weight[group])) + abs(bias[group])
    error = abs(multiply(x, group, blocks, scales, bias) - truth) / magnitude
    print(f"largest error {error.max():.1e}")
    assert error.max() <= TOLERANCE


@pytest.mark.parametrize("group", [-1, 2])
def test_a_group_that_does_not_exist_is_refused(multiply: Multiply, group: int) -> None:
    x, bias = np.ones((1, 32), np.float32), np.zeros((2, 3), np.float32)
    blocks, scales = np.zeros((2, 3, 1, mxfp4.BLOCK_BYTES), np.uint8), np.zeros((2, 3, 1), np.uint8)
    with pytest.raises(ValueError, match="2"):
        multiply(x, np.array([group], np.int32), blocks, scales, bias)
