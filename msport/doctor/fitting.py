"""Checks whether a model fits this machine, and suggests dtype, length and batch, from its config alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from msport.architectures import ModelConfig, load_config
from msport.device import PACKED, Device
from msport.doctor.check import Check, failed, passed, warned
from msport.errors import MsportError
from msport.report.formatting import in_other_dtypes
from msport.sizing.costs import Costs
from msport.sizing.fit import Need, estimate, most_that_fits, only_portable, operators_of
from msport.sizing.kept import Encodings, expected_encodings, kept_encodings
from msport.sizing.units import format_size

# A context that is enough for most uses, and the largest batch that is considered.
COMMON_LENGTH = 4096
LARGEST_BATCH = 64

_NONE_STORED: Encodings = {}

# With less headroom than this share, a run may or may not fit.
_TIGHT = 0.1


@dataclass(frozen=True, slots=True)
class AvailableMemory:
    """The memory for a model: `nbytes` bytes are free on the device or on the host (None: unknown).

    `dtypes` are the possible dtypes, the device's best first. `portable`: only portable operators are used.
    """

    nbytes: int | None
    dtypes: tuple[str, ...]
    on_device: bool = False
    portable: bool = False

    @property
    def name(self) -> str:
        """The name of the memory in findings."""
        return "device memory" if self.on_device else "memory"

    def costs(self, config: ModelConfig, dtype: str, stored: Encodings = _NONE_STORED) -> Costs:
        """The costs of `config` here, for a checkpoint whose weights are `stored` so. mxfp4 is the best dtype."""
        dtype = self.dtypes[0] if dtype == PACKED else dtype
        operators = operators_of(on_device=self.on_device, portable=self.portable)
        return Costs(config, dtype, kept_encodings(config, stored, dtype, operators))

    def need(self, costs: Costs, length: int, batch: int) -> Need:
        """The memory that the model of `costs` needs here, in bytes."""
        return estimate(costs, length, batch, portable=self.portable, on_device=self.on_device)

    def longest(self, costs: Costs, most: int, batch: int, room: int) -> int:
        """The longest context (tokens) up to `most` for which `room` bytes are enough; 0 if there is none."""
        return most_that_fits(lambda length: self.need(costs, length, batch).total, most, room)

    def widest(self, costs: Costs, length: int, most: int, room: int) -> int:
        """The largest batch (sequences) up to `most` for which `room` bytes are enough; 0 if there is none."""
        return most_that_fits(lambda batch: self.need(costs, length, batch).total, most, room)


def choose_memory(device: Device | None, available: int, *, compiled: bool) -> AvailableMemory:
    """The memory of `device`; on the CPU or without a device, the host's, of which `available` bytes are free.

    `compiled`: the C++ kernels for the CPU exist.
    """
    if device is None or device.on_host:
        return AvailableMemory(available, ("float32", "float16"), portable=only_portable() or not compiled)
    dtypes = tuple(dict.fromkeys((device.dtype, "float16")))
    return AvailableMemory(device.free, dtypes, on_device=True, portable=only_portable(on_device=True))


@dataclass(frozen=True, slots=True)
class Run:
    """A model loaded in `dtype` (mxfp4: the best one) for `batch` sequences of `max_length` positions."""

    dtype: str
    batch: int
    max_length: int


@dataclass(frozen=True, slots=True)
class Fit:
    """The memory that the requested run needs, the available memory, and the `choices` that fit and leave some room."""

    asked: Run
    need: Need
    memory: AvailableMemory
    choices: tuple[Run, ...]

    def to_document(self) -> dict[str, Any]:
        """As JSON values; docs/schemas/doctor.schema.json describes them."""
        return {
            **asdict(self.asked),
            "needed_nbytes": {**asdict(self.need), "total": self.need.total},
            "free_nbytes": self.memory.nbytes,
            "on_device": self.memory.on_device,
            "choices": [asdict(choice) for choice in self.choices],
        }


def check_fit(folder: Path, asked: Run, memory: AvailableMemory) -> tuple[list[Check], Fit | None]:
    """Checks that config.json is supported and the model fits `memory`; also returns the `Fit` (None without a
    config).
    """
    try:
        config = load_config(folder)
    except MsportError as error:
        return [failed("model", str(error), "run msport inspect on the folder for more")], None
    asked = replace(asked, max_length=min(asked.max_length, config.max_position_embeddings))
    stored = expected_encodings(folder, config, packed=asked.dtype == PACKED)
    costs = memory.costs(config, asked.dtype, stored)
    shape = f"{config.architecture}, {config.num_hidden_layers} layers, hidden size {config.hidden_size}"
    kind = f"{costs.dtype}{in_other_dtypes(costs.storage, costs.dtype)}"
    model = passed("model", f"{shape}, {format_size(costs.weight_bytes)} in {kind}")
    choices = choose(config, asked.batch, memory, stored)
    fit = Fit(asked, memory.need(costs, asked.max_length, asked.batch), memory, choices)
    if memory.nbytes is None:
        remedy = "compare it with what npu-smi info shows as free"
        return [model, warned("fits", f"{_needs(fit)}; the device does not tell how much it has", remedy)], fit
    return [model, _check(fit, costs, memory.nbytes), advise(choices, config, memory.nbytes)], fit


def choose(
    config: ModelConfig, batch: int, memory: AvailableMemory, stored: Encodings = _NONE_STORED
) -> tuple[Run, ...]:
    """The choices that fit: for each dtype the longest context of `batch` sequences, and the largest batch at a
    common length.
    """
    if memory.nbytes is None:
        return ()
    room, most = int((1 - _TIGHT) * memory.nbytes), config.max_position_embeddings
    common, choices = min(COMMON_LENGTH, most), list[Run]()
    for dtype in memory.dtypes:
        costs = memory.costs(config, dtype, stored)
        longest = memory.longest(costs, most, batch, room)
        widest = memory.widest(costs, common, LARGEST_BATCH, room)
        choices += [Run(dtype, batch, longest)] * bool(longest) + [Run(dtype, widest, common)] * bool(widest)
    return tuple(dict.fromkeys(choices))


def advise(choices: Sequence[Run], config: ModelConfig, available: int) -> Check:
    """The advice: options for each dtype."""
    if not choices:
        return failed(
            "choices", "the model does not fit in any dtype", f"use a machine with more than {format_size(available)}"
        )
    options: dict[str, list[str]] = {}
    for choice in choices:
        whole = " (all its positions)" if choice.max_length == config.max_position_embeddings else ""
        options.setdefault(choice.dtype, []).append(f"--batch {choice.batch} --max-length {choice.max_length}{whole}")
    return passed("choices", "; ".join(f"--dtype {dtype} {' or '.join(each)}" for dtype, each in options.items()))


def _needs(fit: Fit) -> str:
    need, asked = fit.need, fit.asked
    return (
        f"{format_size(need.total)} (weights {format_size(need.weights)}, caches for {asked.max_length} tokens x batch"
        f" {asked.batch} {format_size(need.caches)}, compiling and computing {format_size(need.workspace)})"
    )


def _check(fit: Fit, costs: Costs, available: int) -> Check:
    finding = f"{_needs(fit)} of {format_size(available)} free {fit.memory.name}"
    if fit.need.total > available:
        return failed("fits", finding, _how_to_fit(fit, costs, available))
    if fit.need.total > (comfortable := int((1 - _TIGHT) * available)):
        return warned("fits", f"{finding}: barely", _how_to_fit(fit, costs, comfortable))
    return passed("fits", finding)


def _how_to_fit(fit: Fit, costs: Costs, available: int) -> str:
    memory = fit.memory
    shorter = memory.longest(costs, fit.asked.max_length, fit.asked.batch, available)
    if shorter:
        return f"--max-length {shorter} fits"
    if fit.asked.batch > 1 and (shorter := memory.longest(costs, fit.asked.max_length, 1, available)):
        return f"--batch 1 with --max-length {shorter} fits"
    return f"the weights alone are too large: free {memory.name}, or use a machine with more"
