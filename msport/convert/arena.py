"""The working memory of one worker."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64


class Arena:
    """A fixed block of memory that provides the arrays of one slab. Raises MemoryError if it is used up.

    Because nothing is allocated per slab, the memory bound holds, and pages are touched only once.
    """

    def __init__(self, nbytes: int) -> None:
        self._block = np.empty(nbytes, np.uint8)
        self._used = 0

    @property
    def nbytes(self) -> int:
        """The size of the block."""
        return len(self._block)

    def mark(self) -> int:
        """The current state, for `reset`."""
        return self._used

    def reset(self, mark: int = 0) -> None:
        """Reuse the memory of all arrays made since `mark`."""
        self._used = mark

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An uninitialised C-contiguous array."""
        begin, nbytes = self._used, math.prod(shape) * dtype.itemsize
        if begin + nbytes > len(self._block):
            raise MemoryError(f"a slab asks for {begin + nbytes} bytes of an arena of {len(self._block)}")
        self._used += aligned(nbytes)
        return self._block[begin : begin + nbytes].view(dtype).reshape(shape)


def aligned(nbytes: int) -> int:
    """The bytes that an array of `nbytes` bytes takes from an arena."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
