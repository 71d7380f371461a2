"""What every encoding of a matrix says of itself: which tensors hold it, and how to decode them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from msport.checkpoint.dtypes import Array, DType
from msport.checkpoint.layout import TensorInfo, nbytes_of

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One stored tensor of a weight: its full name, its shape, and the dtypes that it may have, its own first."""

    name: str
    shape: Shape
    dtypes: tuple[DType, ...]

    @property
    def dtype(self) -> DType:
        """The dtype that it has."""
        return self.dtypes[0]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return nbytes_of(self.dtype, self.shape)


class Encoding(Protocol):
    """How a matrix ``[..., outputs, inputs]`` is stored; a stack of experts has one leading axis.

    An instance is a frozen dataclass. Its fields are what the shapes of the parts do not say by themselves.
    """

    @property
    def name(self) -> str:
        """The name that users see: ``bfloat16``, ``mxfp4``, ``int4``..."""

    @property
    def exact_in(self) -> tuple[DType, ...]:
        """The dtypes that hold each value without rounding."""

    def parts(self, weight: str, shape: Shape) -> tuple[Part, ...]:
        """The tensors that hold the matrix `weight` of `shape` ``[..., outputs, inputs]``.

        Raises `CheckpointError` if no matrix of this shape can be stored so.
        """

    def rows(self, part: int, begin: int, end: int) -> tuple[int, int] | None:
        """The rows of part number `part` that hold the outputs ``[begin, end)``; None: all of it is needed.

        The rows of a part are those of its axis that runs along the outputs, the first one of a matrix.
        """

    def decode(
        self,
        parts: Sequence[Array],
        dtype: DType,
        out: Array | None = None,
        *,
        first_row: int = 0,
        where: str = "weight",
    ) -> Array:
        """The matrix ``[..., outputs, inputs]`` in storage form of `dtype`; each value is exact and rounded once.

        `parts` are in storage form, whole or cut to `rows`; `first_row` is the output with which they begin. `out`, of
        any strides, receives the result if given. `where` names the tensor in errors, with its file if possible. Raises
        `CheckpointError` for parts that hold no valid matrix and OverflowError for a value that `dtype` cannot hold.
        """


# A function of each encoding's module: the encoding of a weight `[..., outputs, inputs]` if its tensors are among those
# of a checkpoint, or else None. The group size and the like follow from the shapes of the tensors.
Detect = Callable[[str, Shape, Mapping[str, TensorInfo]], Encoding | None]


def nbytes(encoding: Encoding, shape: Shape) -> int:
    """Bytes of a matrix of `shape` ``[..., outputs, inputs]`` in `encoding`."""
    return sum(part.nbytes for part in encoding.parts("", shape))
