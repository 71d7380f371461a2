"""The notes of a report: reasons to doubt its figures, and limits of their meaning."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from msport.bench.measure.limits import Limits
from msport.bench.measure.loop import agreement
from msport.bench.measure.machine import last_level_cache_nbytes
from msport.bench.measure.session import Session, Startup
from msport.bench.measurements import Measurements, Setup
from msport.sizing.units import format_size

# If the machine's speed changes by more than this share during a benchmark, it was busy.
UNSTEADY = 0.2

_IDLE = "repeat on an idle machine"

# With a load average above this share of the processors, other programs take part of the processors.
BUSY = 0.5


def collect_notes(report: Measurements) -> tuple[str, ...]:
    """Every note that `report` needs."""
    startups = (_on_startup(startup) for startup in report.startups)
    several = len(report.limits) > 1
    machine = (on_machine(limits, f" in {dtype}" if several else "") for dtype, limits in report.limits.items())
    sessions = (_on_session(report, session) for session in report.sessions)
    kinds = {session.kind for session in report.sessions}
    baselines = (_on_baseline(*pair, named=len(kinds) > 1) for pair in report.pairs())
    notes = chain(_on_setup(report.setup), *machine, *startups, *sessions, *baselines)
    return tuple(dict.fromkeys(notes))  # a note for all sessions appears once


def is_caution(note: str) -> bool:
    """Whether `note` says that the machine was busy, so that every figure is in doubt."""
    return _IDLE in note


def _on_setup(setup: Setup) -> Iterator[str]:
    if setup.load_average > BUSY * setup.threads:
        yield (
            f"the machine was busy when the benchmark began: load average {setup.load_average:.1f} on"
            f" {setup.threads} processors; {_IDLE}"
        )


def on_machine(limits: Limits, where: str = "") -> Iterator[str]:
    """Notes if the machine's speed changed between measurements; `where` names their dtype."""
    for name, probes in (("memory bandwidth", limits.memory), ("matrix products", limits.arithmetic)):
        speeds: dict[str, list[float]] = {}
        for probe in probes:
            speeds.setdefault(probe.method, []).append(probe.best)
        drift = max((max(each) / min(each) - 1 for each in speeds.values()), default=0.0)
        if drift > UNSTEADY:
            yield (
                f"{name}{where}: the machine's speed moved by {drift:.0%} during the benchmark; something else is"
                f" running, {_IDLE}"
            )


def _on_startup(startup: Startup) -> Iterator[str]:
    if startup.warm is not None and not startup.cache_was_used:
        yield (
            f"warm start: only {startup.cached} of {startup.graphs} graphs came from the cache;"
            " its time is not that of a warm start"
        )


def _on_session(report: Measurements, session: Session) -> Iterator[str]:
    costs = report.costs(session)
    cache = last_level_cache_nbytes() if session.device == "CPU" else None
    for result in session.results:
        if len({run.tokens for run in result.runs}) > 1:
            yield f"{result.workload.title}: greedy tokens differ between repeats; check the model with msport validate"
        decode_share, _ = report.shares_of(session, result)
        if decode_share is None:
            yield f"{result.workload.title}: one new token needs no decode step; there is nothing to say about decoding"
            continue
        if cache is not None and costs.weight_bytes < cache:
            yield (
                f"the weights ({format_size(costs.weight_bytes)}) may stay in the processor's caches"
                f" ({format_size(cache)}), which are faster than memory: the bandwidth of memory is no limit here"
            )
        if result.workload.batch > 1 and hasattr(report.config, "num_experts_per_tok"):
            yield (
                "the bytes of a decode step count the experts that a batch touches when its sequences are routed"
                " evenly; they may touch fewer or more"
            )


def _on_baseline(session: Session, baseline: Session, named: bool) -> Iterator[str]:
    if session.dtype != baseline.dtype:
        yield f"the baseline ran in {baseline.dtype}, msport in {session.dtype}: the ratios compare different work"
    if session.device != baseline.device:
        yield f"the baseline ran on {baseline.device}, msport on {session.device}"
    for ours, theirs in zip(session.results, baseline.results, strict=True):
        same, of = agreement(ours.runs, theirs.runs)
        title = f"{session.kind}, {ours.workload.title}" if named else ours.workload.title
        yield f"{title}: both produced the same tokens up to {same} of {of}"
