"""Carries out a plan: measures the machine, then msport and the baseline in turn for each dtype and batch size,
then the machine again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from msport.bench.measure import processes
from msport.bench.measure.processes import WarmStart
from msport.bench.measure.session import Compilation, Session, Startup, merge_sessions
from msport.bench.measure.workload import Job
from msport.bench.plan import Plan, check_group, check_plan, lacking_dtypes, unavailable_group
from msport.bench.report import BenchReport
from msport.bench.suites import Group, Unavailable
from msport.child import ChildError
from msport.errors import MsportError, UsageError
from msport.progress import Progress, titled

BASELINE_DTYPE = "float32"


@dataclass(frozen=True, slots=True)
class Part:
    """The measurements of a group in one dtype; `baseline_error` says why the baseline was not measured."""

    session: Session
    baseline: Session | None
    baseline_error: MsportError | None


def execute(plan: Plan, progress: Progress | None = None) -> BenchReport:
    """Measures every group of `plan` in every dtype, and the machine in every dtype before and after.

    If something cannot be measured, the report says why. Raises `MsportError` if nothing can be measured.
    """
    check_plan(plan)
    first = _group_progress(plan, plan.dtypes[0], 0, progress)
    beside = [BASELINE_DTYPE] if plan.source and plan.device.on_host else []
    dtypes = dict.fromkeys((*map(plan.computed_in, plan.dtypes), *beside))
    limits = {dtype: processes.measure_limits(dtype, plan.cores, first) for dtype in dtypes}
    parts, unavailable = _measure_groups(plan, progress)
    notes = []
    for dtype in dtypes:
        try:
            limits[dtype] += processes.measure_limits(dtype, plan.cores, first)
        except ChildError as error:  # the measurements are still valid
            notes.append(f"whether the machine kept its speed is not known: {error}")
    return BenchReport(
        plan.setup,
        limits,
        sessions=tuple(part.session for part in parts),
        baselines=tuple(part.baseline for part in parts if part.baseline is not None),
        unavailable=(*lacking_dtypes(plan.device, plan.groups), *unavailable),
        notes=tuple(notes),
        config=plan.config,
        stored=plan.stored,
    )


def _measure_groups(plan: Plan, progress: Progress | None) -> tuple[list[Part], list[Unavailable]]:
    """The measured parts, and those that could not be measured. Raises the first error if nothing was measured."""
    parts: list[Part] = []
    unavailable: list[Unavailable] = []
    errors: list[MsportError] = []
    tried: set[int] = set()  # the baseline runs once for each group; after a failure it is not tried again
    for dtype in plan.dtypes:
        before: Session | None = None
        for number, group in enumerate(plan.groups):
            warm, asks_baseline = plan.warm_starts and before is None, plan.source is not None and number not in tried
            shown = _group_progress(plan, dtype, number, progress)
            try:
                check_group(plan, group, dtype, before)
                part = _measure_group(plan, group, dtype, warm, asks_baseline, shown)
            except (ChildError, UsageError) as error:  # a crash, or something that is not supported here
                errors.append(error)
                unavailable.append(unavailable_group(group, dtype, error))
                continue
            parts.append(part)
            before = part.session
            tried.add(number)
            if part.baseline_error is not None:
                unavailable.append(unavailable_group(group, BASELINE_DTYPE, part.baseline_error))
    if not parts:
        raise errors[0]
    return parts, unavailable


def _measure_group(
    plan: Plan, group: Group, dtype: str, warm: bool, asks_baseline: bool, progress: Progress | None
) -> Part:
    """Runs msport and the baseline in turn, each time in a new process with a share of the repeats.

    With `warm`, the last process of msport starts with a filled cache of graphs. If the baseline fails, the
    measurements of msport remain valid.
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
    """The baseline's turns, up to the first one that failed with `error`; none without a `job`."""

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
    """How msport started: the sessions `cold` without a cache of graphs, and those of `start`."""
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
    """`progress` that also says which group is being measured."""
    several = len(plan.groups) > 1
    return titled(f"{dtype} {number + 1}/{len(plan.groups)}", progress) if several else progress


def split(repeats: int, processes: int) -> tuple[int, ...]:
    """The number of `repeats` of each of `processes`: nearly equal, and at least one."""
    count = min(repeats, processes)
    return tuple(repeats // count + (number < repeats % count) for number in range(count))
