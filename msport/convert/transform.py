"""What every transform of source tensors into output tensors says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from msport.checkpoint.dtypes import Array
from msport.convert.arena import Arena
from msport.encodings import Encoding

if TYPE_CHECKING:
    from msport.convert.tensors import OutputTensor


class Reader(Protocol):
    """The source of bytes: files on disk, or anything else that can read a range of a tensor."""

    def read_into(self, name: str, offset: int, buffer: Array) -> None:
        """Fill `buffer` with the bytes of tensor `name` from its byte `offset` on. Called from several threads."""

    def abandon(self) -> None:
        """End running reads in other threads, if they can take long."""


@dataclass(frozen=True, slots=True)
class Grid:
    """An output of `rows` rows of `row_nbytes` bytes.

    Slabs stay within an expert and begin at multiples of `step` rows in it. An output that is not made expert by expert
    counts as one expert.
    """

    rows: int
    row_nbytes: int
    rows_per_expert: int
    step: int = 1

    def slabs(self, rows: int, first: int = 0) -> Iterator[tuple[int, int]]:
        """Ranges of at most `rows` rows, a multiple of `step`, that cover the output in order from row `first` on."""
        for start in range(0, self.rows, self.rows_per_expert or 1):
            for begin in range(max(start, first), start + self.rows_per_expert, rows):
                yield begin, min(begin + rows, start + self.rows_per_expert)

    def whole_rows(self, nbytes: int) -> int:
        """How many of the complete rows in the first `nbytes` bytes to keep: the rest must begin at a row that the grid
        allows.
        """
        rows = nbytes // self.row_nbytes
        return rows - rows % self.rows_per_expert % self.step


class Transform(Protocol):
    """A way to make output tensors from source tensors. An instance is a frozen dataclass, and part of the plan.

    A transform that makes several tensors from the same sources makes them together. Each of them has as many rows.
    """

    @property
    def label(self) -> str:
        """The name that users see."""

    def decoded(self, tensor: OutputTensor) -> tuple[Encoding, ...]:
        """The encodings of the sources, if their values are cast."""

    def grid(self, tensor: OutputTensor) -> Grid:
        """The rows of `tensor` and which ranges of them can be made."""

    def scratch(self, tensor: OutputTensor, rows: int) -> int:
        """Bytes of arena for a slab of `rows` rows, its results included."""

    def produce(self, tensor: OutputTensor, begin: int, end: int, reader: Reader, arena: Arena) -> tuple[Array, ...]:
        """Rows ``[begin, end)`` of all tensors that are made together with `tensor`, in the order of their parts.

        They are in storage form, C-contiguous, in memory of `arena`. Raises OverflowError if a finite value becomes
        infinite.
        """
