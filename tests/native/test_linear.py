"""Products with weights of every kind: each weight is decoded exactly, sums are float32, with any instruction set."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from checkpoint.mxfp4_definition import decoded

from msport.checkpoint.dtypes import FLOAT32, Array
from msport.encodings import Grouped, mxfp4
from msport.encodings.grouped import pack
from msport.native import build
from msport.native import library as operators
from native.kernels import PLAIN, Operand, call, operand, stored

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler on this machine")

OTHER_INSTRUCTIONS = {}
if platform.machine() == "x86_64":
    OTHER_INSTRUCTIONS = {"no AVX-512": ["-march=native", "-mno-avx512f"], "plain": ["-march=x86-64", "-mno-sse3"]}

# Largest error to float64 over the sum of magnitudes, twice the largest measured: 4.2e-7. Up to 128 depths are summed
# one after the other.
TOLERANCE = 8.4e-7

KINDS = [
    *PLAIN,
    "mxfp4",
    *(f"{kind} {scales}{offsets}" for kind in ("int8", "int4") for scales in PLAIN for offsets in ("", " offsets")),
]


@pytest.fixture(
    scope="module", params=["native", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHER_INSTRUCTIONS)]
)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "native":
        found = operators()
        assert found is not None
        return found
    target = tmp_path_factory.mktemp("linear") / "linear.so"
    sources = [str(Path(build.__file__).with_name(name)) for name in ("linear.cpp", "embedding.cpp")]
    flags = [*OTHER_INSTRUCTIONS[request.param], "-std=c++17", "-O2", "-Wno-psabi", "-shared", "-fPIC", "-pthread"]
    subprocess.run(["g++", *flags, *sources, "-o", str(target)], check=True)
    return target


def matrix(kind: str, shape: tuple[int, ...], group: int, rng: np.random.Generator) -> tuple[list[Operand], Array]:
    """The parts of a random matrix ``[..., outputs, inputs]``, and its values."""
    if kind in PLAIN:
        part, values = stored(rng.standard_normal(shape, np.float32), PLAIN[kind])
        return [part], values
    *rows, inputs = shape
    if kind == "mxfp4":
        blocks = rng.integers(0, 256, (*rows, inputs // 32, mxfp4.BLOCK_BYTES), np.uint8)
        scales = rng.integers(117, 131, (*rows, inputs // 32), np.uint8)
        return [operand(blocks), operand(scales)], decoded(blocks, scales)
    name, scale_name, *offsets = kind.split()
    bits, dtype = int(name[3:]), PLAIN[scale_name]
    half = 1 << bits - 1
    parts = [operand(pack(rng.integers(-half, half, shape), bits))]
    parts.append(stored(rng.uniform(-2, 2, (*rows, inputs // group)).astype(np.float32), dtype)[0])
    if offsets:
        parts.append(stored(rng.integers(-half, half, (*rows, inputs // group)).astype(np.float32), dtype)[0])
    encoding = Grouped(bits, group, dtype, bool(offsets))
    return parts, encoding.decode([part.array for part in parts], FLOAT32)


def operator(kind: str, grouped: bool = False) -> str:
    name = "linear" if kind in PLAIN else f"linear_{kind.split()[0]}"
    return f"grouped_{name}" if grouped else name


def error(ours: Array, rows: Array, weight: Array, bias: Array | float) -> float:
    """`weight` is that of each row."""
    rows, weight = rows.astype(np.float64), weight.astype(np.float64)
    truth = np.einsum("rk,rnk->rn", rows, weight) + bias
    magnitude = np.einsum("rk,rnk->rn", abs(rows), abs(weight)) + abs(bias)
    return float((abs(ours - truth) / magnitude).max())


def groups_of(kind: str, inputs: int) -> Sequence[int]:
    """Every possible kind of group: one block, several, the whole row."""
    if kind in PLAIN or kind == "mxfp4":
        return [32]
    return sorted({group for group in (32, 64, 96) if inputs % group == 0} | {inputs})


@pytest.mark.parametrize("kind", KINDS)
def test_products_of_any_shape_are_as_exact_as_float32_sums(library: Path, kind: str) -> None:
    """Sizes around those of vectors, chunks, passes, tiles and panels."""
    rng = np.random.default_rng(0)
    inputs = [7, 16, 33, 130, 576] if kind in PLAIN else [32, 96, 160, 576]
    if kind not in PLAIN and kind != "mxfp4":
        inputs += [2, 50, 130]
    worst = 0.0
    for width in inputs:
        for group in groups_of(kind, width):
            for outputs, tokens in zip([1, 3, 17, 40, 63, 65, 130], [1, 2, 3, 5, 9, 25, 31], strict=True):
                parts, values = matrix(kind, (outputs, width), group, rng)
                x = rng.standard_normal((tokens, width), np.float32)
                bias = [operand(rng.standard_normal(outputs, np.float32))] if tokens % 2 else []
                for rows in (x, x[:1]):
                    ours = call(library, operator(kind), [operand(rows), *parts, *bias], (len(rows), outputs))
                    weight = np.broadcast_to(values, (len(rows), outputs, width))
                    worst = max(worst, error(ours, rows, weight, bias[0].array if bias else 0.0))
    print(f"{kind}: largest error {worst:.1e} of the sum of magnitudes")
    assert worst <= TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_meets_the_weight_of_its_group(library: Path, kind: str) -> None:
    rng = np.random.default_rng(1)
    worst = 0.0
    for tokens, fanout, groups, outputs, inputs in [
        (1, 1, 1, 1, 32),
        (1, 4, 5, 70, 96),
        (7, 3, 2, 33, 64),
        (40, 2, 3, 37, 288),
        (60, 1, 2, 81, 160),
    ]:
        parts, values = matrix(kind, (groups, outputs, inputs), 32, rng)
        if kind in PLAIN:
            parts = [Operand(np.ascontiguousarray(parts[0].array.swapaxes(1, 2)), parts[0].dtype)]
        x = rng.standard_normal((tokens, inputs), np.float32)
        group = rng.integers(0, groups, tokens * fanout, np.int32)
        bias = rng.standard_normal((groups, outputs), np.float32)
        given = [operand(x), operand(group), *parts, operand(bias)]
        ours = call(library, operator(kind, grouped=True), given, (tokens * fanout, outputs))
        worst = max(worst, error(ours, np.repeat(x, fanout, axis=0), values[group], bias[group]))
    print(f"{kind}: largest error {worst:.1e} of the sum of magnitudes")
    assert worst <= TOLERANCE


@pytest.mark.parametrize("tokens", [1, 2, 64])
@pytest.mark.parametrize("kind", ["mxfp4", "int8 float32 offsets", "int4 float16", "int4 bfloat16 offsets", "bfloat16"])
def test_every_weight_is_decoded_exactly(library: Path, kind: str, tokens: int) -> None:
    """Rows of the unit matrix read single values out of the weight."""
    parts, values = matrix(kind, (37, 64), 32, np.random.default_rng(2))
    unit = np.eye(64, dtype=np.float32)
    ours = [
        call(library, operator(kind), [operand(rows), *parts], (len(rows), 37)) for rows in np.split(unit, 64 // tokens)
    ]
    np.testing.assert_array_equal(np.concatenate(ours).T, values)


@pytest.mark.parametrize("dtype", PLAIN)
def test_an_embedding_widens_every_bit_pattern_exactly(library: Path, dtype: str) -> None:
    """NaN, infinity and subnormal numbers of the 16-bit formats included."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    table = (bits.astype(np.uint32) << 16).view(np.float32) if dtype == "float32" else bits.view(PLAIN[dtype].storage)
    table = table.reshape(-1, 64)[:, :61]  # rows that are no whole number of vectors
    ids = np.arange(len(table), dtype=np.int32)[::-1].reshape(4, -1)
    ours = call(library, "embedding", [operand(ids), operand(table, PLAIN[dtype])], (*ids.shape, 61))
    truth = (table.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else table.astype(np.float32)
    np.testing.assert_array_equal(ours, truth[ids])


@pytest.mark.parametrize("tokens", [1, 5, 30])
@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16", "int8 bfloat16", "int4 bfloat16", "mxfp4"])
def test_nan_and_infinity_reach_exactly_the_outputs_that_they_belong_to(library: Path, kind: str, tokens: int) -> None:
    parts, values = matrix(kind, (70, 96), 32, np.random.default_rng(3))
    x = np.ones((tokens, 96), np.float32)
    x[tokens // 2, 33] = np.nan
    infinite = np.full((1, 96), np.inf, np.float32)
    ours = call(library, operator(kind), [operand(x), *parts], (tokens, 70))
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(x).any(1, keepdims=True) & np.ones((1, 70), bool))
    if kind in PLAIN:
        part, values = stored(np.where(np.arange(70)[:, None] == 66, np.inf, values), PLAIN[kind])
        ours = call(library, "linear", [operand(abs(infinite).repeat(tokens, 0)), part], (tokens, 70))
        np.testing.assert_array_equal(ours[:, 66], np.inf)


@pytest.mark.parametrize("group", [-1, 2])
def test_a_group_that_does_not_exist_is_refused(library: Path, group: int) -> None:
    x, weight = np.ones((1, 32), np.float32), np.zeros((2, 32, 3), np.float32)
    with pytest.raises(ValueError, match="2"):
        call(library, "grouped_linear", [operand(x), operand(np.array([group], np.int32)), operand(weight)], (1, 3))


@pytest.mark.parametrize("token", [-1, 5])
def test_an_id_that_is_not_in_the_table_is_refused(library: Path, token: int) -> None:
    with pytest.raises(ValueError, match="2"):
        call(
            library, "embedding", [operand(np.array([token], np.int32)), operand(np.zeros((5, 3), np.float32))], (1, 3)
        )


def test_a_dtype_without_a_kernel_is_refused(library: Path) -> None:
    with pytest.raises(ValueError, match="1"):
        call(library, "linear", [operand(np.ones((1, 4), np.float32)), operand(np.ones((3, 4), np.int64))], (1, 3))


def test_the_number_of_threads_changes_no_bit(library: Path) -> None:
    script = Path(__file__).with_name("product_digest.py")
    path = os.pathsep.join(sys.path)
    digests = [
        subprocess.run(
            [sys.executable, str(script), str(library)],
            env=os.environ | {"MSPORT_THREADS": threads, "PYTHONPATH": path},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for threads in ("1", "3")
    ]
    assert len(digests[0].split()) == 12
    assert digests[0] == digests[1]


def digest(library: Path, kind: str, tokens: int) -> str:
    """A hash of a product that is worth several threads."""
    rng = np.random.default_rng(4)
    parts, _values = matrix(kind, (333, 704), 32, rng)
    x = rng.standard_normal((tokens, 704), np.float32)
    return hashlib.sha256(call(library, operator(kind), [operand(x), *parts], (tokens, 333)).tobytes()).hexdigest()
