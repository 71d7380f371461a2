"""The compiled quantiser gives NumPy's bits, on any processor."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32, Array, DType, cast
from msport.encodings import Grouped, quantise_kernel
from msport.encodings.quantise import quantise
from msport.errors import CheckpointError
from msport.native import build

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler on this machine")

FLOATS = (FLOAT32, FLOAT16, BFLOAT16)
# What processors with narrower vectors are given.
MACHINES: dict[str, list[str] | None] = {"native": None, "plain": []}
if platform.machine() == "x86_64":
    MACHINES["plain"] = ["-march=x86-64"]
    if "avx2" in build._processor():
        MACHINES["avx2"] = ["-march=x86-64", "-mavx2", "-mfma"]


@pytest.fixture(autouse=True, scope="module", params=list(MACHINES))
def _library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    flags = MACHINES[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MSPORT_NATIVE", raising=False)
        build._find.cache_clear()
        if flags is not None:
            target = tmp_path_factory.mktemp("plain") / "quantise.so"
            source = Path(build.__file__).with_name("quantise.cpp")
            always = [*build._FURTHER_FLAGS["quantise"], "-std=c++17", "-O1", "-shared", "-fPIC"]
            subprocess.run(["g++", *always, *flags, str(source), "-o", str(target)], check=True)
            patch.setattr(quantise_kernel, "library", lambda name: target)
        quantise_kernel._function.cache_clear()
        assert quantise_kernel.available()
        yield
    build._find.cache_clear()
    quantise_kernel._function.cache_clear()


def in_numpy(values: Array, dtype: DType, encoding: Grouped) -> tuple[Array, ...]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantise_kernel, "quantise", lambda *arguments: None)
        return quantise(values, dtype, encoding)


def same_bits(values: Array, dtype: DType, encoding: Grouped) -> None:
    for ours, expected in zip(quantise(values, dtype, encoding), in_numpy(values, dtype, encoding), strict=True):
        np.testing.assert_array_equal(ours.view(np.uint8), expected.view(np.uint8))


@settings(max_examples=120)
@given(
    dtype=st.sampled_from(FLOATS),
    scale_dtype=st.sampled_from(FLOATS),
    bits=st.sampled_from([4, 8]),
    offsets=st.booleans(),
    # Inputs and group: several groups, one, and groups that fill no whole vector.
    widths=st.sampled_from([(64, 32), (32, 32), (384, 128), (36, 36), (34, 34), (1100, 1100)]),
    rows=st.sampled_from([1, 2, 15, 16, 33]),
    exponent=st.sampled_from([-145, -100, -20, -6, 0, 5, 90]),
    seed=st.integers(0, 100),
)
def test_any_weights(
    dtype: DType,
    scale_dtype: DType,
    bits: int,
    offsets: bool,
    widths: tuple[int, int],
    rows: int,
    exponent: int,
    seed: int,
) -> None:
    generator = np.random.default_rng(seed)
    inputs, group = widths
    weights = generator.standard_normal((rows, inputs)) * np.exp(generator.standard_normal((rows, 1)))
    weights[generator.random(weights.shape) < 0.1] = 0
    weights[:: generator.integers(2, 9)] *= generator.choice([0, 1, 1e-4])
    if FLOAT16 in (dtype, scale_dtype):
        exponent = max(min(exponent, 5), -20)
    values = cast(np.ldexp(weights, exponent).astype(np.float32), FLOAT32, dtype)
    same_bits(values, dtype, Grouped(bits, group, scale_dtype, offsets))


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=lambda dtype: dtype.name)
def test_every_finite_value(dtype: DType) -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype.storage)
    finite = every[np.isfinite(cast(every, dtype, FLOAT32))]
    for bits in (4, 8):
        same_bits(finite.reshape(-1, 32), dtype, Grouped(bits, scale_dtype=FLOAT32))


def test_every_bit_pattern_of_a_scale() -> None:
    # The usual scale of such a group is the value in column 0 divided by 7.
    scales = np.arange(1, 1 << 15, dtype=np.uint16).view(np.float16).astype(np.float32)
    values = np.repeat(scales[np.isfinite(scales)][:, None], 32, axis=1)
    for scale_dtype in FLOATS:
        same_bits(values, FLOAT32, Grouped(4, scale_dtype=scale_dtype))


@pytest.mark.parametrize("place", [(0, 0), (18, 63), (7, 40)])
def test_values_that_are_not_finite_are_noticed_anywhere(place: tuple[int, int]) -> None:
    for dtype in FLOATS:
        for value in (np.nan, -np.inf):
            values = np.ones((19, 64), np.float32)
            values[place] = value
            with pytest.raises(CheckpointError, match=rf"output {place[0]} and input {place[1]} is"):
                quantise(cast(values, FLOAT32, dtype), dtype, Grouped(4))


def test_nothing_is_written_outside_the_rows() -> None:
    encoding = Grouped(4, offsets=True)
    parts = encoding.parts("w", (9, 64))
    whole = [np.full((11, part.shape[1] + 2), 99, part.dtype.storage) for part in parts]
    quantise(np.ones((9, 64), np.float32), FLOAT32, encoding, [array[1:-1, 1:-1] for array in whole])
    for array, expected in zip(whole, quantise(np.ones((9, 64), np.float32), FLOAT32, encoding), strict=True):
        np.testing.assert_array_equal(array[1:-1, 1:-1], expected)
        array[1:-1, 1:-1] = 99
        assert (array == 99).all()


def test_a_library_that_cannot_be_loaded_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "quantise.so").touch()
    monkeypatch.setattr(quantise_kernel, "library", lambda name: tmp_path / "quantise.so")
    quantise_kernel._function.cache_clear()
    try:
        quantise(np.ones((2, 32), np.float32), FLOAT32, Grouped(4))
        quantise(np.ones((2, 32), np.float32), FLOAT32, Grouped(4))
    finally:
        quantise_kernel._function.cache_clear()
    assert caplog.text.count("quantised by NumPy") == 1


def test_python_runs_on_while_weights_are_quantised() -> None:
    assert isinstance(quantise_kernel._function(), ctypes._CFuncPtr)  # which, unlike PyDLL's, gives up Python's lock
    assert not quantise_kernel._function()._flags_ & ctypes._FUNCFLAG_PYTHONAPI  # type: ignore
