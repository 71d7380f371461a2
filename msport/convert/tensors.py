"""The tensors that a conversion reads, and those that it writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from msport.checkpoint import DType, TensorInfo, fp8
from msport.checkpoint.dtypes import FLOAT8_E4M3FN, FLOAT32, FLOATING
from msport.checkpoint.layout import nbytes_of


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
    """A tensor to write: the named `transform` makes it from `sources`; `extents` are its bytes in `file`."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    transform: str
    sources: tuple[SourceTensor, ...]
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
    def rounded_from(self) -> DType | None:
        """The dtype of sources that the cast may round: any other floating-point dtype, unless this is float32."""
        weights = {source.dtype for source in self.sources if not source.name.endswith(fp8.SCALES)}
        casts = weights & {*FLOATING, FLOAT8_E4M3FN} - {self.dtype}
        return max(casts, key=lambda dtype: dtype.itemsize) if casts and self.dtype != FLOAT32 else None


def as_it_is(tensor: TensorInfo, file: str) -> OutputTensor:
    """A plain copy of a tensor in `file`, for a run that only reads it."""
    source = SourceTensor(tensor.name, tensor.dtype, tensor.shape, file)
    return OutputTensor(tensor.name, tensor.dtype, tensor.shape, "copy", (source,), file, tensor.extents)
