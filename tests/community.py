"""Quantises, packs and decodes as the libraries of GPTQ, AWQ and compressed-tensors do, and writes tiny checkpoints.

Nothing here calls msport's decoders, so that tests can compare them with it. The packing follows the loops of
``auto_gptq/nn_modules/qlinear/qlinear_cuda.py`` (``pack``), ``awq/modules/linear/gemm.py`` (``from_linear``) and
``compressed_tensors/compressors/pack_quantized/helpers.py`` (``pack_to_int32``); the decoding follows the arithmetic of
their torch paths, which works in the dtype of the scales: ``forward`` of ``qlinear_cuda_old.py``, ``dequantize_gemm``
of ``awq/utils/packing_utils.py``, ``_dequantize`` of compressed-tensors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from msport.sample import write_sample

Array = NDArray[Any]

METHODS = ("gptq", "awq", "compressed-tensors")
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


@dataclass(frozen=True)
class Recipe:
    """How a checkpoint is quantised. `group` -1 is one scale per output; `zero_shift` is GPTQ's."""

    method: str
    bits: int = 4
    group: int = 64
    symmetric: bool = True
    act_order: bool = False
    zero_shift: int = 1

    def config(self) -> dict[str, Any]:
        """The ``quantization_config`` that the library writes."""
        if self.method == "gptq":
            return {
                "quant_method": "gptq",
                "bits": self.bits,
                "group_size": self.group,
                "damp_percent": 0.1,
                "desc_act": self.act_order,
                "sym": self.symmetric,
                "true_sequential": True,
                "checkpoint_format": "gptq" if self.zero_shift else "gptq_v2",
            }
        if self.method == "awq":
            return {
                "quant_method": "awq",
                "bits": self.bits,
                "group_size": self.group,
                "version": "gemm",
                "zero_point": True,
                "modules_to_not_convert": None,
            }
        weights = {
            "num_bits": self.bits,
            "type": "int",
            "symmetric": self.symmetric,
            "strategy": "channel" if self.group == -1 else "group",
            "group_size": None if self.group == -1 else self.group,
            "actorder": "group" if self.act_order else None,
            "dynamic": False,
        }
        scheme = {"weights": weights, "input_activations": None, "output_activations": None, "targets": ["Linear"]}
        return {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "quantization_status": "compressed",
            "config_groups": {"group_0": scheme},
            "ignore": ["lm_head"],
            "kv_cache_scheme": None,
        }


@dataclass(frozen=True)
class Quantized:
    """A matrix ``[outputs, inputs]``: codes 0 to ``2**bits - 1``; zero points likewise and scales, ``[outputs,
    groups]``; the group of each input.
    """

    bits: int
    codes: Array
    zeros: Array
    scales: Array
    group_of_input: Array

    def decoded(self) -> Array:
        """``(code - zero point) * scale`` as all the libraries compute it: each step in the dtype of the scales."""
        dtype = self.scales.dtype
        levels = self.codes.astype(dtype) - self.zeros[:, self.group_of_input].astype(dtype)
        decoded: Array = levels * self.scales[:, self.group_of_input]
        return decoded


def quantize(weight: Array, recipe: Recipe, generator: np.random.Generator) -> Quantized:
    """Round-to-nearest codes of float `weight` ``[outputs, inputs]``, in float16.

    With act-order the inputs are dealt to the groups in random order, as by their activations.
    """
    outputs, inputs = weight.shape
    group = inputs if recipe.group == -1 else recipe.group
    order = generator.permutation(inputs) if recipe.act_order else np.arange(inputs)
    group_of_input = np.empty(inputs, np.int32)
    group_of_input[order] = np.arange(inputs) // group
    grouped = weight[:, order].astype(np.float32).reshape(outputs, -1, group)
    most = (1 << recipe.bits) - 1
    if recipe.symmetric:
        scales = (2 * np.abs(grouped).max(-1) / most).astype(np.float16)
        zeros = np.full(scales.shape, (most + 1) // 2)
    else:
        low, high = np.minimum(grouped.min(-1), 0), np.maximum(grouped.max(-1), 0)
        scales = ((high - low) / most).astype(np.float16)
        # The format gptq cannot express a zero point of 0.
        zeros = np.clip(np.rint(-low / scales), recipe.zero_shift, most).astype(int)
    wide = scales[:, group_of_input].astype(np.float32)
    codes = np.clip(np.rint(weight / wide) + zeros[:, group_of_input], 0, most).astype(int)
    return Quantized(recipe.bits, codes, zeros, scales, group_of_input)


def along_rows(numbers: Array, bits: int) -> Array:
    """``[n, columns]`` packed along the first axis, from the lowest bits on: int32 ``[n * bits / 32, columns]``."""
    per_word = 32 // bits
    words = np.zeros((-(-len(numbers) // per_word), numbers.shape[1]), np.uint32)
    for row, values in enumerate(numbers):
        words[row // per_word] |= values.astype(np.uint32) << np.uint32(bits * (row % per_word))
    return words.view(np.int32)


def pack_gptq(layer: Quantized, zero_shift: int = 1) -> dict[str, Array]:
    """The tensors of a layer as AutoGPTQ writes them; `zero_shift` 0 for the format ``gptq_v2``."""
    return {
        "qweight": along_rows(layer.codes.T, layer.bits),
        "qzeros": along_rows(layer.zeros - zero_shift, layer.bits).T.copy(),
        "scales": layer.scales.T.copy(),
        "g_idx": layer.group_of_input.astype(np.int32),
    }


def pack_awq(layer: Quantized) -> dict[str, Array]:
    """The tensors of a layer as AutoAWQ's ``gemm`` writes them."""

    def interleaved(numbers: Array) -> Array:  # [n, outputs] to int32 [n, outputs / 8]
        words = np.zeros((len(numbers), numbers.shape[1] // 8), np.uint32)
        for place, output in enumerate(AWQ_ORDER):
            words |= numbers[:, output::8].astype(np.uint32) << np.uint32(4 * place)
        return words.view(np.int32)

    return {
        "qweight": interleaved(layer.codes.T),
        "qzeros": interleaved(layer.zeros.T),
        "scales": layer.scales.T.copy(),
    }


def pack_compressed(
    layer: Quantized, symmetric: bool, act_order: bool = False, unpacked_zeros: bool = False
) -> dict[str, Array]:
    """The tensors of a layer as compressed-tensors writes them in the format ``pack-quantized``.

    Its numbers are signed, and half the range is added before they are packed: they are then those of `layer`.
    """
    tensors = {
        "weight_packed": along_rows(layer.codes.T, layer.bits).T.copy(),
        "weight_scale": layer.scales,
        "weight_shape": np.array(layer.codes.shape, np.int64),
    }
    if not symmetric and unpacked_zeros:
        tensors["weight_zero_point"] = (layer.zeros - (1 << layer.bits - 1)).astype(np.int8)
    elif not symmetric:
        tensors["weight_zero_point"] = along_rows(layer.zeros, layer.bits)
    if act_order:
        tensors["weight_g_idx"] = layer.group_of_input.astype(np.int32)
    return tensors


def pack(layer: Quantized, recipe: Recipe) -> dict[str, Array]:
    """The tensors of a layer, by the last component of their names."""
    if recipe.method == "gptq":
        return pack_gptq(layer, recipe.zero_shift)
    if recipe.method == "awq":
        return pack_awq(layer)
    return pack_compressed(layer, recipe.symmetric, recipe.act_order)


@dataclass(frozen=True)
class Community:
    """A checkpoint in `folder`, and its quantised weights as the library decodes them, float16 ``[outputs,
    inputs]``.
    """

    folder: Path
    decoded: dict[str, Array] = field(repr=False)


def write_community(
    folder: Path, recipe: Recipe, *, family: str = "llama", layers: int = 2, seed: int = 0
) -> Community:
    """Writes a tiny checkpoint into `folder`, all of its linear layers quantised; all else is float16.

    The same arguments give the same bytes.
    """
    write_sample(family, folder, seed=seed, dtype="float16", overrides={"num_hidden_layers": layers})
    generator = np.random.default_rng(seed)
    stored: dict[str, Array] = {}
    decoded = {}
    for shard in sorted(folder.glob("*.safetensors")):
        for name, values in sorted(load_file(shard).items()):
            if not name.endswith("_proj.weight"):
                stored[name] = values
                continue
            layer = quantize(values, recipe, generator)
            decoded[name] = layer.decoded()
            for part, tensor in pack(layer, recipe).items():
                stored[name.removesuffix("weight") + part] = np.ascontiguousarray(tensor)
        shard.unlink()
    (folder / "model.safetensors.index.json").unlink()
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text("utf-8")) | {"quantization_config": recipe.config()}
    (folder / "config.json").write_text(json.dumps(config, indent=2), "utf-8")
    return Community(folder, decoded)
