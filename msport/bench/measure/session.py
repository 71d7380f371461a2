"""One engine in one process: loaded once, then run on one workload after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from msport.bench.measure.loop import Engine, Run, generate_once, measure
from msport.bench.measure.statistics import Summary, summarise
from msport.bench.measure.workload import Job, Workload, make_prompts, shortened
from msport.progress import Progress, Step
from msport.sizing.process import Memory


@dataclass(frozen=True, slots=True)
class Result:
    """The measured runs of one workload."""

    workload: Workload
    runs: tuple[Run, ...]

    @property
    def prefill(self) -> Summary:
        """Seconds from ids to logits."""
        return summarise([[run.prefill_seconds] for run in self.runs])

    @property
    def first_token(self) -> Summary:
        """Seconds from ids to the first token."""
        return summarise([[run.first_token_seconds] for run in self.runs])

    @property
    def decode(self) -> Summary | None:
        """Seconds from a token to the next; None for a workload of one new token."""
        steps = [run.step_seconds for run in self.runs]
        return summarise(steps) if any(steps) else None

    @property
    def total(self) -> Summary:
        """Seconds from ids to the last token."""
        return summarise([[run.seconds] for run in self.runs])

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens a second, all sequences together, in the median run."""
        return self.workload.batch * self.workload.prompt_tokens / self.prefill.p50

    @property
    def throughput(self) -> float:
        """New tokens a second, all sequences together, prefill included, in the median run."""
        return self.workload.batch * self.workload.new_tokens / self.total.p50


@dataclass(frozen=True, slots=True)
class Compilation:
    """Seconds that the compiler was at work on each graph, before anything ran."""

    prefill: float
    decode: float

    @property
    def total(self) -> float:
        return self.prefill + self.decode


@dataclass(frozen=True, slots=True)
class Startup:
    """How msport's model started, in fresh processes.

    `import_seconds` and `load_seconds` hold one value for each process, the first of which may have read from disk.
    `cold` is compilation without a cache of graphs, `warm` with one that another process had filled; of `graphs`
    graphs, `cached` came from there, which takes `cache_nbytes` on disk. None: the warm start was not measured.
    """

    import_seconds: tuple[float, ...]
    load_seconds: tuple[float, ...]
    cold: Compilation
    warm: Compilation | None = None
    graphs: int = 0
    cached: int = 0
    cache_nbytes: int = 0

    @property
    def cache_was_used(self) -> bool:
        """Whether every graph of the warm start really came from the cache."""
        return 0 < self.graphs <= self.cached


@dataclass(frozen=True, slots=True)
class Session:
    """What was measured of one engine with one dtype and batch size, in one process or in several (`merge_sessions`).

    `start` is the first generation of all, of two tokens at most: the one that reads mapped weights. `details` tells
    what else describes the engine: its operators, its kind of attention. `loaded` is the memory before anything has
    been compiled or run, `memory` that at the end, and `peaks` the most that each process held. `compilation` is None
    for an engine without graphs; `startup` is how several processes came up, of msport alone.
    """

    engine: str
    versions: Mapping[str, str]
    device: str
    dtype: str
    max_length: int
    details: Mapping[str, Any]
    import_seconds: float
    load_seconds: float
    start: Run
    loaded: Memory
    memory: Memory
    peaks: tuple[int, ...]
    results: tuple[Result, ...]
    packed: bool = False
    compilation: Compilation | None = None
    startup: Startup | None = None

    @property
    def kind(self) -> str:
        """The dtype by which a user asks for it."""
        return "mxfp4" if self.packed else self.dtype

    @property
    def batch(self) -> int:
        return self.results[0].workload.batch


def merge_sessions(sessions: Sequence[Session]) -> Session:
    """The sessions of several processes on the same workloads as one: all runs, and the memory of the largest."""
    first = sessions[0]
    results = [
        Result(
            result.workload,
            tuple(
                replace(run, process=number)
                for number, session in enumerate(sessions)
                for run in session.results[index].runs
            ),
        )
        for index, result in enumerate(first.results)
    ]
    largest = max(sessions, key=lambda session: session.memory.peak_resident)
    peaks = tuple(session.memory.peak_resident for session in sessions)
    return replace(first, loaded=largest.loaded, memory=largest.memory, peaks=peaks, results=tuple(results))


def run_workloads(engine: Engine, job: Job, vocab_size: int, progress: Progress) -> tuple[Run, tuple[Result, ...]]:
    """The first generation of all, of two tokens at most, and the runs of each workload."""
    total = 1 + len(job.workloads) * (job.warmup + job.repeats)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        progress(Step("run", done, total))

    progress(Step("run", 0, total))
    brief = shortened(job.workloads[0])
    start = generate_once(engine, make_prompts(brief, vocab_size, job.seed), brief)
    advance()
    results = []
    for workload in job.workloads:
        ids = make_prompts(workload, vocab_size, job.seed)
        results.append(Result(workload, tuple(measure(engine, ids, workload, job.warmup, job.repeats, advance))))
    return start, tuple(results)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns and the seconds it took."""
    begin = time.perf_counter()
    value = work()
    return value, time.perf_counter() - begin
