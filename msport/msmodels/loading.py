"""Puts a converted checkpoint's tensors behind a network's parameters.

A tensor whose dtype is the model's is mapped: MindSpore on CPU computes on the file's own pages, so loading reads
nothing and adds nothing to memory that cannot be reclaimed. Any other is cast once, into the one copy that the network
keeps.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor
from mindspore.common import np_dtype

from msport.architectures import ARCHITECTURES, ModelConfig, Weight, load_config
from msport.architectures.gpt_oss import GptOssConfig
from msport.architectures.stated_ids import read_stop_ids
from msport.arguments import checked
from msport.checkpoint import dtypes, mxfp4
from msport.checkpoint.dtypes import Array, DType
from msport.checkpoint.index import Checkpoint, open_checkpoint
from msport.checkpoint.manifest import read_manifest
from msport.device import PACKED
from msport.errors import CheckpointError, UsageError
from msport.msmodels import chips, ops
from msport.msmodels.engine import TURN, Graphs
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.decoder import CausalLM
from msport.msmodels.layers.parameters import interleaved_axis
from msport.msmodels.model import LanguageModel
from msport.msmodels.network import build_network
from msport.progress import Phases

DTYPES = {"float32": ms.float32, "float16": ms.float16, "bfloat16": ms.bfloat16}

# Activations of these exceed 65504, float16's largest number: the residual stream of gpt-oss-120b reaches 45000.
_OVERFLOW_IN_FLOAT16 = ("GptOssForCausalLM",)
# The largest scale of MXFP4 whose products stay finite in a dtype: 6 * 2 ** (scale - 127).
_LARGEST_SCALE = {"float16": 140, "bfloat16": 252, "float32": 252}

_log = logging.getLogger(__name__)


@checked
def load_model(
    folder: str | Path,
    dtype: str | None = None,
    max_length: int = 4096,
    batch_size: int = 1,
    prefill_chunk: int = 128,
    phases: Phases | None = None,
) -> LanguageModel:
    """Loads the converted checkpoint in `folder` for MindSpore's graph mode.

    `dtype` is that of weights and caches, None the device's best: float32 on CPU, bfloat16 on Ascend (float16 on chips
    without it). ``"mxfp4"`` keeps experts packed as the checkpoint has them, and computes in the device's best; None
    means that where a checkpoint was converted so. `max_length`, at most the model's own, and `batch_size` fix the size
    of the caches; prompts run in chunks of `prefill_chunk` tokens. `phases` calls and times the work as "loading";
    graphs are compiled by ``warm_up`` or when they are first needed. Raises `CheckpointError`, `ConfigError`,
    `UnsupportedError` or `UsageError`.
    """
    folder = Path(folder)
    config, dtype = choose_computation(folder, dtype)
    stop_ids = read_stop_ids(folder)
    warn_of_overflow(config, dtype)
    for name, value in (("max_length", max_length), ("batch_size", batch_size), ("prefill_chunk", prefill_chunk)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1, not {value}")
    max_length = min(max_length, config.max_position_embeddings)
    with (phases or Phases()).phase("loading"), TURN:
        device: str = ms.get_context("device_target")
        cache = CacheShape(batch_size, max_length, min(prefill_chunk, max_length), DTYPES[dtype])
        configure(device)
        operators = ops.bind(device, cache.dtype)
        network = build_network(config, cache)
        with open_checkpoint(folder) as checkpoint:
            place_weights(network, config, checkpoint, dtypes.by_name(dtype))
        return LanguageModel(
            folder,
            config,
            Graphs(network, cache, operators),
            stop_ids=stop_ids,
            dtype=dtype,
            device=device,
        )


def choose_computation(folder: Path, dtype: str | None) -> tuple[ModelConfig, str]:
    """The config of the network for the checkpoint in `folder`, and the dtype that it computes in; see `load_model`."""
    manifest = read_manifest(folder)  # a folder without one is not a finished conversion
    config = load_config(folder)
    device: str = ms.get_context("device_target")
    if (dtype or manifest.dtype) == PACKED:
        config, dtype = keep_packed(config, folder), None
    return config, choose_dtype(dtype, device)


def place_weights(network: CausalLM, config: ModelConfig, checkpoint: Checkpoint, dtype: DType) -> None:
    """Fills the weights of `network` from `checkpoint`, in `dtype`; raises `CheckpointError` where one does not fit."""
    parameters: dict[str, Parameter] = {parameter.name: parameter for parameter in network.get_parameters()}
    for weight in ARCHITECTURES[config.architecture].weights(config):
        place_weight(parameters[weight.name], weight, checkpoint, dtype)
    missing = [name for name, parameter in parameters.items() if parameter.has_init]
    if missing:
        raise AssertionError(f"parameters that no row of the tensor table fills: {missing}")


def place_weight(parameter: Parameter, weight: Weight, checkpoint: Checkpoint, dtype: DType) -> None:
    """Fills the one `parameter`, whatever its name, with `weight` of `checkpoint`."""
    array = _materialise(weight, checkpoint, dtype)
    if (axis := interleaved_axis(parameter)) is not None:
        array = ops.arrange_gate_up(array, axis)
    parameter.set_data(_as_tensor(array, dtypes.UINT8 if weight.packed else dtype))


def keep_packed(config: ModelConfig, folder: Path) -> ModelConfig:
    """`config` with experts that stay packed; raises `UsageError` for a family or a checkpoint without any."""
    with open_checkpoint(folder) as checkpoint:
        found = any(name.endswith("_blocks") for name in checkpoint.tensors)
    if not isinstance(config, GptOssConfig) or not found:
        raise UsageError(
            f"{folder}: holds no packed experts, so dtype {PACKED} does not apply;"
            f" convert gpt-oss with msport convert --dtype {PACKED}, or choose another dtype"
        )
    return replace(config, packed_experts=True)


def warn_of_overflow(config: ModelConfig, dtype: str) -> None:
    """Logs a warning where a model is known to leave the range of `dtype`."""
    if dtype == "float16" and config.architecture in _OVERFLOW_IN_FLOAT16:
        _log.warning(
            "%s overflows float16 (its activations exceed 65504): logits may not be finite; use bfloat16 or float32",
            config.architecture,
        )


def choose_dtype(dtype: str | None, device: str | None = None, soc: str | None = None) -> str:
    """`dtype`, or for None the best of `device` (None: this one); raises `UsageError` if it cannot compute in it.

    `soc` is an Ascend chip as MindSpore names it, None the one that is there.
    """
    device = device or ms.get_context("device_target")
    has_bfloat16 = device != "CPU"
    if device == "Ascend":
        has_bfloat16 = chips.has_bfloat16(chips.soc_version() if soc is None else soc)
    if dtype is None:
        return "float32" if device == "CPU" else "bfloat16" if has_bfloat16 else "float16"
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r} is none of {', '.join((*DTYPES, PACKED))}")
    if dtype == "bfloat16" and device == "CPU":
        raise UsageError(
            "MindSpore has no bfloat16 kernels on CPU; load with dtype float32 (the checkpoint may stay bfloat16)"
        )
    if dtype == "bfloat16" and not has_bfloat16:
        raise UsageError("this Ascend chip has no bfloat16; load with dtype float16 (the checkpoint may stay bfloat16)")
    return dtype


def configure(device: str) -> None:
    # STRICT refuses what would fall out of the graph into the Python interpreter, at a cost nobody sees.
    ms.set_context(mode=ms.GRAPH_MODE, jit_syntax_level=ms.STRICT)
    if device == "CPU":
        # Launching in the caller's thread: MindSpore's own launching threads would take turns with the kernels' on few
        # cores.
        ms.runtime.launch_blocking()


def _materialise(weight: Weight, checkpoint: Checkpoint, dtype: DType) -> Array:
    """The tensor in `dtype`, in storage form: mapped where nothing changes, otherwise a new array."""
    for recipe in weight.recipes:
        names = [name for name, _ in recipe.sources]
        if not all(name in checkpoint.tensors for name in names):
            continue
        for name, shape in recipe.sources:
            if checkpoint.tensors[name].shape != shape:
                found = checkpoint.tensors[name].shape
                raise CheckpointError(f"{checkpoint.files[name]}: {name} is {found}, config.json implies {shape}")
        if weight.packed:
            return _packed(checkpoint, names[0], dtype)
        if recipe.transform == "copy":
            return _cast(checkpoint, names[0], dtype)
        if recipe.transform == "mxfp4_transposed":
            return _decode(weight, checkpoint, names, dtype)
    wanted = weight.recipes[0].sources[0][0]
    raise CheckpointError(f"{checkpoint.folder}: no tensor {wanted}; convert the model again with msport convert")


def _cast(checkpoint: Checkpoint, name: str, dtype: DType) -> Array:
    source = checkpoint.tensors[name].dtype
    if len(checkpoint.tensors[name].extents) != 1:
        return dtypes.cast(checkpoint.read(name), source, dtype)
    view = checkpoint.view(name)
    if source != dtype:
        return dtypes.cast(view, source, dtype)
    # A .ckpt file aligns nothing, and kernels read whole elements.
    return view if view.flags.aligned else view.copy()


def _packed(checkpoint: Checkpoint, name: str, dtype: DType) -> Array:
    """Blocks or scales as they are; raises `CheckpointError` where a scale has no finite meaning in `dtype`."""
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
    for expert in range(weight.shape[0]):  # one at a time bounds the scratch memory
        mxfp4.decode_transposed(blocks[expert], scales[expert], dtype, out=out[expert])
    return out


def _as_tensor(array: Array, dtype: DType) -> Tensor:
    if dtype == dtypes.BFLOAT16:
        array = array.view(np_dtype.bfloat16)
    return Tensor.from_numpy(array)
