"""The tensors that a conversion reads, and those that it writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msport.checkpoint import DType, TensorInfo
from msport.checkpoint.dtypes import FLOATING
from msport.checkpoint.layout import nbytes_of

if TYPE_CHECKING:
    from msport.convert.transform import Transform


class Catalog(Protocol):
    """A checkpoint as described by its headers; `files` maps each tensor to its file."""

    @property
    def folder(self) -> Path: ...
    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...
    @property
    def files(self) -> Mapping[str, Path]: ...


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """A tensor of the checkpoint that is converted, in its shard `file`."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    file: str

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return nbytes_of(self.dtype, self.shape)


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """A tensor to write: `transform` makes it from `sources`; `extents` are its bytes in `file`.

    A transform may make several tensors from the same sources at once; `part` is the number of this one.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    transform: Transform
    sources: tuple[SourceTensor, ...]
    part: int = 0
    file: str = ""
    extents: tuple[tuple[int, int], ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return nbytes_of(self.dtype, self.shape)

    @property
    def rounded(self) -> bool:
        """Whether the cast may change values."""
        return self.rounded_from is not None

    @property
    def rounded_from(self) -> str | None:
        """The name of an encoding whose values the cast may round."""
        if self.dtype not in FLOATING:
            return None
        encodings = self.transform.decoded(self)
        return next((encoding.name for encoding in encodings if self.dtype not in encoding.exact_in), None)
