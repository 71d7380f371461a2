"""Compares weights that the conversion put into groups (int4, int8) with their source.

A quantised weight must have the code nearest to its source, or the last code on its side of the range: half a step. A
weight that came packed from GPTQ, AWQ or compressed-tensors must have the very value that the source says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from msport.checkpoint import Checkpoint
from msport.checkpoint.layout import TensorInfo
from msport.convert.matching import Match
from msport.encodings import Grouped, Plain, Regroupable, Shape, find
from msport.validate.compare.sources import Array, Floats, decode_grouped, read_matrix, signed_codes, widen
from msport.validate.compare.tensor_check import TensorCheck

# The converter divides in float32, so that a value in the middle between two codes may get either.
_TIE = 2.0**-10
# Values compared at a time.
_SLAB_VALUES = 1 << 22


def grouped_encoding(found: Match, tensors: Mapping[str, TensorInfo]) -> Grouped | None:
    """The encoding of a weight of the converted checkpoint of `tensors`, if it lies in groups."""
    encoding = find(found.weight.name, found.weight.matrix, tensors)
    return encoding if isinstance(encoding, Grouped) else None


def check_grouped(
    found: Match, encoding: Grouped, source: Checkpoint, converted: Checkpoint, advance: Callable[[int], None]
) -> list[TensorCheck]:
    """The tensors of a weight that the conversion put into groups, each with its check."""
    weight = found.weight
    kind = f"{found.encodings[0].name} {'regrouped' if isinstance(found.encodings[0], Regroupable) else 'quantised'}"
    transform = f"{kind}, {encoding.name}"
    parts = encoding.parts(weight.name, weight.matrix)
    faults = [_fault(converted.tensors.get(part.name), part.shape) for part in parts]
    if any(faults):
        pairs = zip(parts, faults, strict=True)
        return [TensorCheck(part.name, transform, 0, fault=fault) for part, fault in pairs]
    total = _Found()
    for expert in range(weight.matrix[0]) if len(weight.matrix) == 3 else (None,):
        for wanted, arrays in _slabs(found, encoding, expert, source, converted):
            total += _compare(found, encoding, wanted, arrays)
            advance(sum(array.nbytes for array in arrays))
    elements = int(np.prod(weight.matrix))
    codes = TensorCheck(parts[0].name, transform, elements, total.different, total.max_abs, clipped=total.clipped)
    others = [_check_part(part.name, transform, converted) for part in parts[1:]]
    return [codes, *others]


@dataclass(frozen=True, slots=True)
class _Found:
    different: int = 0
    clipped: int = 0
    max_abs: float = 0.0

    def __add__(self, other: _Found) -> _Found:
        return _Found(self.different + other.different, self.clipped + other.clipped, max(self.max_abs, other.max_abs))


def _fault(tensor: TensorInfo | None, shape: Shape) -> str | None:
    if tensor is None:
        return "is missing"
    return None if tensor.shape == shape else f"is {list(tensor.shape)}, not {list(shape)}"


def _slabs(
    found: Match, encoding: Grouped, expert: int | None, source: Checkpoint, converted: Checkpoint
) -> Iterator[tuple[Floats, list[Array]]]:
    """Rows of a matrix: their values in the source, and the stored tensors, floating ones as float32."""
    outputs, inputs = found.weight.matrix[-2:]
    names = [part.name for part in encoding.parts(found.weight.name, found.weight.matrix)]
    rows = () if expert is None else (expert, expert + 1)
    plain = isinstance(found.encodings[0], Plain) and expert is None and found.form.per_expert is None
    wanted = None if plain else read_matrix(found, expert, source)
    stack = None if expert is None else [_read(converted, name, *rows)[0] for name in names]
    step = max(1, _SLAB_VALUES // inputs)
    for begin in range(0, outputs, step):
        end = min(begin + step, outputs)
        cuts = [encoding.rows(number, begin, end) or () for number in range(len(names))]
        if stack is None:
            arrays = [_read(converted, name, *cut) for name, cut in zip(names, cuts, strict=True)]
        else:
            arrays = [part[slice(*cut) if cut else slice(None)] for part, cut in zip(stack, cuts, strict=True)]
        if wanted is None:
            yield np.asarray(_read(source, found.parts[0][0].name, begin, end), np.float32), arrays
        else:
            yield wanted[begin:end], arrays


def _read(checkpoint: Checkpoint, name: str, begin: int = 0, end: int | None = None) -> Array:
    return widen(checkpoint.read(name, begin, end), checkpoint.tensors[name].dtype)


def _compare(found: Match, encoding: Grouped, wanted: Floats, arrays: list[Array]) -> _Found:
    if isinstance(found.encodings[0], Regroupable):
        return _compare_values(wanted, decode_grouped(encoding, arrays))
    return _compare_codes(encoding, wanted, arrays)


def _compare_values(wanted: Floats, held: Floats) -> _Found:
    different = ~(wanted == held)
    distance = np.abs(wanted[different].astype(np.float64) - held[different])
    return _Found(int(different.sum()), 0, _largest(distance))


def _compare_codes(encoding: Grouped, wanted: Floats, arrays: list[Array]) -> _Found:
    codes = signed_codes(arrays[0], encoding.bits).astype(np.float64)
    scales = np.repeat(arrays[1].astype(np.float64), encoding.group, axis=1)
    levels = codes + np.repeat(arrays[2], encoding.group, axis=1) if encoding.offsets else codes
    half = 1 << encoding.bits - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = wanted / scales - levels  # in steps
        error = np.abs(wanted - levels * scales)
    near = np.abs(distance) <= 0.5 + _TIE
    above = (codes == half - 1) & (distance > 0) & (distance <= half)
    below = (codes == -half) & (distance < 0) & (distance >= -half)
    clipped = ~near & (above | below)
    wrong = ~near & ~clipped
    return _Found(int(wrong.sum()), int(clipped.sum()), _largest(error[wrong]))


def _largest(distance: Array) -> float:
    if not distance.size:
        return 0.0
    return float(np.where(np.isnan(distance), np.inf, distance).max())


def _check_part(name: str, transform: str, converted: Checkpoint) -> TensorCheck:
    """The scales, offsets or order of a weight: no scale is zero or not finite, each offset is an integer, an order
    has each input once.
    """
    values = _read(converted, name)
    if name.endswith("_scales"):
        wrong = ~(np.isfinite(values) & (values != 0))
    elif name.endswith("_offsets"):
        wrong = ~(np.isfinite(values) & (np.floor(values) == values))
    else:
        wrong = np.sort(values, axis=-1) != np.arange(values.shape[-1])
    return TensorCheck(name, transform, values.size, int(wrong.sum()), np.inf if wrong.any() else 0.0)
