"""Processes take turns, share the repeats, and one that fails costs its own cell only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from bench.made_reports import BASELINE, CONFIG, LIMITS, SESSION, SETUP, WORKLOAD
from msport.bench import execution, plan
from msport.bench.execution import execute, split
from msport.bench.measure.limits import Limits
from msport.bench.measure.loop import Run
from msport.bench.measure.processes import WarmStart
from msport.bench.measure.session import Result, Session, merge_sessions
from msport.bench.measure.workload import Job, Workload
from msport.bench.plan import Plan, lacking_dtypes
from msport.bench.report import BenchReport
from msport.bench.suites import Group
from msport.child import ChildError
from msport.device import Device
from msport.errors import UsageError
from msport.progress import Progress

GROUP = Group((WORKLOAD,), 104)
CPU = Device("CPU", 0, 1, None, None, "float32", {"bfloat16": "no such kernels"})


@dataclass
class Recorder:
    """In the place of the module `processes`: it notes which processes it would start, and starts none."""

    fails: str = ""
    baseline_fails: bool = False
    machine_fails_after: int = 100
    started: list[Any] = field(default_factory=list)

    def measure_limits(self, dtype: str, cores: Sequence[int], progress: Progress | None) -> Limits:
        self.started.append(("machine", dtype))
        if len(self.started) > self.machine_fails_after:
            raise ChildError("measuring the machine was killed")
        return LIMITS

    def measure_msport(self, job: Job, progress: Progress | None) -> Session:
        self.started.append(("msport", job.repeats))
        if self.fails == job.dtype:
            raise ChildError("the benchmark was killed")
        return _session(job)

    def measure_transformers(self, job: Job, progress: Progress | None) -> Session:
        self.started.append(("Transformers", job.repeats))
        assert job.folder == "hub"
        if self.baseline_fails:
            raise ChildError("the baseline on hub was killed")
        return BASELINE

    def measure_warm_start(self, job: Job, progress: Progress | None) -> WarmStart:
        self.started.append(("warm", job.repeats))
        return WarmStart(SESSION, _session(replace(job, repeats=max(1, job.repeats))), 2, 1000)


def _session(job: Job) -> Session:
    results = (Result(WORKLOAD, SESSION.results[0].runs[:1] * job.repeats),)
    return replace(SESSION, dtype=str(job.dtype), results=results, startup=None)


def _execute(
    recorder: Recorder,
    *groups: Group,
    dtypes: tuple[str, ...] = ("float32",),
    repeats: int = 5,
    processes: int = 1,
    device: Device = CPU,
    source: Path | None = None,
) -> BenchReport:
    setup = replace(SETUP, repeats=repeats, processes=processes, device=device.target)
    chosen = Plan(setup, CONFIG, device, groups or (GROUP,), dtypes, (0, 1), source)
    with patch.object(execution, "processes", recorder):
        return execute(chosen)


def test_repeats_are_shared_as_evenly_as_they_go() -> None:
    assert split(5, 2) == (3, 2)
    assert split(5, 1) == (5,)
    assert split(1, 2) == (1,)
    assert split(7, 3) == (3, 2, 2)


def test_msport_and_its_baseline_take_turns_between_two_measurements_of_the_machine() -> None:
    recorder = Recorder()
    report = _execute(recorder, processes=2, source=Path("hub"))
    assert recorder.started == [
        ("machine", "float32"),
        ("msport", 3),
        ("Transformers", 3),
        ("warm", 2),
        ("Transformers", 2),
        ("machine", "float32"),
    ]
    (session,), (startup,) = report.sessions, report.startups
    assert [run.process for run in session.results[0].runs] == [0, 0, 0, 1, 1]
    assert startup.cache_was_used
    assert len(startup.load_seconds) == 3
    assert report.limits["float32"] == LIMITS + LIMITS


def test_one_process_measures_all_repeats_and_the_warm_start_is_brief() -> None:
    recorder = Recorder()
    (session,) = _execute(recorder).sessions
    assert recorder.started[1:-1] == [("msport", 5), ("warm", 0)]
    assert len(session.results[0].runs) == 5


def test_only_the_first_batch_of_a_dtype_measures_the_warm_start_and_the_baseline_runs_once() -> None:
    recorder, dtypes = Recorder(), ("float32", "float16")
    report = _execute(recorder, GROUP, GROUP, dtypes=dtypes, repeats=1, processes=2, source=Path("hub"))
    assert [startup.warm is not None for startup in report.startups] == [True, False, True, False]
    assert recorder.started.count(("Transformers", 1)) == 2
    assert report.baselines == (merge_sessions([BASELINE]),) * 2
    assert [baseline for _, baseline in report.pairs()] == [merge_sessions([BASELINE])] * 4
    assert set(report.limits) == {"float32", "float16"}


def test_a_process_that_crashes_is_a_line_beside_what_was_measured() -> None:
    report = _execute(Recorder(fails="float16"), dtypes=("float32", "float16"))
    assert [session.dtype for session in report.sessions] == ["float32"]
    _, lost = report.unavailable
    assert (lost.dtype, lost.batch, lost.prompts) == ("float16", 1, (100,))
    assert lost.reason == "the benchmark was killed"


def test_a_baseline_that_crashes_is_a_line_and_what_msport_did_stays() -> None:
    recorder = Recorder(baseline_fails=True)
    report = _execute(recorder, dtypes=("float32", "float16"), processes=2, source=Path("hub"))
    assert [len(session.results[0].runs) for session in report.sessions] == [5, 5]
    assert report.baselines == ()
    _, lost = report.unavailable
    assert (lost.dtype, lost.reason) == ("float32", "the baseline on hub was killed")
    assert recorder.started.count(("Transformers", 3)) == 1  # what failed once is not tried again


def test_a_machine_that_cannot_be_measured_at_the_end_spoils_nothing() -> None:
    report = _execute(Recorder(machine_fails_after=3))
    assert len(report.sessions) == 1
    assert report.limits["float32"] == LIMITS
    assert report.notes == ("whether the machine kept its speed is not known: measuring the machine was killed",)


def test_a_baseline_on_the_host_is_not_set_beside_the_limits_of_an_npu() -> None:
    npu = Device("Ascend", 0, 1, 64 << 30, 60 << 30, "bfloat16", {})
    report = _execute(Recorder(), dtypes=("bfloat16",), device=npu, source=Path("hub"))
    assert set(report.limits) == {"bfloat16"}


def test_a_device_of_unknown_memory_is_not_judged_by_the_memory_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "available_memory", lambda: 10**3)
    npu = Device("Ascend", 0, 1, None, None, "bfloat16", {})
    group = replace(GROUP, optional=True)
    assert len(_execute(Recorder(), group, dtypes=("bfloat16",), device=npu).sessions) == 1


def test_caches_larger_than_the_memory_are_refused_before_the_machine_swaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "available_memory", lambda: 10**6)
    recorder = Recorder()
    with pytest.raises(UsageError, match=r"caches of 104 positions x batch 1000 take .* of 1\.00 MB that are free"):
        _execute(recorder, Group((replace(WORKLOAD, batch=1000),), 104))
    assert recorder.started == []


def test_where_everything_crashes_the_first_error_is_raised() -> None:
    with pytest.raises(ChildError, match="was killed"):
        _execute(Recorder(fails="float32"))


def test_a_dtype_that_the_device_lacks_is_not_available() -> None:
    (part,) = lacking_dtypes(CPU, [Group((Workload(64, 8, 2), Workload(128, 8, 2)), 136)])
    assert (part.dtype, part.batch, part.prompts, part.reason) == ("bfloat16", 2, (64, 128), "no such kernels")


def test_a_long_context_that_does_not_fit_is_left_out_and_one_that_was_asked_for_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan, "available_memory", lambda: 10**6)
    report = _execute(Recorder(), GROUP, replace(GROUP, optional=True))
    assert len(report.sessions) == 1
    assert report.unavailable[-1].reason.startswith("needs ")


def test_a_long_context_that_would_take_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "PATIENCE_SECONDS", 0.5)
    far = replace(WORKLOAD, prompt_tokens=1000)  # ten times the work of a prompt that took 0.1 s
    lost = _execute(Recorder(), GROUP, Group((far,), 1004, optional=True)).unavailable[-1]
    assert "its prefill would take" in lost.reason
    assert "(--max-length) 1004" in lost.reason


def test_merged_sessions_keep_the_largest_memory_and_every_peak() -> None:
    small = replace(SESSION, memory=replace(SESSION.memory, peak_resident=5), peaks=(5,))
    large = replace(SESSION, memory=replace(SESSION.memory, peak_resident=7), peaks=(7,))
    merged = merge_sessions([small, large])
    assert merged.memory.peak_resident == 7
    assert merged.peaks == (5, 7)
    assert len(merged.results[0].runs) == 4
    assert isinstance(merged.results[0].runs[0], Run)
