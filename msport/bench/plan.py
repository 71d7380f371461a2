"""The plan of a benchmark: all decisions before the first measurement, and the parts that cannot be measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msport.architectures import ModelConfig
from msport.bench.measure.session import Session
from msport.bench.measure.workload import Job
from msport.bench.measurements import Setup
from msport.bench.suites import Group, Unavailable
from msport.device import PACKED, Device
from msport.errors import UsageError, parameter
from msport.sizing.costs import Costs
from msport.sizing.fit import estimate, only_portable, operators_of
from msport.sizing.free import available_memory
from msport.sizing.kept import Encodings, kept_encodings
from msport.sizing.units import format_size

# A long context is left out if its prefill would take longer, unless the user requested it.
PATIENCE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before the first measurement.

    Each of `groups` is measured in each of `dtypes`, with the processors `cores`, as often as `setup` says. `source` is
    the folder with the baseline's checkpoint, or None. `stored` are the encodings of the checkpoint's weights.
    """

    setup: Setup
    config: ModelConfig
    device: Device
    groups: tuple[Group, ...]
    dtypes: tuple[str, ...]
    cores: tuple[int, ...]
    source: Path | None = None
    stored: Encodings = field(default_factory=dict)

    @property
    def warm_starts(self) -> bool:
        """Whether to measure a start with a filled cache of graphs; msport keeps graphs only on the CPU."""
        return self.setup.suite != "memory" and self.device.on_host

    def job(self, group: Group, dtype: str) -> Job:
        """The job of each process of msport for `group` in `dtype`."""
        setup = self.setup
        sizes = (group.workloads, group.max_length, dtype, setup.warmup, setup.repeats)
        return Job(setup.folder, *sizes, seed=setup.seed, cores=self.cores)

    def computed_in(self, dtype: str) -> str:
        """The dtype of computation on the device for `dtype`, which may be `PACKED`."""
        return self.device.dtype if dtype == PACKED else dtype

    def costs(self, dtype: str, *, portable: bool) -> Costs:
        """The costs of the model for `dtype`."""
        operators = operators_of(on_device=not self.device.on_host, portable=portable)
        computed = self.computed_in(dtype)
        return Costs(self.config, computed, kept_encodings(self.config, self.stored, computed, operators))


def check_plan(plan: Plan) -> None:
    """Raises the first refusal if every part of the plan is refused, before the machine is measured."""
    refusals: list[UsageError] = []
    for dtype in plan.dtypes:
        for group in plan.groups:
            try:
                check_group(plan, group, dtype, None)
            except UsageError as error:
                refusals.append(error)
                continue
            return
    raise refusals[0]


def check_group(plan: Plan, group: Group, dtype: str, before: Session | None) -> None:
    """Raises `UsageError` for caches that do not fit, and for an optional group that does not fit or takes too long.

    Its time is estimated from the group that ran `before`.
    """
    on_device = not plan.device.on_host
    portable = only_portable(on_device=on_device) or (
        before is not None and before.details.get("operators") == "portable"
    )
    costs = plan.costs(dtype, portable=portable)
    need = estimate(costs, group.max_length, group.batch, portable=portable, on_device=on_device)
    available = plan.device.free if on_device else available_memory()  # None: unknown
    # The other sizes are estimates, and weights may be memory-mapped.
    if available is not None and need.caches > available:
        raise UsageError(
            f"the caches of {group.max_length} positions x batch {group.batch} take {format_size(need.caches)} of"
            f" {format_size(available)} that are free; ask for a smaller batch or shorter prompts"
        )
    if not group.optional:
        return
    if available is not None and need.total > available:
        raise UsageError(f"needs {format_size(need.total)} of {format_size(available)} that are free")
    if before is None:
        return
    done = before.results[0]
    rate = done.workload.batch * costs.prefill_flops(done.workload.prompt_tokens) / done.prefill.p50
    seconds = costs.prefill_flops(group.workloads[0].prompt_tokens) / rate
    if seconds > PATIENCE_SECONDS:
        raise UsageError(
            f"its prefill would take {seconds / 60:.0f} minutes; ask for it by"
            f" {parameter('max_length')} {group.max_length}"
        )


def lacking_dtypes(device: Device, groups: Sequence[Group]) -> list[Unavailable]:
    """The parts of a plan in dtypes that `device` does not support."""
    return [unavailable_group(group, dtype, reason) for dtype, reason in device.refusals.items() for group in groups]


def unavailable_group(group: Group, dtype: str, reason: object) -> Unavailable:
    """Describes a group that could not be measured in `dtype`."""
    prompts = tuple(workload.prompt_tokens for workload in group.workloads)
    return Unavailable(dtype, group.batch, prompts, str(reason))
