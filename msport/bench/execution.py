"""A plan carried out: for each dtype and batch size msport and its peer in turn, and the machine before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msport.architectures import ModelConfig
from msport.bench.measure.limits import Limits
from msport.bench.measure.mindspore_device import PACKED, Device
from msport.bench.measure.processes import Bench, WarmStart
from msport.bench.measure.session import Compilation, Session, merge_sessions
from msport.bench.measurements import Startup
from msport.bench.suites import Group, Unavailable
from msport.child import ChildError
from msport.errors import MsportError, UsageError, parameter
from msport.sizing.fit import estimate, make_costs, only_portable
from msport.sizing.free import available_memory
from msport.sizing.units import format_size

# A long context whose prefill would take longer is left out unless somebody asks for it.
PATIENCE_SECONDS = 600.0

PEER_DTYPE = "float32"


@dataclass(frozen=True, slots=True)
class Part:
    """A group in one dtype, measured."""

    session: Session
    startup: Startup
    baseline: Session | None


class Execution:
    """The parts of a plan, one after the other, and what of it could not be measured."""

    def __init__(
        self,
        config: ModelConfig,
        groups: Sequence[Group],
        benches: Sequence[Bench],
        device: Device,
        *,
        processes: int,
        source: Path | None = None,
        warm_starts: bool = True,
    ) -> None:
        self.unavailable: list[Unavailable] = []
        self.notes: list[str] = []
        self._config = config
        self._groups = groups
        self._benches = benches
        self._device = device
        self._source = source
        self._warm_starts = warm_starts
        self._shares = split(benches[0].repeats, processes)
        self._peers: dict[int, Session | None] = {}
        self._errors: list[MsportError] = []

    def measure(self, dtypes: Sequence[str]) -> tuple[list[Part], dict[str, Limits]]:
        """Everything in each of `dtypes`, and the machine in each of them before and after."""
        self._refuse_all(dtypes)
        computed = map(self._computed_in, dtypes)
        beside = [PEER_DTYPE] if self._source and self._device.target == "CPU" else []
        needed = dict.fromkeys((*computed, *beside))
        limits = {dtype: self._bench(0, dtype).measure_limits(dtype) for dtype in needed}
        parts: list[Part] = []
        for dtype in dtypes:
            parts += self._measure_dtype(dtype)
        if not parts:
            raise self._errors[0]
        return parts, {dtype: before + self._measure_again(dtype) for dtype, before in limits.items()}

    def _measure_again(self, dtype: str) -> Limits:
        """The machine's speed at the end; nothing where it cannot be measured, which spoils nothing that was."""
        try:
            return self._bench(0, dtype).measure_limits(dtype)
        except ChildError as error:
            self.notes.append(f"whether the machine kept its speed is not known: {error}")
            return Limits((), ())

    def _measure_dtype(self, dtype: str) -> list[Part]:
        parts: list[Part] = []
        for index, group in enumerate(self._groups):
            try:
                self._refuse(group, dtype, parts[-1].session if parts else None)
                bench = self._bench(index, dtype)
                parts.append(self._measure_group(index, bench, warm=self._warm_starts and not parts))
            except (ChildError, UsageError) as error:  # a crash, or what this machine or checkpoint cannot do
                self._errors.append(error)
                self.unavailable.append(unavailable(group, dtype, str(error)))
        return parts

    def _measure_group(self, index: int, bench: Bench, *, warm: bool) -> Part:
        """msport and its peer in turn, each time in a process of its own with a share of the repeats.

        With `warm`, the last process of msport starts with a filled cache of graphs.
        """
        cold, *rest = self._shares
        ours, theirs = [bench.measure_subject(cold)], self._measure_peer(index, bench, cold)
        for repeats in rest[:-1] if warm else rest:
            ours.append(bench.measure_subject(repeats))
            theirs += self._measure_peer(index, bench, repeats)
        startup = _startup(ours)
        if warm:
            last = rest[-1] if rest else 0
            start = bench.measure_warm_start(last)
            startup = _warm_startup(_startup([*ours, start.filling, start.warm]), start)
            if last:
                ours.append(start.warm)
                theirs += self._measure_peer(index, bench, last)
        if theirs and index not in self._peers:
            self._peers[index] = merge_sessions(theirs)
        return Part(merge_sessions(ours), startup, self._peers.get(index))

    def _measure_peer(self, index: int, bench: Bench, repeats: int) -> list[Session]:
        """One session of the peer; none where there is no peer, or it was measured with another of msport's dtypes.

        Where it fails, what msport did is worth no less.
        """
        if self._source is None or index in self._peers:
            return []
        try:
            return [bench.measure_baseline(self._source, repeats)]
        except MsportError as error:
            self._peers[index] = None
            self.unavailable.append(unavailable(self._groups[index], PEER_DTYPE, str(error)))
            return []

    def _bench(self, index: int, dtype: str) -> Bench:
        """The bench of a group in `dtype`, its progress saying which of how many that is."""
        bench, report = self._benches[index], self._benches[index].progress
        if report is None or len(self._benches) == 1:
            return replace(bench, dtype=dtype)
        title = f"{dtype} {index + 1}/{len(self._benches)}"
        return replace(bench, dtype=dtype, progress=lambda step: report(replace(step, phase=f"{title} {step.phase}")))

    def _computed_in(self, dtype: str) -> str:
        return self._device.dtype if dtype == PACKED else dtype

    def _refuse_all(self, dtypes: Sequence[str]) -> None:
        """Raises the first refusal where every part of the plan is refused: before the machine has been measured."""
        refusals: list[UsageError] = []
        for dtype in dtypes:
            for group in self._groups:
                try:
                    self._refuse(group, dtype, None)
                except UsageError as error:
                    refusals.append(error)
                    continue
                return
        raise refusals[0]

    def _refuse(self, group: Group, dtype: str, before: Session | None) -> None:
        """Raises `UsageError` for caches that cannot be, and for a long context that is not worth a try.

        That is one which does not fit, or takes too long, to judge by the one `before`.
        """
        costs = make_costs(self._config, self._computed_in(dtype), packed=dtype == PACKED)
        on_device = self._device.target != "CPU"
        portable = only_portable(on_device=on_device) or (
            before is not None and before.details.get("operators") == "portable"
        )
        need = estimate(costs, group.max_length, group.batch, portable=portable, on_device=on_device)
        available = self._device.free if on_device else available_memory()  # None: the device does not tell
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
    """How many of `repeats` each of `processes` makes, as evenly as they go; none makes nothing."""
    count = min(repeats, processes)
    return tuple(repeats // count + (number < repeats % count) for number in range(count))


def _startup(sessions: Sequence[Session]) -> Startup:
    """How `sessions` of msport came up, the first of them without a cache of graphs."""
    imports, loads = (tuple(getattr(each, name) for each in sessions) for name in ("import_seconds", "load_seconds"))
    return Startup(imports, loads, _compilation(sessions[0]))


def _warm_startup(startup: Startup, start: WarmStart) -> Startup:
    warm = _compilation(start.warm)
    return replace(startup, warm=warm, graphs=2, cached=start.cached, cache_nbytes=start.cache_nbytes)


def _compilation(session: Session) -> Compilation:
    if session.compilation is None:
        raise ValueError(f"{session.engine} compiles no graphs")
    return session.compilation


def refused(device: Device, groups: Sequence[Group]) -> list[Unavailable]:
    """The parts of a plan in dtypes that `device` does not compute in."""
    return [unavailable(group, dtype, reason) for dtype, reason in device.refusals.items() for group in groups]


def unavailable(group: Group, dtype: str, reason: str) -> Unavailable:
    """A group that could not be measured in `dtype`."""
    prompts = tuple(workload.prompt_tokens for workload in group.workloads)
    return Unavailable(dtype, group.batch, prompts, reason)
