"""Fills a network's parameters from a converted checkpoint.

A tensor in the model's dtype is memory-mapped: MindSpore on CPU computes on the file's own pages, so loading reads
nothing, and the system can reclaim the memory. Any other tensor is cast once, into the only copy that the network
keeps.
"""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor
from mindspore.common import np_dtype

from msport.architectures import ARCHITECTURES, ModelConfig, Weight
from msport.checkpoint import dtypes, mxfp4
from msport.checkpoint.dtypes import Array, DType
from msport.checkpoint.index import Checkpoint
from msport.encodings import Plain, find
from msport.errors import CheckpointError
from msport.msmodels import ops
from msport.msmodels.layers.decoder import CausalLM
from msport.msmodels.layers.parameters import interleaved_axis

# The largest scale of MXFP4 whose products stay finite in a dtype: 6 * 2 ** (scale - 127).
_LARGEST_SCALE = {"float16": 140, "bfloat16": 252, "float32": 252}


def place_weights(network: CausalLM, config: ModelConfig, checkpoint: Checkpoint, dtype: DType) -> None:
    """Fills the weights of `network` from `checkpoint` in `dtype`. Raises `CheckpointError` if one does not fit."""
    parameters: dict[str, Parameter] = {parameter.name: parameter for parameter in network.get_parameters()}
    for weight in ARCHITECTURES[config.architecture].weights(config):
        place_weight(parameters[weight.name], weight, checkpoint, dtype)
    missing = [name for name, parameter in parameters.items() if parameter.has_init]
    if missing:
        raise AssertionError(f"parameters that no row of the tensor table fills: {missing}")


def place_weight(parameter: Parameter, weight: Weight, checkpoint: Checkpoint, dtype: DType) -> None:
    """Fills `parameter`, which may have another name, with `weight` of `checkpoint`."""
    array = _materialise(weight, checkpoint, dtype)
    if (axis := interleaved_axis(parameter)) is not None:
        array = ops.arrange_gate_up(array, axis)
    parameter.set_data(_as_tensor(array, dtypes.UINT8 if weight.packed else dtype))


def _materialise(weight: Weight, checkpoint: Checkpoint, dtype: DType) -> Array:
    """The tensor in `dtype`, in storage form: memory-mapped if nothing changes, otherwise a new array."""
    encoding = find(weight.name, weight.matrix, checkpoint.tensors)
    if encoding is None:
        raise CheckpointError(
            f"{checkpoint.folder}: no tensor {weight.name}; convert the model again with msport convert"
        )
    names = [part.name for part in encoding.parts(weight.name, weight.matrix)]
    for part in encoding.parts(weight.name, weight.matrix):
        found = checkpoint.tensors.get(part.name)
        if found is None:
            raise CheckpointError(
                f"{checkpoint.folder}: no tensor {part.name}; convert the model again with msport convert"
            )
        if found.shape != part.shape:
            raise CheckpointError(
                f"{checkpoint.files[part.name]}: {part.name} is {found.shape}, config.json implies {part.shape}"
            )
    if weight.packed:
        return _packed(checkpoint, names[0], dtype)
    if isinstance(encoding, Plain):
        return _cast(checkpoint, names[0], dtype)
    return _decode(weight, checkpoint, names, dtype)


def _cast(checkpoint: Checkpoint, name: str, dtype: DType) -> Array:
    source = checkpoint.tensors[name].dtype
    if len(checkpoint.tensors[name].extents) != 1:
        return dtypes.cast(checkpoint.read(name), source, dtype)
    view = checkpoint.view(name)
    if source != dtype:
        return dtypes.cast(view, source, dtype)
    # Tensors in a .ckpt file are not aligned, but kernels need aligned elements.
    return view if view.flags.aligned else view.copy()


def _packed(checkpoint: Checkpoint, name: str, dtype: DType) -> Array:
    """Unchanged blocks or scales. Raises `CheckpointError` if a scale overflows in `dtype`."""
    array = _cast(checkpoint, name, dtypes.UINT8)
    if name.endswith("_scales") and (largest := int(array.max())) > _LARGEST_SCALE[dtype.name]:
        raise CheckpointError(
            f"{checkpoint.files[name]}: {name} holds a scale of {largest}, which overflows {dtype.name};"
            " load in another dtype"
        )
    return array


def _decode(weight: Weight, checkpoint: Checkpoint, names: list[str], dtype: DType) -> Array:
    blocks, scales = (checkpoint.view(name) for name in names)
    out = np.empty(weight.shape, dtype.storage)
    for expert in range(weight.shape[0]):  # one at a time, to bound the scratch memory
        mxfp4.decode_transposed(blocks[expert], scales[expert], dtype, out=out[expert])
    return out


def _as_tensor(array: Array, dtype: DType) -> Tensor:
    if dtype == dtypes.BFLOAT16:
        array = array.view(np_dtype.bfloat16)
    return Tensor.from_numpy(array)
