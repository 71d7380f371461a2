"""A converted checkpoint: is it whole, and does the model fit? From headers and config, without loading."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from msport.architectures import ModelConfig, load_config
from msport.architectures.gpt_oss import GptOssConfig
from msport.checkpoint import open_checkpoint, read_manifest
from msport.convert import format_size
from msport.doctor.check import Check, failed, passed, warned
from msport.errors import MsportError
from msport.msmodels.costs import Costs

# What a process holds beside weights and caches: MindSpore itself, compiled graphs, activations of a chunk.
RUNTIME_NBYTES = 7 * 10**8
PREFILL_CHUNK = 128

# Below this share of headroom a run may fit or not.
_TIGHT = 0.1


def check_files(folder: Path) -> Check:
    """Whether the manifest can be read and every tensor that it names is there, as it says."""
    name = "checkpoint"
    if not folder.is_dir():
        return failed(name, f"{folder}: no such folder", "name the folder of a converted checkpoint")
    try:
        manifest = read_manifest(folder)
        with open_checkpoint(folder) as checkpoint:
            found = checkpoint.tensors
    except MsportError as error:
        return failed(name, str(error), f"convert the model again: msport convert MODEL -o {folder}")
    wrong = [
        tensor
        for tensor, record in manifest.tensors.items()
        if tensor not in found or (found[tensor].dtype, found[tensor].shape) != (record.dtype, record.shape)
    ]
    if wrong:
        return failed(
            name,
            f"{folder}: {wrong[0]} is not what {folder.name}/msport.json says, nor are {len(wrong) - 1} others",
            f"convert the model again: msport convert {manifest.source} -o {folder}",
        )
    nbytes = sum(tensor.nbytes for tensor in found.values())
    return passed(name, f"{len(found)} tensors, {format_size(nbytes)}, {manifest.dtype} from {manifest.source}")


def check_fit(
    folder: Path, dtype: str, max_length: int, batch: int, available: int, where: str, *, packed: bool = False
) -> list[Check]:
    """Whether config.json is supported, and weights and caches fit `available` bytes of `where` ("memory" ...).

    `packed`: experts stay packed as MXFP4 where the family has them.
    """
    try:
        config = load_config(folder)
    except MsportError as error:
        return [failed("model", str(error), "run msport inspect on the folder for more")]
    if packed and isinstance(config, GptOssConfig):
        config = replace(config, packed_experts=True)
    costs = Costs(config, dtype)
    shape = f"{config.architecture}, {config.num_hidden_layers} layers, hidden size {config.hidden_size}"
    model = passed("model", f"{shape}, {format_size(costs.weight_bytes)} as {dtype}")
    return [model, _fit(config, costs, max_length, batch, available, where)]


def needed_nbytes(costs: Costs, max_length: int, batch: int) -> int:
    """Weights, caches and the runtime."""
    chunk = min(PREFILL_CHUNK, max_length)
    return costs.weight_bytes + costs.cache_bytes(max_length, batch, chunk) + RUNTIME_NBYTES


def longest_that_fits(costs: Costs, most: int, batch: int, available: int) -> int:
    """The largest `max_length` up to `most` that fits; 0 if none does."""
    shortest, beyond = 0, most + 1
    while beyond - shortest > 1:
        middle = (shortest + beyond) // 2
        if needed_nbytes(costs, middle, batch) <= available:
            shortest = middle
        else:
            beyond = middle
    return shortest


def _fit(config: ModelConfig, costs: Costs, max_length: int, batch: int, available: int, where: str) -> Check:
    length = min(max_length, config.max_position_embeddings)
    need = needed_nbytes(costs, length, batch)
    parts = f"weights {format_size(costs.weight_bytes)}, caches for {length} tokens x batch {batch}"
    finding = f"{format_size(need)} ({parts}) of {format_size(available)} {where}"
    if need > available:
        return failed("fits", finding, _how_to_fit(costs, length, batch, available, where))
    if need > (comfortable := int((1 - _TIGHT) * available)):
        return warned("fits", f"{finding}: barely", _how_to_fit(costs, length, batch, comfortable, where))
    return passed("fits", finding)


def _how_to_fit(costs: Costs, length: int, batch: int, available: int, where: str) -> str:
    shorter = longest_that_fits(costs, length, batch, available)
    if shorter:
        return f"--max-length {shorter} fits"
    if batch > 1 and (shorter := longest_that_fits(costs, length, 1, available)):
        return f"--batch 1 with --max-length {shorter} fits"
    return f"the weights alone are too large: free {where}, or use a machine with more"
