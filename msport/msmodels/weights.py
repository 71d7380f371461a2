"""Fills a network's parameters from a converted checkpoint.

A tensor that the network holds as it is stored is memory-mapped: MindSpore on CPU computes on the file's own pages, so
loading reads nothing, and the system can reclaim the memory. Any other weight is decoded or rearranged once, into the
only copy that the network keeps.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from mindspore import Parameter, Tensor
from mindspore.common import np_dtype

from msport import encodings
from msport.architectures import ARCHITECTURES, ModelConfig, Weight
from msport.checkpoint import dtypes
from msport.checkpoint.dtypes import Array, DType
from msport.checkpoint.index import Checkpoint
from msport.encodings import Encoding, Part, Plain, Transposed
from msport.errors import CheckpointError
from msport.msmodels import ops
from msport.msmodels.layers.decoder import CausalLM
from msport.msmodels.layers.matrices import TYPES, stored_form
from msport.msmodels.layers.parameters import interleaved_axis
from msport.sizing.kept import Encodings

_NONE_KEPT: Encodings = {}


def place_weights(
    network: CausalLM, config: ModelConfig, checkpoint: Checkpoint, dtype: DType, kept: Encodings = _NONE_KEPT
) -> None:
    """Fills the weights of `network` from `checkpoint`: those of `kept` as they lie, the others in `dtype`.

    Raises `CheckpointError` if one does not fit.
    """
    parameters: dict[str, Parameter] = {parameter.name: parameter for parameter in network.get_parameters()}
    for weight in ARCHITECTURES[config.architecture].weights(config):
        place_weight(parameters, weight, checkpoint, dtype, kept.get(weight.name))
    missing = [name for name, parameter in parameters.items() if parameter.has_init]
    if missing:
        raise AssertionError(f"parameters that no row of the tensor table fills: {missing}")


def place_weight(
    parameters: Mapping[str, Parameter], weight: Weight, checkpoint: Checkpoint, dtype: DType, kept: Encoding | None
) -> None:
    """Fills those of `parameters`, by the names of tensors, that hold `weight` of `checkpoint`: in the encoding `kept`,
    None: plain in `dtype`.
    """
    stored = _find(weight, checkpoint)
    encoding = Plain(dtype) if kept is None else kept
    parts = encoding.parts(weight.name, weight.matrix)
    if stored == stored_form(encoding):
        arrays = [_view(checkpoint, part.name) for part in parts]
        where = f"{checkpoint.files[parts[0].name]}: {weight.name}"
        encodings.refuse_overflow(stored, arrays, dtype, where)
    else:
        arrays = [_decode(weight, stored, checkpoint, dtype)]
    arrays = [_arrange(parameters[part.name], array) for part, array in zip(parts, arrays, strict=True)]
    if isinstance(encoding, Transposed):
        arrays = encoding.transpose(arrays)
    for part, array in zip(parts, arrays, strict=True):
        parameters[part.name].set_data(_as_tensor(array, part.dtype))


def _arrange(parameter: Parameter, array: Array) -> Array:
    axis = interleaved_axis(parameter)
    return array if axis is None else ops.arrange_gate_up(array, axis)


def _find(weight: Weight, checkpoint: Checkpoint) -> Encoding:
    """The encoding of `weight` in `checkpoint`, whose tensors are all there and as it says."""
    stored = encodings.find(weight.name, weight.matrix, checkpoint.tensors)
    if stored is None:
        raise _missing(checkpoint, weight.name)
    for part in stored.parts(weight.name, weight.matrix):
        _check(part, checkpoint)
    return stored


def _check(part: Part, checkpoint: Checkpoint) -> None:
    if part.name not in checkpoint.tensors:
        raise _missing(checkpoint, part.name)
    found, file = checkpoint.tensors[part.name], checkpoint.files[part.name]
    if found.shape != part.shape:
        raise CheckpointError(f"{file}: {part.name} is {found.shape}, config.json implies {part.shape}")
    if found.dtype not in part.dtypes:
        raise CheckpointError(f"{file}: {part.name} is {found.dtype.name}; convert the model again with msport convert")


def _missing(checkpoint: Checkpoint, name: str) -> CheckpointError:
    return CheckpointError(f"{checkpoint.folder}: no tensor {name}; convert the model again with msport convert")


def _view(checkpoint: Checkpoint, name: str) -> Array:
    """A tensor as it is stored, memory-mapped if possible."""
    if len(checkpoint.tensors[name].extents) != 1:
        return checkpoint.read(name)
    view = checkpoint.view(name)
    # Tensors in a .ckpt file are not aligned, but kernels need aligned elements.
    return view if view.flags.aligned else view.copy()


def _decode(weight: Weight, stored: Encoding, checkpoint: Checkpoint, dtype: DType) -> Array:
    """The plain tensor in `dtype`, in storage form."""
    names = [part.name for part in stored.parts(weight.name, weight.matrix)]
    parts = [_view(checkpoint, name) for name in names]
    if isinstance(stored, Plain):
        return dtypes.cast(parts[0], stored.dtype, dtype)
    where = f"{checkpoint.files[names[0]]}: {weight.name}"
    out = np.empty(weight.shape, dtype.storage)
    matrices = out.swapaxes(-1, -2) if out.ndim > 2 else out[None]
    stacks = parts if out.ndim > 2 else [part[None] for part in parts]
    for number, matrix in enumerate(matrices):  # one at a time, to bound the scratch memory
        stored.decode([stack[number] for stack in stacks], dtype, matrix, where=where)
    return out


def _as_tensor(array: Array, dtype: DType) -> Tensor:
    if dtype == dtypes.BFLOAT16:
        array = array.view(np_dtype.bfloat16)
    tensor = Tensor.from_numpy(array)
    if dtype == dtypes.INT4_PAIRS:
        tensor.set_dtype(TYPES[dtype])
    return tensor
