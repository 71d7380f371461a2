from __future__ import annotations

import numpy as np
import pytest
from checkpoint.mxfp4_definition import decoded
from hypothesis import given, settings
from hypothesis import strategies as st

from convert.hub_folder import MemoryCatalog, to_bfloat16
from msport.checkpoint import DType
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32, UINT8, Array, cast
from msport.convert.arena import Arena
from msport.convert.tensors import OutputTensor, SourceTensor
from msport.convert.transform import Transform
from msport.convert.transforms import Copy, DecodeStack, StackTransposed
from msport.encodings import MXFP4, Plain

FLOATING = (BFLOAT16, FLOAT16, FLOAT32)


def storage(values: Array, dtype: DType) -> Array:
    return cast(values.astype(np.float32), FLOAT32, dtype)


def output(
    transform: Transform, shape: tuple[int, ...], dtype: DType, sources: dict[str, tuple[DType, Array]]
) -> OutputTensor:
    described = tuple(SourceTensor(name, kind, values.shape, "f") for name, (kind, values) in sources.items())
    return OutputTensor("out", dtype, shape, transform, described)


def make(tensor: OutputTensor, sources: dict[str, tuple[DType, Array]], begin: int, end: int) -> Array:
    """Rows of `tensor`, made in an arena of exactly the stated size."""
    transform = tensor.transform
    arena = Arena(transform.scratch(tensor, end - begin))
    return transform.produce(tensor, begin, end, MemoryCatalog(sources), arena)[0].reshape(-1).copy()


def check_every_grid_range(tensor: OutputTensor, sources: dict[str, tuple[DType, Array]], whole: Array) -> None:
    grid = tensor.transform.grid(tensor)
    assert grid.rows * grid.row_nbytes == tensor.nbytes == whole.nbytes
    for rows in {grid.step, 2 * grid.step, grid.rows_per_expert + grid.step}:
        made = [make(tensor, sources, begin, end) for begin, end in grid.slabs(rows)]
        np.testing.assert_array_equal(np.concatenate(made), whole.reshape(-1))


@pytest.mark.parametrize("target", FLOATING, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("source", FLOATING, ids=lambda dtype: dtype.name)
def test_copy_casts_between_all_floating_dtypes(source: DType, target: DType) -> None:
    values = storage(np.random.default_rng(0).normal(size=(300, 401)), source)
    sources = {"a": (source, values)}
    tensor = output(Copy(), (300, 401), target, sources)
    check_every_grid_range(tensor, sources, cast(values, source, target))


def test_copy_never_casts_bytes() -> None:
    values = np.arange(256, dtype=np.uint8)
    sources = {"a_blocks": (UINT8, values)}
    check_every_grid_range(output(Copy(), (256,), UINT8, sources), sources, values)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,)])
def test_copy_takes_scalars_and_empty_tensors(shape: tuple[int, ...]) -> None:
    values = np.full(shape, 7, np.float32)
    sources = {"a": (FLOAT32, values)}
    tensor = output(Copy(), shape, BFLOAT16, sources)
    grid = Copy().grid(tensor)
    made = [make(tensor, sources, begin, end) for begin, end in grid.slabs(max(grid.step, 1))]
    assert sum(map(len, made)) == values.size


@settings(max_examples=30)
@given(
    experts=st.integers(1, 3),
    groups=st.integers(1, 4),
    outputs=st.integers(1, 70),
    target=st.sampled_from(FLOATING),
    seed=st.integers(0, 2**32),
)
def test_packed_experts_are_decoded_and_transposed(
    experts: int, groups: int, outputs: int, target: DType, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 256, (experts, outputs, groups, 16), np.uint8)
    scales = generator.integers(110, 130, (experts, outputs, groups), np.uint8)
    sources = {"w_blocks": (UINT8, blocks), "w_scales": (UINT8, scales)}
    tensor = output(DecodeStack(MXFP4), (experts, 32 * groups, outputs), target, sources)
    expected = decoded(blocks, scales, target).swapaxes(1, 2)
    check_every_grid_range(tensor, sources, np.ascontiguousarray(expected))


@settings(max_examples=30)
@given(
    group=st.sampled_from([1, 2]),
    experts=st.integers(1, 3),
    inputs=st.integers(1, 600),
    outputs=st.integers(1, 300),
    source=st.sampled_from(FLOATING),
    target=st.sampled_from(FLOATING),
)
def test_experts_are_stacked_transposed_and_gate_stands_before_up(
    group: int, experts: int, inputs: int, outputs: int, source: DType, target: DType
) -> None:
    values = np.random.default_rng(0).normal(size=(experts, group, outputs, inputs))
    stored = storage(values, source)
    sources = {f"{e}.{part}": (source, stored[e, part]) for e in range(experts) for part in range(group)}
    transform = StackTransposed(group, (Plain(source),) * experts * group)
    tensor = output(transform, (experts, inputs, group * outputs), target, sources)
    expected = cast(stored, source, target).reshape(experts, group * outputs, inputs).swapaxes(1, 2)
    check_every_grid_range(tensor, sources, np.ascontiguousarray(expected))


def test_a_stack_of_layers_larger_than_a_tile_is_read_tile_by_tile() -> None:
    stored = storage(np.random.default_rng(0).normal(size=(2, 500, 700)), FLOAT32)
    sources = {str(expert): (FLOAT32, stored[expert]) for expert in range(2)}
    tensor = output(StackTransposed(1, (Plain(FLOAT32),) * 2), (2, 700, 500), BFLOAT16, sources)
    expected = cast(np.ascontiguousarray(stored.swapaxes(1, 2)), FLOAT32, BFLOAT16)
    check_every_grid_range(tensor, sources, expected)


@pytest.mark.parametrize(("source", "target"), [(FLOAT32, FLOAT16), (BFLOAT16, FLOAT16), (FLOAT32, BFLOAT16)])
def test_a_finite_value_that_would_become_infinite_is_refused(source: DType, target: DType) -> None:
    largest = 3.4e38 if target == BFLOAT16 else 65536.0
    for position in (0, 70_000, 99_999):
        values = np.zeros(100_000, np.float32)
        values[position] = -largest
        sources = {"a": (source, storage(values, source))}
        with pytest.raises(OverflowError):
            make(output(Copy(), (100_000,), target, sources), sources, 0, 100_000)


def test_infinity_and_nan_of_the_source_pass() -> None:
    values = np.array([np.inf, -np.inf, np.nan, 65504.0], np.float32)
    for source in (FLOAT32, BFLOAT16):
        stored = storage(values[:3], source)
        sources = {"a": (source, stored)}
        made = make(output(Copy(), (3,), FLOAT16, sources), sources, 0, 3)
        np.testing.assert_array_equal(made, values[:3].astype(np.float16))


def test_rounding_is_to_nearest_even() -> None:
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20], np.float32)
    sources = {"a": (FLOAT32, values)}
    made = make(output(Copy(), (3,), BFLOAT16, sources), sources, 0, 3)
    np.testing.assert_array_equal(made, to_bfloat16(np.array([1, 1 + 2**-6, 1 + 2**-7])))


def test_an_arena_smaller_than_the_stated_scratch_does_not_do() -> None:
    values = np.zeros((64, 64), np.float32)
    sources = {"a": (FLOAT32, values)}
    tensor = output(Copy(), (64, 64), BFLOAT16, sources)
    transform = Copy()
    arena = Arena(transform.scratch(tensor, 4096) - 64)
    with pytest.raises(MemoryError):
        transform.produce(tensor, 0, 4096, MemoryCatalog(sources), arena)
