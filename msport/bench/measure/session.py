"""One engine in one process: loaded once, then run on all workloads in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from msport.bench.measure.loop import Engine, Run, generate_once, measure
from msport.bench.measure.statistics import Summary, summarise
from msport.bench.measure.workload import Job, Workload, make_prompts, shortened
from msport.progress import Counter, Progress
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
        """Seconds from one token to the next; None for a workload of one new token."""
        steps = [run.step_seconds for run in self.runs]
        return summarise(steps) if any(steps) else None

    @property
    def total(self) -> Summary:
        """Seconds from ids to the last token."""
        return summarise([[run.seconds] for run in self.runs])

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens per second of all sequences together, in the median run."""
        return self.workload.batch * self.workload.prompt_tokens / self.prefill.p50

    @property
    def throughput(self) -> float:
        """New tokens per second of all sequences together, prefill included, in the median run."""
        return self.workload.batch * self.workload.new_tokens / self.total.p50


@dataclass(frozen=True, slots=True)
class Compilation:
    """Seconds of compilation of each graph, before anything ran."""

    prefill: float
    decode: float

    @property
    def total(self) -> float:
        """Seconds of both graphs."""
        return self.prefill + self.decode


@dataclass(frozen=True, slots=True)
class Startup:
    """How msport's model started, in fresh processes.

    `import_seconds` and `load_seconds` hold one value for each process; the first process may have read from disk.
    `cold` is compilation without a cache of graphs, `warm` with a cache filled by another process. Of `graphs` graphs,
    `cached` came from the cache, which takes `cache_nbytes` on disk. None: the warm start was not measured.
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
        """Whether every graph of the warm start came from the cache."""
        return 0 < self.graphs <= self.cached


@dataclass(frozen=True, slots=True)
class Session:
    """The measurements of one engine with one dtype and batch size, in one process or several (`merge_sessions`).

    `start` is the very first generation, of at most two tokens, which reads memory-mapped weights. `details` holds
    further properties of the engine, such as its operators or kind of attention. `loaded` is the memory before anything
    is compiled or run, `memory` that at the end, and `peaks` holds the peak of each process, in bytes. `compilation` is
    None for an engine without graphs. `storage` names the encodings of the matrices, `packed` says whether any of them
    is packed. `startup` describes the starts of several processes, only for msport.
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
    storage: tuple[str, ...] = ()
    compilation: Compilation | None = None
    startup: Startup | None = None

    @property
    def kind(self) -> str:
        """The dtype in the user's terms: how weights are packed, or the dtype of computation."""
        plain = ("float32", "float16", "bfloat16")
        packed = [name for name in self.storage if name not in plain]
        return " and ".join(packed) if packed else self.dtype

    @property
    def batch(self) -> int:
        """Number of sequences in a batch."""
        return self.results[0].workload.batch


def merge_sessions(sessions: Sequence[Session]) -> Session:
    """Merges the sessions of several processes on the same workloads: all runs, and the memory of the largest
    process.
    """
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
    """Makes the very first generation, of at most two tokens, and then the runs of each workload."""
    counter = Counter("run", 1 + len(job.workloads) * (job.warmup + job.repeats), progress)
    advance = partial(counter.add, 1)
    counter.add(0)
    brief = shortened(job.workloads[0])
    start = generate_once(engine, make_prompts(brief, vocab_size, job.seed), brief)
    advance()
    results = []
    for workload in job.workloads:
        ids = make_prompts(workload, vocab_size, job.seed)
        results.append(Result(workload, tuple(measure(engine, ids, workload, job.warmup, job.repeats, advance))))
    return start, tuple(results)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result of `work` and its time in seconds."""
    begin = time.perf_counter()
    value = work()
    return value, time.perf_counter() - begin
