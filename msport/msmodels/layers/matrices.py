"""The matrices of a network: each is a tuple of the parameters that hold it, in an encoding of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mindspore as ms
from mindspore import Parameter, ParameterTuple, nn

from msport.architectures import Weight
from msport.checkpoint import dtypes
from msport.checkpoint.dtypes import DType
from msport.encodings import Encoding, Plain, Shape, Transposed
from msport.msmodels.layers.parameters import interleaved_axis, weight

# MindSpore's dtypes for ours.
TYPES = {
    dtypes.FLOAT32: ms.float32,
    dtypes.FLOAT16: ms.float16,
    dtypes.BFLOAT16: ms.bfloat16,
    dtypes.UINT8: ms.uint8,
    dtypes.INT8: ms.int8,
    dtypes.INT32: ms.int32,
    dtypes.INT4_PAIRS: ms.qint4x2,
}


class MatrixCell(nn.Cell):
    """A cell with matrices ``[..., outputs, inputs]``.

    Each is an attribute with the name of its weight on the Hub: a tuple of parameters with the names and in the order
    of `Encoding.parts`. Next to it, ``{attribute}_encoding`` is what the operators call the encoding.
    """

    def add_matrix(self, name: str, *shape: int, dtype: ms.Type, interleaved: bool = False) -> None:
        """Adds the matrix `name` of `shape`, plain in `dtype`. `interleaved`: gate and up outputs alternate."""
        self._hold(name, _parameters(name, shape, Plain(by_type(dtype)), interleaved=interleaved), "plain")

    def encode(self, name: str, shape: Shape, encoding: Encoding) -> None:
        """Lets the matrix `name` of `shape` be in `encoding`."""
        former: Parameter = getattr(self, name)[0]
        full_name = f"{former.name.removesuffix(name)}{name}"
        parameters = _parameters(full_name, shape, encoding, interleaved=interleaved_axis(former) is not None)
        self._hold(name, parameters, kind(encoding))

    def share(self, name: str, other: MatrixCell) -> None:
        """Lets the matrix `name` be that of `other`."""
        self._hold(name, getattr(other, name), getattr(other, f"{name}_encoding"))

    def matrices(self) -> dict[str, ParameterTuple]:
        """All matrices by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, ParameterTuple)}

    def _hold(self, name: str, parameters: Sequence[Parameter], encoding: str) -> None:
        former = {id(parameter) for parameter in self.__dict__.pop(name, ())}
        for key in [key for key, parameter in self._params.items() if id(parameter) in former]:
            del self._params[key]
        setattr(self, name, ParameterTuple(parameters))
        setattr(self, f"{name}_encoding", encoding)


def encode(network: nn.Cell, weights: Sequence[Weight], encodings: Mapping[str, Encoding]) -> None:
    """Gives each of `weights` that `encodings` names its encoding in `network`; the others stay plain in the dtype of
    computation.
    """
    cells = dict(network.cells_and_names())
    for row in weights:
        path, _, name = row.name.rpartition(".")
        cell = cells[path]
        if row.name in encodings and isinstance(cell, MatrixCell) and name in cell.matrices():
            cell.encode(name, row.matrix, encodings[row.name])


def kind(encoding: Encoding) -> str:
    """What the operators call `encoding`. A plain weight tells its dtype itself, and so does a transposed one."""
    if isinstance(encoding, Plain | Transposed):
        return type(encoding).__name__.lower()
    return encoding.name


def stored_form(encoding: Encoding) -> Encoding:
    """The encoding in which a file holds what lies in memory in `encoding`."""
    return encoding.grouped if isinstance(encoding, Transposed) else encoding


def by_type(dtype: ms.Type) -> DType:
    """Our dtype for MindSpore's."""
    return dtypes.by_name(str(dtype).lower())


def _parameters(name: str, shape: Shape, encoding: Encoding, *, interleaved: bool) -> list[Parameter]:
    return [
        weight(
            *part.shape,
            dtype=TYPES[part.dtype],
            name=part.name,
            interleaved=_output_axis(stored_form(encoding), number, shape) if interleaved else None,
        )
        for number, part in enumerate(encoding.parts(name, shape))
    ]


def _output_axis(encoding: Encoding, number: int, shape: Shape) -> int | None:
    """The axis of part `number` that runs along the outputs."""
    if isinstance(encoding, Plain) and len(shape) > 2:
        return len(shape) - 1
    return None if encoding.rows(number, 0, 1) is None else len(shape) - 2
