"""Compares every converted tensor with its source, tensor by tensor in bounded memory.

The expected values are computed here a second time, from the definition of each transform and independently of the
converter's code: see ``sources``; bfloat16 is rounded by `rint`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from msport.checkpoint import Checkpoint, DType, TensorInfo
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32
from msport.convert.matching import Match, match_checkpoint
from msport.encodings import Plain
from msport.validate.compare.quantised import check_grouped, grouped_encoding
from msport.validate.compare.sources import Array, Floats, read_matrix, widen
from msport.validate.compare.tensor_check import TensorCheck

_FLOATING = (FLOAT32, FLOAT16, BFLOAT16)
_SLAB_BYTES = 1 << 24


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
    expected: set[str] = set()
    checks: list[TensorCheck] = []
    for found in matches:
        rows = _expected_tensors(found, converted)
        expected |= {row.name for row in rows}
        checks += [_check(row, source, converted, advance) for row in rows if row.name.startswith(prefixes)]
        encoding = None if rows else grouped_encoding(found, converted.tensors)
        if encoding is not None:
            expected |= {part.name for part in encoding.parts(found.weight.name, found.weight.matrix)}
            if found.weight.name.startswith(prefixes):
                checks += check_grouped(found, encoding, source, converted, advance)
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
    are; none if it lies in groups, made from other tensors.
    """
    parts = [part for parts in found.parts for part in parts]
    weight = found.weight
    if weight.name not in converted.tensors and any(part.name in converted.tensors for part in parts):
        return [_Expected(part.name, part.shape, (part.name,)) for part in parts]
    if weight.name not in converted.tensors and grouped_encoding(found, converted.tensors) is not None:
        return []
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
            yield begin, end, widen(source.read(row.sources[0], begin, end), tensor.dtype)
    elif len(row.shape) < 3:
        yield 0, row.shape[0], read_matrix(_match_of(row), None, source)
    else:
        for expert in range(row.shape[0]):
            yield expert, expert + 1, read_matrix(_match_of(row), expert, source).T[None]


def _match_of(row: _Expected) -> Match:
    if row.match is None:
        raise TypeError(f"{row.name} is a copy")
    return row.match


def _row_ranges(tensor: TensorInfo) -> Iterator[tuple[int, int]]:
    if not tensor.shape:
        yield 0, 1
        return
    rows = tensor.shape[0]
    step = max(1, _SLAB_BYTES * rows // max(1, tensor.nbytes))
    for begin in range(0, rows, step):
        yield begin, min(begin + step, rows)


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


def _compare(expected: Array, ours: Array, dtype: DType) -> tuple[int, float]:
    """The number of elements that differ bit by bit (a NaN equals any NaN), and their largest difference."""
    if dtype not in _FLOATING:
        distance = np.abs(expected.astype(np.float64) - ours)
        return int((expected != ours).sum()), float(distance.max(initial=0.0))
    wanted = np.ascontiguousarray(round_to(expected, dtype))
    held = np.ascontiguousarray(widen(ours, dtype))
    different = (wanted.view(np.uint32) != held.view(np.uint32)) & ~(np.isnan(wanted) & np.isnan(held))
    if not different.any():
        return 0, 0.0
    distance = np.abs(wanted[different].astype(np.float64) - held[different])
    return int(different.sum()), float(np.where(np.isnan(distance), np.inf, distance).max())
