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

from msport.checkpoint import Checkpoint, DType, TensorInfo
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32
from msport.convert.matching import Match, match_checkpoint
from msport.encodings import Plain

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
    rows = [row for found in matches for row in _expected_tensors(found, converted)]
    expected = {row.name for row in rows}
    checks = [_check(row, source, converted, advance) for row in rows if row.name.startswith(prefixes)]
    checks += [
        TensorCheck(name, "", 0, fault="is not in the architecture's table")
        for name in converted.tensors
        if name not in expected and name.startswith(prefixes)
    ]
    return tuple(checks)


@dataclass(frozen=True, slots=True)
class _Expected:
    """A tensor that the converted checkpoint should hold: a copy of `sources[0]`, or the weight `match` decoded from
    `sources`.
    """

    name: str
    shape: tuple[int, ...]
    sources: tuple[str, ...]
    match: Match | None = None

    @property
    def encoded(self) -> str | None:
        """The name of the sources' encoding, if they are not plain."""
        if self.match is None or isinstance(self.match.encodings[0], Plain):
            return None
        return self.match.encodings[0].name

    @property
    def transform(self) -> str:
        per_expert = None if self.match is None else self.match.form.per_expert
        if per_expert is not None:
            stack = "stack concat transposed" if per_expert > 1 else "stack transposed"
            return f"{self.encoded} {stack}" if self.encoded else stack
        if self.encoded is None:
            return "copy"
        return f"{self.encoded} transposed" if len(self.shape) == 3 else f"{self.encoded} decoded"


def _expected_tensors(found: Match, converted: Checkpoint) -> list[_Expected]:
    """The tensors that the converted checkpoint should hold for a weight: itself, or its sources if they stay as they
    are.
    """
    parts = [part for parts in found.parts for part in parts]
    weight = found.weight
    if weight.name not in converted.tensors and any(part.name in converted.tensors for part in parts):
        return [_Expected(part.name, part.shape, (part.name,)) for part in parts]
    return [_Expected(weight.name, weight.shape, tuple(part.name for part in parts), found)]


def _check(row: _Expected, source: Checkpoint, converted: Checkpoint, advance: Callable[[int], None]) -> TensorCheck:
    tensor = converted.tensors.get(row.name)
    if tensor is None:
        return TensorCheck(row.name, row.transform, 0, fault="is missing")
    origin = source.tensors[row.sources[0]].dtype
    transform = row.transform if origin == tensor.dtype else f"{row.transform}, {origin.name} to {tensor.dtype.name}"
    if tensor.shape != row.shape:
        return TensorCheck(row.name, transform, 0, fault=f"is {list(tensor.shape)}, not {list(row.shape)}")
    if not _can_become(row, origin, tensor.dtype):
        return TensorCheck(row.name, transform, 0, fault=f"is {tensor.dtype.name}, made from {origin.name}")
    different, max_abs = 0, 0.0
    for begin, end, expected in _slabs(row, source):
        ours = converted.read(row.name, begin, end)
        wrong, distance = _compare(expected, ours, tensor.dtype)
        different, max_abs = different + wrong, max(max_abs, distance)
        advance(ours.nbytes)
    return TensorCheck(row.name, transform, tensor.nbytes // tensor.dtype.itemsize, different, max_abs)


def _can_become(row: _Expected, origin: DType, target: DType) -> bool:
    if row.encoded is not None:
        return target in _FLOATING
    return origin == target or (origin in _FLOATING and target in _FLOATING)


def _slabs(row: _Expected, source: Checkpoint) -> Iterator[tuple[int, int, Array]]:
    """Slabs of rows of the output's first axis with their expected values: float32, or unchanged integers."""
    if row.transform == "copy":
        tensor = source.tensors[row.sources[0]]
        for begin, end in _row_ranges(tensor):
            yield begin, end, _widen(source.read(row.sources[0], begin, end), tensor.dtype)
    elif len(row.shape) < 3:
        yield 0, row.shape[0], _layer(row.encoded, row.sources, source)
    else:
        for expert in range(row.shape[0]):
            yield expert, expert + 1, _expert(row, expert, source)[None]


def _row_ranges(tensor: TensorInfo) -> Iterator[tuple[int, int]]:
    if not tensor.shape:
        yield 0, 1
        return
    rows = tensor.shape[0]
    step = max(1, _SLAB_BYTES * rows // max(1, tensor.nbytes))
    for begin in range(0, rows, step):
        yield begin, min(begin + step, rows)


def _expert(row: _Expected, expert: int, source: Checkpoint) -> Floats:
    """Expert number `expert` of an output, ``[in, out]``."""
    per_expert = None if row.match is None else row.match.form.per_expert
    if per_expert is None:
        parts = [source.read(name, expert, expert + 1)[0] for name in row.sources]
        return decode_mxfp4(*parts).T
    parts_per_layer = len(row.sources) // (row.shape[0] * per_expert)
    first = expert * per_expert * parts_per_layer
    names = [row.sources[first + layer * parts_per_layer :][:parts_per_layer] for layer in range(per_expert)]
    return np.concatenate([_layer(row.encoded, layer, source) for layer in names], axis=0).T


def _layer(encoded: str | None, names: tuple[str, ...], source: Checkpoint) -> Floats:
    """A layer ``[out, in]`` as float32, from the tensors `names`."""
    if encoded == "fp8":
        return _read_fp8(names[0], names[1], source)
    if encoded == "mxfp4":
        return decode_mxfp4(*(source.read(name) for name in names))
    return _read(names[0], source)


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
