"""A converted checkpoint: is it whole, and does the model fit? From headers and config, without loading."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msport.architectures import ModelConfig, load_config
from msport.bench.fit import Need, make_costs, most_that_fits
from msport.checkpoint import open_checkpoint, read_manifest
from msport.convert import format_size
from msport.doctor.check import Check, failed, passed, warned
from msport.errors import MsportError
from msport.msmodels.costs import Costs

# A context that most uses are content with, and the most sequences that are looked at together.
COMMON_LENGTH = 4096
LARGEST_BATCH = 64

# Below this share of headroom a run may fit or not.
_TIGHT = 0.1


@dataclass(frozen=True, slots=True)
class Memory:
    """Where a model would stand: `nbytes` of the device's own memory or of the host's, and the dtypes to choose from.

    `portable`: attention is the portable one, which holds its scores.
    """

    nbytes: int
    dtypes: tuple[str, ...]
    on_device: bool = False
    portable: bool = False

    @property
    def name(self) -> str:
        return "device memory" if self.on_device else "free memory"

    def holds_scores(self, config: ModelConfig) -> bool:
        """Whether attention holds its scores: the fused one of a device knows no soft-cap."""
        return self.portable or (self.on_device and getattr(config, "attn_logit_softcapping", None) is not None)

    def need(self, costs: Costs, length: int, batch: int) -> Need:
        """What the model of `costs` needs here."""
        return Need.of(costs, length, batch, scores=self.holds_scores(costs.config), on_device=self.on_device)

    def longest(self, costs: Costs, most: int, batch: int, room: int) -> int:
        """The longest context up to `most` for which `room` bytes are enough; 0 if none is."""
        return most_that_fits(lambda length: self.need(costs, length, batch).total, most, room)


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
    folder: Path, dtype: str, max_length: int, batch: int, memory: Memory, *, packed: bool = False
) -> list[Check]:
    """Whether config.json is supported, the model fits `memory`, and what of it would fit.

    `packed`: experts stay packed as MXFP4 where the family has them.
    """
    try:
        config = load_config(folder)
    except MsportError as error:
        return [failed("model", str(error), "run msport inspect on the folder for more")]
    costs = make_costs(config, dtype, packed=packed)
    shape = f"{config.architecture}, {config.num_hidden_layers} layers, hidden size {config.hidden_size}"
    kind = f"MXFP4 and {dtype}" if packed else dtype
    model = passed("model", f"{shape}, {format_size(costs.weight_bytes)} as {kind}")
    length = min(max_length, config.max_position_embeddings)
    return [model, _fit(costs, length, batch, memory), advise(config, dtype, batch, memory, packed=packed)]


def advise(config: ModelConfig, dtype: str, batch: int, memory: Memory, *, packed: bool = False) -> Check:
    """What to take: for each dtype of the device, the longest context, and the largest batch at a common length."""
    name, room = "choices", int((1 - _TIGHT) * memory.nbytes)
    choices = [_choice(config, each, batch, room, memory) for each in memory.dtypes]
    if packed:
        choices.insert(0, _choice(config, dtype, batch, room, memory, packed=True))
    fitting = [choice for choice in choices if choice]
    if not fitting:
        return failed(
            name, "in no dtype does the model fit", f"use a machine with more than {format_size(memory.nbytes)}"
        )
    return passed(name, "; ".join(fitting))


def _choice(
    config: ModelConfig, dtype: str, batch: int, room: int, memory: Memory, *, packed: bool = False
) -> str | None:
    """The longest context of `batch` sequences, and the largest batch of contexts of a common length, in `dtype`."""
    costs, kind = make_costs(config, dtype, packed=packed), "mxfp4" if packed else dtype
    most = config.max_position_embeddings
    longest = memory.longest(costs, most, batch, room)
    common = min(COMMON_LENGTH, most)
    widest = most_that_fits(lambda number: memory.need(costs, common, number).total, LARGEST_BATCH, room)
    if not longest and not widest:
        return None
    limit = "all its positions" if longest == most else "--max-length"
    return f"{kind}: --batch {batch} up to {limit} {longest}, or --batch {widest} of --max-length {common}"


def _fit(costs: Costs, length: int, batch: int, memory: Memory) -> Check:
    need = memory.need(costs, length, batch)
    parts = (
        f"weights {format_size(need.weights)}, caches for {length} tokens x batch {batch} {format_size(need.caches)},"
        f" compiling and computing {format_size(need.workspace)}"
    )
    finding = f"{format_size(need.total)} ({parts}) of {format_size(memory.nbytes)} {memory.name}"
    if need.total > memory.nbytes:
        return failed("fits", finding, _how_to_fit(costs, length, batch, memory.nbytes, memory))
    if need.total > (comfortable := int((1 - _TIGHT) * memory.nbytes)):
        return warned("fits", f"{finding}: barely", _how_to_fit(costs, length, batch, comfortable, memory))
    return passed("fits", finding)


def _how_to_fit(costs: Costs, length: int, batch: int, available: int, memory: Memory) -> str:
    shorter = memory.longest(costs, length, batch, available)
    if shorter:
        return f"--max-length {shorter} fits"
    if batch > 1 and (shorter := memory.longest(costs, length, 1, available)):
        return f"--batch 1 with --max-length {shorter} fits"
    return f"the weights alone are too large: free {memory.name}, or use a machine with more"
