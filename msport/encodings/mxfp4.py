"""MXFP4, the packed four-bit weights of gpt-oss, decoded and transposed to bfloat16, float32 or float16.

A block is 32 values along K: 16 bytes of codes, the even value in the low nibble, and one scale byte; a value is
``code * 2**(scale - 127)``. Sources: OCP Microscaling Formats v1.0, sections 5.3.3 (E2M1) and 5.4.1 (E8M0);
``transformers/integrations/mxfp4.py``, with which every decoded bit agrees.

Each value is exact in bfloat16 and float32, subnormal ones included, with two exceptions at the upper end: scale 253
overflows for codes of magnitude 4 and 6, scale 254 for 2, 3, 4 and 6. float16 is exact from scale 104 on, rounds to
nearest even below, and overflows for some codes from scale 141 on. A value that overflows is refused (Transformers
would continue with infinity), and so is scale 255, which is NaN.

If there is a C++ compiler, ``mxfp4_kernel`` decodes. This NumPy code is the definition and the fallback: one gather
from a table of 65,536 entries, (scale, byte) -> two values, in tiles that stay in the L2 cache. A call needs at most
``SCRATCH_BYTES`` besides its result. To bound the result too, pass a range of rows ``[..., a:b, :, :]`` or of blocks
``[..., :, a:b, :]`` of ``blocks`` (and ``scales`` likewise), with ``out`` the range of the whole that it belongs to.
Neither form holds Python's lock, so several threads can decode different ranges in parallel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32, UINT8, Array, DType, cast
from msport.checkpoint.layout import TensorInfo
from msport.encodings import mxfp4_kernel
from msport.encodings.encoding import Encoding, Part, Shape
from msport.errors import CheckpointError, UnsupportedError

BLOCK_VALUES = 32
BLOCK_BYTES = 16
# An index (2 and 8 bytes) and a pair of values (at most 8) for each byte of a tile, and some room.
SCRATCH_BYTES = 3 << 19

_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_SCALE_BIAS = 127
# Where the exponent field begins.
_EXPONENT_BITS = {BFLOAT16: 7, FLOAT16: 10, FLOAT32: 23}
_NAN_SCALE = 255
_TILE_BLOCKS = 4096
# Rows of a transposed tile: long runs in the output, while each row is still read two cache lines at a time.
_TILE_ROWS = 512

Tile = tuple[int | slice, ...]


@dataclass(frozen=True, slots=True)
class Mxfp4:
    """Codes ``{weight}_blocks [..., outputs, inputs / 32, 16]`` and ``{weight}_scales [..., outputs, inputs / 32]``."""

    name: str = "mxfp4"

    @property
    def exact_in(self) -> tuple[DType, ...]:
        return (BFLOAT16, FLOAT32)

    def parts(self, weight: str, shape: Shape) -> tuple[Part, ...]:
        if shape[-1] % BLOCK_VALUES:
            raise CheckpointError(f"{weight}: {shape[-1]} inputs; MXFP4 needs a multiple of {BLOCK_VALUES}")
        scales = (*shape[:-1], shape[-1] // BLOCK_VALUES)
        return (
            Part(f"{weight}_blocks", (*scales, BLOCK_BYTES), (UINT8,)),
            Part(f"{weight}_scales", scales, (UINT8,)),
        )

    def rows(self, part: int, begin: int, end: int) -> tuple[int, int] | None:
        return begin, end

    def decode(
        self,
        parts: Sequence[Array],
        dtype: DType,
        out: Array | None = None,
        *,
        first_row: int = 0,
        where: str = "weight",
    ) -> Array:
        blocks, scales = parts
        if out is None:
            out = np.empty((*scales.shape[:-1], scales.shape[-1] * BLOCK_VALUES), dtype.storage)
        # The decoder writes [..., inputs, outputs], to any strides.
        decode_transposed(blocks, scales, dtype, out=out.swapaxes(-1, -2), where=where)
        return out


MXFP4 = Mxfp4()
# The largest scale whose products stay finite in a dtype: 6 * 2 ** (scale - 127).
_LARGEST_SCALE = {FLOAT16: 140, BFLOAT16: 252, FLOAT32: 252}


def detect(weight: str, shape: Shape, tensors: Mapping[str, TensorInfo]) -> Mxfp4 | None:
    return MXFP4 if f"{weight}_blocks" in tensors else None


def refuse_overflow(encoding: Encoding, parts: Sequence[Array], dtype: DType, where: str) -> None:
    """Raises CheckpointError if a graph that decodes the `parts` of a matrix to `dtype` would get infinity.

    Only MXFP4 has scales that large; looking at them is quick.
    """
    if isinstance(encoding, Mxfp4) and (largest := int(parts[1].max(initial=0))) > _LARGEST_SCALE[dtype]:
        raise CheckpointError(
            f"{where} holds a scale of {largest}, which overflows {dtype.name}; load in another dtype"
        )


def decode_transposed(
    blocks: Array,
    scales: Array,
    dtype: DType = BFLOAT16,
    out: Array | None = None,
    *,
    where: str = "MXFP4 tensor",
) -> Array:
    """Decode uint8 ``blocks`` ``[..., rows, K/32, 16]`` and ``scales`` ``[..., rows, K/32]`` to ``[..., K, rows]``.

    The Hub's ``[E, out, in]`` becomes ``[E, in, out]``. The packed bytes are transposed, which moves a quarter of the
    bytes of the result. The result is in ``dtype``'s storage form, in ``out`` if given, which may have any strides.
    ``where`` names the tensor in errors, with its file if possible. Raises CheckpointError for scale 255 and for a
    value that ``dtype`` cannot hold, before anything is decoded.
    """
    *prefix, rows, groups = scales.shape
    values = _output(out, (*prefix, _width(blocks, scales), rows), dtype)
    table = _table(dtype)
    _refuse_unrepresentable(blocks, scales, dtype, where)
    if mxfp4_kernel.decode(blocks, scales, values, _kernel_table(dtype)):
        return values
    halves = values.view(f"u{dtype.itemsize}").reshape(*prefix, groups, BLOCK_BYTES, 2, rows)
    halves = np.moveaxis(halves, -1, -4)  # [..., rows, groups, 16, 2], rows still adjacent
    narrow, wide, gathered = _scratch(blocks, np.uint16), _scratch(blocks, np.intp), _scratch(blocks, table.dtype)
    for tile in _tiles(scales.shape):
        packed = blocks[tile].transpose(1, 2, 0)  # [groups, 16, rows]
        index = narrow[: packed.size].reshape(packed.shape)
        np.copyto(index, packed)
        # In C order, or the broadcast below would stride through it.
        index |= np.left_shift(scales[tile].T, 8, dtype=np.uint16, order="C")[:, None, :]
        pairs = gathered[: packed.size].reshape(packed.shape)
        # take() wants intp and would allocate it; "clip" (nothing is ever clipped) is the mode in which it does not
        # buffer `out`.
        positions = wide[: packed.size].reshape(packed.shape)
        np.copyto(positions, index)
        np.take(table, positions, out=pairs, mode="clip")
        target = halves[tile].transpose(1, 2, 3, 0)  # [groups, 16, 2, rows]
        np.copyto(target[:, :, 0], pairs, casting="unsafe")  # truncates to the low half
        pairs >>= 8 * dtype.itemsize
        np.copyto(target[:, :, 1], pairs, casting="unsafe")
    return values


def _scratch(blocks: Array, dtype: Any) -> Array:
    return np.empty(min(blocks.size, _TILE_BLOCKS * BLOCK_BYTES), dtype)


def _tiles(shape: tuple[int, ...]) -> Iterator[Tile]:
    """Indices that split ``[..., rows, groups]`` into tiles of at most ``_TILE_ROWS`` rows, ``_TILE_BLOCKS`` blocks."""
    *prefix, rows, groups = shape
    tile_rows = max(1, min(_TILE_ROWS, rows, _TILE_BLOCKS))
    tile_groups = max(1, _TILE_BLOCKS // tile_rows)
    for expert in product(*map(range, prefix)):
        for row in range(0, rows, tile_rows):
            for group in range(0, groups, tile_groups):
                yield (*expert, slice(row, row + tile_rows), slice(group, group + tile_groups))


def _width(blocks: Array, scales: Array) -> int:
    if blocks.dtype != np.uint8 or scales.dtype != np.uint8:
        raise TypeError(f"MXFP4 blocks and scales are uint8, got {blocks.dtype} and {scales.dtype}")
    if scales.ndim < 2 or blocks.shape != (*scales.shape, BLOCK_BYTES):
        raise ValueError(
            f"blocks {blocks.shape}, scales {scales.shape}: not [..., rows, K/32, 16] and [..., rows, K/32]"
        )
    return scales.shape[-1] * BLOCK_VALUES


def _output(out: Array | None, shape: tuple[int, ...], dtype: DType) -> Array:
    if out is None:
        return np.empty(shape, dtype.storage)
    if out.shape != shape or out.dtype != dtype.storage:
        raise ValueError(f"out must be a {dtype.storage} array of shape {shape}, got {out.dtype} {out.shape}")
    return out


def _refuse_unrepresentable(blocks: Array, scales: Array, dtype: DType, where: str) -> None:
    largest = int(scales.max(initial=0))
    if largest == _NAN_SCALE:
        block = tuple(int(index) for index in np.unravel_index(int(scales.argmax()), scales.shape))
        raise CheckpointError(f"{where}: the scale of block {block} is 255, which is NaN; download the file again")
    overflows = _overflows(dtype)
    if not overflows[largest << 8 : (largest + 1) << 8].any():
        return
    for tile in _tiles(scales.shape):
        index = (scales[tile].astype(np.uint16) << 8)[..., None] | blocks[tile]
        if overflows[index].any():
            scale = int(scales[tile][overflows[index].any(axis=-1)][0])
            remedy = "convert to bfloat16 or float32" if dtype == FLOAT16 else "download the file again"
            raise CheckpointError(
                f"{where}: a block of scale {scale} holds values too large for {dtype.name}; {remedy}"
            )


@cache
def _values(dtype: DType) -> Array:
    """The value of every (scale, code), ``[256, 16]`` in storage form."""
    if dtype not in (BFLOAT16, FLOAT32, FLOAT16):
        raise UnsupportedError(f"MXFP4 decodes to bfloat16, float32 or float16, not to {dtype.name}")
    magnitudes = np.array(_MAGNITUDES)
    codes = np.concatenate([magnitudes, -magnitudes])
    exact = np.ldexp(codes, np.arange(256)[:, None] - _SCALE_BIAS)  # float64
    with np.errstate(over="ignore"):
        if dtype == BFLOAT16:
            return cast(exact.astype(np.float32), FLOAT32, BFLOAT16)
        values: Array = exact.astype(dtype.storage)
    return values


@cache
def _table(dtype: DType) -> Array:
    """The two values of every (scale, byte), as one integer: 65,536 of them, indexed by ``scale << 8 | byte``."""
    values = _values(dtype).view(f"u{dtype.itemsize}").astype(f"u{2 * dtype.itemsize}")
    even, odd = values[:, None, :], values[:, :, None] << 8 * dtype.itemsize
    pairs: Array = even | odd
    return pairs.reshape(-1)


@cache
def _kernel_table(dtype: DType) -> mxfp4_kernel.Table:
    return mxfp4_kernel.make_table(_values(dtype), _EXPONENT_BITS[dtype])


@cache
def _overflows(dtype: DType) -> NDArray[np.bool_]:
    """Whether either value of (scale, byte) is beyond ``dtype``; indexed as ``_table``."""
    values = _values(dtype)
    if dtype == BFLOAT16:
        values = cast(values, BFLOAT16, FLOAT32)
    infinite = np.isinf(values)
    either: NDArray[np.bool_] = (infinite[:, None, :] | infinite[:, :, None]).reshape(-1)
    return either
