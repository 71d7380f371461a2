"""Compares every converted tensor with its source, tensor by tensor in bounded memory.

The expected values are computed here a second time, from the definition of each transform and independently of the
converter's code: MXFP4 as ``code * 2^(scale - 127)`` by `ldexp`, bfloat16 rounding by `rint`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from msport.architectures import Recipe, Weight
from msport.checkpoint import Checkpoint, DType, TensorInfo
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32
from msport.convert.matching import match_checkpoint

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

_FLOATING = (FLOAT32, FLOAT16, BFLOAT16)
_SLAB_BYTES = 1 << 24
_E2M1 = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], np.float32)


@dataclass(frozen=True, slots=True)
class TensorCheck:
    """One converted tensor. `transform` describes the conversion. The tensor passes if no element differs.

    `fault` is a sentence if the whole tensor is wrong (missing, unexpected, another shape or dtype).
    """

    name: str
    transform: str
    elements: int
    different: int = 0
    max_abs: float = 0.0
    fault: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the tensor matches its source."""
        return self.fault is None and self.different == 0


def compare_weights(
    source: Checkpoint,
    converted: Checkpoint,
    advance: Callable[[int], None] = lambda nbytes: None,
    prefixes: tuple[str, ...] = ("",),
) -> tuple[TensorCheck, ...]:
    """Compares every tensor of `converted` with `source`; `advance` is called with the number of compared bytes.

    `prefixes` choose tensors by the beginnings of their names.

    Raises `CheckpointError`, `ConfigError` or `UnsupportedError` if `source` is not a complete checkpoint.
    """
    _, matches, _ = match_checkpoint(source)
    rows = [row for match in matches for row in _expected_tensors(match.weight, match.recipe, converted)]
    expected = {name for name, _, _ in rows}
    checks = [
        _check(name, shape, recipe, source, converted, advance)
        for name, shape, recipe in rows
        if name.startswith(prefixes)
    ]
    checks += [
        TensorCheck(name, "", 0, fault="is not in the architecture's table")
        for name in converted.tensors
        if name not in expected and name.startswith(prefixes)
    ]
    return tuple(checks)


def _expected_tensors(
    weight: Weight, recipe: Recipe, converted: Checkpoint
) -> list[tuple[str, tuple[int, ...], Recipe]]:
    """The tensors that the converted checkpoint should hold for `weight`: itself, or its sources if they stay
    packed.
    """
    if weight.name not in converted.tensors and any(name in converted.tensors for name, _ in recipe.sources):
        return [(name, shape, Recipe("copy", ((name, shape),))) for name, shape in recipe.sources]
    return [(weight.name, weight.shape, recipe)]


def _check(
    name: str,
    shape: tuple[int, ...],
    recipe: Recipe,
    source: Checkpoint,
    converted: Checkpoint,
    advance: Callable[[int], None],
) -> TensorCheck:
    tensor = converted.tensors.get(name)
    if tensor is None:
        return TensorCheck(name, recipe.transform, 0, fault="is missing")
    origin = source.tensors[recipe.sources[0][0]]
    transform = _describe(recipe, origin.dtype, tensor.dtype)
    if tensor.shape != shape:
        return TensorCheck(name, transform, 0, fault=f"is {list(tensor.shape)}, not {list(shape)}")
    if not _can_become(recipe, origin.dtype, tensor.dtype):
        return TensorCheck(name, transform, 0, fault=f"is {tensor.dtype.name}, made from {origin.dtype.name}")
    different, max_abs = 0, 0.0
    for begin, end, expected in _slabs(recipe, source):
        ours = converted.read(name, begin, end)
        wrong, distance = _compare(expected, ours, tensor.dtype)
        different, max_abs = different + wrong, max(max_abs, distance)
        advance(ours.nbytes)
    return TensorCheck(name, transform, tensor.nbytes // tensor.dtype.itemsize, different, max_abs)


def _describe(recipe: Recipe, origin: DType, target: DType) -> str:
    name = recipe.transform.replace("_", " ")
    return name if origin == target else f"{name}, {origin.name} to {target.name}"


def _can_become(recipe: Recipe, origin: DType, target: DType) -> bool:
    if recipe.transform.startswith(("mxfp4", "fp8")):
        return target in _FLOATING
    return origin == target or (origin in _FLOATING and target in _FLOATING)


def _slabs(recipe: Recipe, source: Checkpoint) -> Iterator[tuple[int, int, Array]]:
    """Slabs of rows of the output's first axis with their expected values: float32, or unchanged integers."""
    names = [name for name, _ in recipe.sources]
    if recipe.transform == "copy":
        tensor = source.tensors[names[0]]
        for begin, end in _row_ranges(tensor):
            yield begin, end, _widen(source.read(names[0], begin, end), tensor.dtype)
        return
    if recipe.transform == "fp8_blocks":
        yield 0, recipe.sources[0][1][0], _read_fp8(names[0], names[1], source)
        return
    for expert in range(_experts(recipe)):
        yield expert, expert + 1, _expert(recipe.transform, names, expert, source)[None]


def _row_ranges(tensor: TensorInfo) -> Iterator[tuple[int, int]]:
    if not tensor.shape:
        yield 0, 1
        return
    rows = tensor.shape[0]
    step = max(1, _SLAB_BYTES * rows // max(1, tensor.nbytes))
    for begin in range(0, rows, step):
        yield begin, min(begin + step, rows)


def _experts(recipe: Recipe) -> int:
    if recipe.transform == "mxfp4_transposed":
        return recipe.sources[0][1][0]
    return len(recipe.sources) // _per_expert(recipe.transform)


def _per_expert(transform: str) -> int:
    """Number of sources per expert of a stack."""
    layers = 2 if transform.endswith("concat_transposed") else 1
    return 2 * layers if transform.startswith("fp8") else layers


def _expert(transform: str, names: list[str], expert: int, source: Checkpoint) -> Floats:
    """Expert number `expert` of an output, ``[in, out]``."""
    if transform == "mxfp4_transposed":
        blocks, scales = (source.read(name, expert, expert + 1)[0] for name in names)
        return decode_mxfp4(blocks, scales).T
    count = _per_expert(transform)
    names = names[expert * count : (expert + 1) * count]
    if transform.startswith("fp8"):
        layers = [_read_fp8(weight, scale, source) for weight, scale in zip(names[::2], names[1::2], strict=True)]
    else:
        layers = [_read(name, source) for name in names]
    return np.concatenate(layers, axis=0).T


def _read_fp8(weight: str, scale: str, source: Checkpoint) -> Floats:
    """An FP8 layer ``[out, in]`` as float32: each value times the scale of its block of 128 by 128."""
    values = decode_float8(source.read(weight))
    rows, columns = (np.arange(size) // 128 for size in values.shape)
    return np.asarray(values * _read(scale, source)[rows[:, None], columns], np.float32)


def decode_float8(codes: npt.NDArray[np.uint8]) -> Floats:
    """Codes of float8_e4m3fn as float32.

    Source: OCP 8-bit Floating Point 1.0. Four bits of exponent with bias 7, three of mantissa; no infinity, one NaN.
    """
    exponent, mantissa = codes >> 3 & 15, codes & 7
    normal = exponent > 0
    values = np.ldexp(mantissa + normal * np.float32(8), np.maximum(exponent, 1).astype(np.int32) - 10)
    values[codes & 127 == 127] = np.nan
    return np.asarray(np.where(codes & 128, -values, values), np.float32)


def decode_mxfp4(blocks: npt.NDArray[np.uint8], scales: npt.NDArray[np.uint8]) -> Floats:
    """Blocks ``[rows, groups, 16]`` and scales ``[rows, groups]`` as float32 ``[rows, groups * 32]``.

    Source: OCP Microscaling Formats (MX) 1.0. The low nibble is the even element; bit 3 is the sign; scale 255 is NaN.
    """
    codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*scales.shape, 32)
    values = np.where(codes & 8, -_E2M1[codes & 7], _E2M1[codes & 7])
    with np.errstate(over="ignore"):
        values = np.ldexp(values, scales[..., None].astype(np.int32) - 127)
    values[scales == 255] = np.nan
    return np.asarray(values.reshape(len(blocks), -1))


def round_to(values: Floats, dtype: DType) -> Floats:
    """`values` rounded to `dtype`, to nearest even, but stored as float32."""
    if dtype == FLOAT16:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return values.astype(np.float16).astype(np.float32)
    if dtype != BFLOAT16:
        return values
    _, exponent = np.frexp(values)
    quantum = np.maximum(exponent - 8, -133)  # eight bits of mantissa; below 2^-126 the steps stay the same
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.rint(np.ldexp(values.astype(np.float64), -quantum))
        rounded = np.ldexp(steps, quantum).astype(np.float32)
    return np.where(np.isfinite(values), np.copysign(rounded, values), values)


def _read(name: str, source: Checkpoint) -> Floats:
    return np.asarray(_widen(source.read(name), source.tensors[name].dtype), np.float32)


def _widen(array: Array, dtype: DType) -> Array:
    """Converts storage form to float32 exactly; integers stay unchanged."""
    if dtype == BFLOAT16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32) if dtype == FLOAT16 else array


def _compare(expected: Array, ours: Array, dtype: DType) -> tuple[int, float]:
    """The number of elements that differ bit by bit (a NaN equals any NaN), and their largest difference."""
    if dtype not in _FLOATING:
        distance = np.abs(expected.astype(np.float64) - ours)
        return int((expected != ours).sum()), float(distance.max(initial=0.0))
    wanted = np.ascontiguousarray(round_to(expected, dtype))
    held = np.ascontiguousarray(_widen(ours, dtype))
    different = (wanted.view(np.uint32) != held.view(np.uint32)) & ~(np.isnan(wanted) & np.isnan(held))
    if not different.any():
        return 0, 0.0
    distance = np.abs(wanted[different].astype(np.float64) - held[different])
    return int(different.sum()), float(np.where(np.isnan(distance), np.inf, distance).max())
