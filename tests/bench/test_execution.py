"""Processes take turns, share the repeats, and one that fails costs its own cell only."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from bench.made_reports import CONFIG, LIMITS, PEER, SESSION, WORKLOAD
from msport.bench import execution
from msport.bench.execution import Execution, refused, split
from msport.bench.measure.loop import Run
from msport.bench.measure.mindspore_device import Device
from msport.bench.measure.processes import WarmStart
from msport.bench.measure.session import Result, Session, merge_sessions
from msport.bench.measure.workload import Workload
from msport.bench.suites import Group
from msport.child import ChildError
from msport.errors import UsageError

GROUP = Group((WORKLOAD,), 104)
CPU = Device("CPU", None, None, "float32", {"bfloat16": "no such kernels"})


@dataclass
class Recorder:
    """A bench that starts nothing: it notes which processes it would start."""

    repeats: int = 5
    fails: str = ""
    peer_fails: bool = False
    machine_fails_after: int = 100
    dtype: str = ""
    progress: None = None
    started: list[Any] = field(default_factory=list)

    def measure_limits(self, dtype: str) -> Any:
        self.started.append(("machine", dtype))
        if len(self.started) > self.machine_fails_after:
            raise ChildError("measuring the machine was killed")
        return LIMITS

    def measure_subject(self, repeats: int) -> Session:
        self.started.append(("msport", repeats))
        if self.fails == self.dtype:
            raise ChildError("the benchmark was killed")
        return replace(SESSION, dtype=self.dtype, results=(Result(WORKLOAD, SESSION.results[0].runs[:1] * repeats),))

    def measure_baseline(self, source: Path, repeats: int) -> Session:
        self.started.append(("Transformers", repeats))
        if self.peer_fails:
            raise ChildError("the baseline on hub was killed")
        return PEER

    def measure_warm_start(self, repeats: int) -> WarmStart:
        self.started.append(("warm", repeats))
        warm = replace(SESSION, results=(Result(WORKLOAD, SESSION.results[0].runs[:1] * max(1, repeats)),))
        return WarmStart(SESSION, warm, 2, 1000)


def _execution(recorder: Recorder, *groups: Group, **options: Any) -> Execution:
    chosen = groups or (GROUP,)
    return Execution(CONFIG, chosen, [recorder] * len(chosen), CPU, **options)  # type: ignore[list-item]


def test_repeats_are_shared_as_evenly_as_they_go() -> None:
    assert split(5, 2) == (3, 2)
    assert split(5, 1) == (5,)
    assert split(1, 2) == (1,)
    assert split(7, 3) == (3, 2, 2)


def test_msport_and_its_peer_take_turns_between_two_measurements_of_the_machine() -> None:
    recorder = Recorder()
    (part,), limits = _execution(recorder, processes=2, source=Path("hub")).measure(["float32"])
    assert recorder.started == [
        ("machine", "float32"),
        ("msport", 3),
        ("Transformers", 3),
        ("warm", 2),
        ("Transformers", 2),
        ("machine", "float32"),
    ]
    assert [run.process for run in part.session.results[0].runs] == [0, 0, 0, 1, 1]
    assert part.startup.cache_was_used
    assert len(part.startup.load_seconds) == 3
    assert limits["float32"] == LIMITS + LIMITS


def test_one_process_measures_all_repeats_and_the_warm_start_is_brief() -> None:
    recorder = Recorder()
    (part,), _ = _execution(recorder, processes=1).measure(["float32"])
    assert recorder.started[1:-1] == [("msport", 5), ("warm", 0)]
    assert len(part.session.results[0].runs) == 5


def test_only_the_first_batch_of_a_dtype_measures_the_warm_start_and_the_peer_runs_once() -> None:
    recorder = Recorder(repeats=1)
    made = _execution(recorder, GROUP, GROUP, processes=2, source=Path("hub"))
    parts, limits = made.measure(["float32", "float16"])
    assert [part.startup.warm is not None for part in parts] == [True, False, True, False]
    assert recorder.started.count(("Transformers", 1)) == 2
    assert [part.baseline for part in parts] == [merge_sessions([PEER])] * 4
    assert set(limits) == {"float32", "float16"}


def test_a_process_that_crashes_is_a_line_beside_what_was_measured() -> None:
    made = _execution(Recorder(fails="float16"), processes=1)
    parts, _ = made.measure(["float32", "float16"])
    assert [part.session.dtype for part in parts] == ["float32"]
    (lost,) = made.unavailable
    assert (lost.dtype, lost.batch, lost.prompts) == ("float16", 1, (100,))
    assert lost.reason == "the benchmark was killed"


def test_a_peer_that_crashes_is_a_line_and_what_msport_did_stays() -> None:
    recorder = Recorder(peer_fails=True)
    made = _execution(recorder, processes=2, source=Path("hub"))
    parts, _ = made.measure(["float32", "float16"])
    assert [len(part.session.results[0].runs) for part in parts] == [5, 5]
    assert [part.baseline for part in parts] == [None, None]
    assert [(lost.dtype, lost.reason) for lost in made.unavailable] == [("float32", "the baseline on hub was killed")]
    assert recorder.started.count(("Transformers", 3)) == 1  # what failed once is not tried again


def test_a_machine_that_cannot_be_measured_at_the_end_spoils_nothing() -> None:
    made = _execution(Recorder(machine_fails_after=3), processes=1)
    parts, limits = made.measure(["float32"])
    assert len(parts) == 1
    assert limits["float32"] == LIMITS
    assert made.notes == ["whether the machine kept its speed is not known: measuring the machine was killed"]


def test_a_peer_on_the_host_is_not_set_beside_the_limits_of_an_npu() -> None:
    recorder = Recorder()
    npu = Device("Ascend", 64 << 30, 60 << 30, "bfloat16", {})
    made = Execution(CONFIG, [GROUP], [recorder], npu, processes=1, source=Path("hub"))  # type: ignore[list-item]
    _, limits = made.measure(["bfloat16"])
    assert set(limits) == {"bfloat16"}


def test_a_device_that_does_not_tell_its_memory_is_not_judged_by_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "available_memory", lambda: 10**3)
    npu = Device("Ascend", None, None, "bfloat16", {})
    group = replace(GROUP, optional=True)
    made = Execution(CONFIG, [group], [Recorder()], npu, processes=1)  # type: ignore[list-item]
    parts, _ = made.measure(["bfloat16"])
    assert len(parts) == 1


def test_caches_larger_than_the_memory_are_refused_before_the_machine_swaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "available_memory", lambda: 10**6)
    recorder = Recorder()
    with pytest.raises(UsageError, match=r"caches of 104 positions x batch 1000 take .* of 1\.00 MB that are free"):
        _execution(recorder, Group((replace(WORKLOAD, batch=1000),), 104), processes=1).measure(["float32"])
    assert recorder.started == []


def test_where_everything_crashes_the_first_error_is_raised() -> None:
    with pytest.raises(ChildError, match="was killed"):
        _execution(Recorder(fails="float32"), processes=1).measure(["float32"])


def test_a_dtype_that_the_device_lacks_is_not_available() -> None:
    (part,) = refused(CPU, [Group((Workload(64, 8, 2), Workload(128, 8, 2)), 136)])
    assert (part.dtype, part.batch, part.prompts, part.reason) == ("bfloat16", 2, (64, 128), "no such kernels")


def test_a_long_context_that_does_not_fit_is_left_out_and_one_that_was_asked_for_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(execution, "available_memory", lambda: 10**6)
    made = _execution(Recorder(), GROUP, replace(GROUP, optional=True), processes=1)
    parts, _ = made.measure(["float32"])
    assert len(parts) == 1
    assert made.unavailable[0].reason.startswith("needs ")


def test_a_long_context_that_would_take_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "PATIENCE_SECONDS", 0.5)
    far = replace(WORKLOAD, prompt_tokens=1000)  # ten times the work of a prompt that took 0.1 s
    made = _execution(Recorder(), GROUP, Group((far,), 1004, optional=True), processes=1)
    made.measure(["float32"])
    assert "its prefill would take" in made.unavailable[0].reason
    assert "(--max-length) 1004" in made.unavailable[0].reason


def test_merged_sessions_keep_the_largest_memory_and_every_peak() -> None:
    small = replace(SESSION, memory=replace(SESSION.memory, peak_resident=5), peaks=(5,))
    large = replace(SESSION, memory=replace(SESSION.memory, peak_resident=7), peaks=(7,))
    merged = merge_sessions([small, large])
    assert merged.memory.peak_resident == 7
    assert merged.peaks == (5, 7)
    assert len(merged.results[0].runs) == 4
    assert isinstance(merged.results[0].runs[0], Run)
