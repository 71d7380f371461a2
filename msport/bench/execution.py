"""Carries out a plan: msport and the baseline in turn for each dtype and batch size, the machine before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msport.architectures import ModelConfig
from msport.bench.measure import processes
from msport.bench.measure.processes import WarmStart
from msport.bench.measure.session import Compilation, Session, Startup, merge_sessions
from msport.bench.measure.workload import Job
from msport.bench.measurements import Setup
from msport.bench.report import BenchReport
from msport.bench.suites import Group, Unavailable
from msport.child import ChildError
from msport.device import PACKED, Device
from msport.errors import MsportError, UsageError, parameter
from msport.progress import Progress, titled
from msport.sizing.fit import estimate, make_costs, only_portable
from msport.sizing.free import available_memory
from msport.sizing.units import format_size

# A long context is left out if its prefill would take longer, unless the user asks for it.
PATIENCE_SECONDS = 600.0

BASELINE_DTYPE = "float32"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before the first measurement.

    Each of `groups` is measured in each of `dtypes`, with the processors `cores`, as often as `setup` says. `source` is
    the folder with the checkpoint of the baseline, None without one.
    """

    setup: Setup
    config: ModelConfig
    device: Device
    groups: tuple[Group, ...]
    dtypes: tuple[str, ...]
    cores: tuple[int, ...]
    source: Path | None = None

    @property
    def warm_starts(self) -> bool:
        """Whether a start with a filled cache of graphs is measured: msport keeps graphs on the CPU alone."""
        return self.setup.suite != "memory" and self.device.target == "CPU"

    def job(self, group: Group, dtype: str) -> Job:
        """What each process of msport runs for `group` in `dtype`."""
        setup = self.setup
        sizes = (group.workloads, group.max_length, dtype, setup.warmup, setup.repeats)
        return Job(setup.folder, *sizes, seed=setup.seed, cores=self.cores)

    def computed_in(self, dtype: str) -> str:
        """The dtype that the device computes in for `dtype`, which may be `PACKED`."""
        return self.device.dtype if dtype == PACKED else dtype


@dataclass(frozen=True, slots=True)
class Part:
    """A group in one dtype, measured; `baseline_error` is why the baseline was not."""

    session: Session
    baseline: Session | None
    baseline_error: MsportError | None


def execute(plan: Plan, progress: Progress | None = None) -> BenchReport:
    """Measures every group of `plan` in every dtype, and the machine in each of them before and after.

    Where something cannot be measured, the report says why; raises `MsportError` if nothing can.
    """
    _refuse_all(plan)
    first = _group_progress(plan, plan.dtypes[0], 0, progress)
    beside = [BASELINE_DTYPE] if plan.source and plan.device.target == "CPU" else []
    dtypes = dict.fromkeys((*map(plan.computed_in, plan.dtypes), *beside))
    limits = {dtype: processes.measure_limits(dtype, plan.cores, first) for dtype in dtypes}
    parts, unavailable = _measure_groups(plan, progress)
    notes = []
    for dtype in dtypes:
        try:
            limits[dtype] += processes.measure_limits(dtype, plan.cores, first)
        except ChildError as error:  # spoils nothing that was measured
            notes.append(f"whether the machine kept its speed is not known: {error}")
    return BenchReport(
        plan.setup,
        limits,
        sessions=tuple(part.session for part in parts),
        baselines=tuple(part.baseline for part in parts if part.baseline is not None),
        unavailable=(*refused(plan.device, plan.groups), *unavailable),
        notes=tuple(notes),
        config=plan.config,
    )


def _measure_groups(plan: Plan, progress: Progress | None) -> tuple[list[Part], list[Unavailable]]:
    """What was measured, and what could not be; raises the first error if nothing was measured."""
    parts: list[Part] = []
    unavailable: list[Unavailable] = []
    errors: list[MsportError] = []
    tried: set[int] = set()  # the baseline runs once for each group, and what failed once is not tried again
    for dtype in plan.dtypes:
        before: Session | None = None
        for number, group in enumerate(plan.groups):
            warm, asks_baseline = plan.warm_starts and before is None, plan.source is not None and number not in tried
            shown = _group_progress(plan, dtype, number, progress)
            try:
                _refuse(plan, group, dtype, before)
                part = _measure_group(plan, group, dtype, warm, asks_baseline, shown)
            except (ChildError, UsageError) as error:  # a crash, or what this machine or checkpoint cannot do
                errors.append(error)
                unavailable.append(_unavailable(group, dtype, error))
                continue
            parts.append(part)
            before = part.session
            tried.add(number)
            if part.baseline_error is not None:
                unavailable.append(_unavailable(group, BASELINE_DTYPE, part.baseline_error))
    if not parts:
        raise errors[0]
    return parts, unavailable


def _measure_group(
    plan: Plan, group: Group, dtype: str, warm: bool, asks_baseline: bool, progress: Progress | None
) -> Part:
    """msport and the baseline in turn, each time in a process of its own with a share of the repeats.

    With `warm`, the last process of msport starts with a filled cache of graphs. Where the baseline fails, what was
    measured of msport counts all the same.
    """
    job = plan.job(group, dtype)
    shares = split(job.repeats, plan.setup.processes)
    shares, last = (shares[:-1], shares[-1]) if warm and len(shares) > 1 else (shares, 0)
    baseline = _Baseline(replace(job, folder=str(plan.source)) if asks_baseline else None, progress)
    ours = []
    for repeats in shares:
        ours.append(processes.measure_msport(replace(job, repeats=repeats), progress))
        baseline.measure(repeats)
    start = processes.measure_warm_start(replace(job, repeats=last), progress) if warm else None
    startup = _startup(ours, start)
    if start is not None and last:
        ours.append(start.warm)
        baseline.measure(last)
    return Part(replace(merge_sessions(ours), startup=startup), baseline.merged(), baseline.error)


class _Baseline:
    """What the baseline did in each of its turns, up to the first that failed with `error`; nothing without a `job`."""

    def __init__(self, job: Job | None, progress: Progress | None) -> None:
        self.error: MsportError | None = None
        self._job = job
        self._progress = progress
        self._sessions: list[Session] = []

    def measure(self, repeats: int) -> None:
        if self._job is None or self.error is not None:
            return
        try:
            job = replace(self._job, repeats=repeats)
            self._sessions.append(processes.measure_transformers(job, self._progress))
        except MsportError as error:
            self.error = error

    def merged(self) -> Session | None:
        return merge_sessions(self._sessions) if self._sessions and self.error is None else None


def _startup(cold: Sequence[Session], start: WarmStart | None) -> Startup:
    """How msport came up: the sessions `cold` without a cache of graphs, and those of `start`."""
    sessions = cold if start is None else [*cold, start.filling, start.warm]
    imports, loads = (tuple(getattr(each, name) for each in sessions) for name in ("import_seconds", "load_seconds"))
    startup = Startup(imports, loads, _compilation(cold[0]))
    if start is None:
        return startup
    warm = _compilation(start.warm)
    return replace(startup, warm=warm, graphs=2, cached=start.cached, cache_nbytes=start.cache_nbytes)


def _compilation(session: Session) -> Compilation:
    if session.compilation is None:
        raise ValueError(f"{session.engine} compiles no graphs")
    return session.compilation


def _group_progress(plan: Plan, dtype: str, number: int, progress: Progress | None) -> Progress | None:
    """`progress` that says which of how many groups is measured."""
    several = len(plan.groups) > 1
    return titled(f"{dtype} {number + 1}/{len(plan.groups)}", progress) if several else progress


def _refuse_all(plan: Plan) -> None:
    """Raises the first refusal where every part of the plan is refused: before the machine has been measured."""
    refusals: list[UsageError] = []
    for dtype in plan.dtypes:
        for group in plan.groups:
            try:
                _refuse(plan, group, dtype, None)
            except UsageError as error:
                refusals.append(error)
                continue
            return
    raise refusals[0]


def _refuse(plan: Plan, group: Group, dtype: str, before: Session | None) -> None:
    """Raises `UsageError` for caches that do not fit, and for an optional group that does not fit or takes too long.

    How long it takes is estimated from the group that ran `before`.
    """
    costs = make_costs(plan.config, plan.computed_in(dtype), packed=dtype == PACKED)
    on_device = plan.device.target != "CPU"
    portable = only_portable(on_device=on_device) or (
        before is not None and before.details.get("operators") == "portable"
    )
    need = estimate(costs, group.max_length, group.batch, portable=portable, on_device=on_device)
    available = plan.device.free if on_device else available_memory()  # None: the device does not tell
    if available is not None and need.caches > available:  # the others are estimates, and weights may be mapped
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


def split(repeats: int, processes: int) -> tuple[int, ...]:
    """How many of `repeats` each of `processes` makes: nearly the same number, and at least one."""
    count = min(repeats, processes)
    return tuple(repeats // count + (number < repeats % count) for number in range(count))


def refused(device: Device, groups: Sequence[Group]) -> list[Unavailable]:
    """The parts of a plan in dtypes that `device` does not compute in."""
    return [_unavailable(group, dtype, reason) for dtype, reason in device.refusals.items() for group in groups]


def _unavailable(group: Group, dtype: str, reason: object) -> Unavailable:
    """A group that could not be measured in `dtype`."""
    prompts = tuple(workload.prompt_tokens for workload in group.workloads)
    return Unavailable(dtype, group.batch, prompts, str(reason))
