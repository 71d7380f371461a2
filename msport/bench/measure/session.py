"""One engine in one process: loaded once, then run on one workload after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from msport.bench.measure.loop import Engine, Run, generate_once, measure
from msport.bench.measure.statistics import Summary, summarise
from msport.bench.measure.workload import Workload, make_prompts
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
        return _summary([[run.prefill] for run in self.runs])

    @property
    def first_token(self) -> Summary:
        """Seconds from ids to the first token."""
        return _summary([[run.first_token] for run in self.runs])

    @property
    def decode(self) -> Summary | None:
        """Seconds from a token to the next; None for a workload of one new token."""
        return summarise([run.steps for run in self.runs])

    @property
    def total(self) -> Summary:
        """Seconds from ids to the last token."""
        return _summary([[run.seconds] for run in self.runs])

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens a second, all sequences together, in the median run."""
        return self.workload.batch * self.workload.prompt_tokens / self.prefill.p50

    @property
    def throughput(self) -> float:
        """New tokens a second, all sequences together, prefill included, in the median run."""
        return self.workload.batch * self.workload.new_tokens / self.total.p50

    def to_document(self) -> dict[str, Any]:
        return {"workload": asdict(self.workload), "runs": [run.to_document() for run in self.runs]}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Result:
        runs = tuple(Run.from_document(run) for run in document["runs"])
        return cls(Workload.from_document(document["workload"]), runs)


@dataclass(frozen=True, slots=True)
class Compilation:
    """Seconds that the compiler was at work on each graph, before anything ran."""

    prefill: float
    decode: float

    @property
    def total(self) -> float:
        return self.prefill + self.decode


@dataclass(frozen=True, slots=True)
class Session:
    """What was measured of one engine with one dtype and batch size, in one process or in several (`merge_sessions`).

    `start` is the first generation of all, of two tokens at most: the one that reads mapped weights. `details` tells
    what else describes the engine: its operators, its kind of attention. `loaded` is the memory before anything has
    been compiled or run, `memory` that at the end, and `peaks` the most that each process held. `compilation` is None
    for an engine without graphs.
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

    @property
    def kind(self) -> str:
        """The dtype by which a user asks for it."""
        return "mxfp4" if self.packed else self.dtype

    @property
    def batch(self) -> int:
        return self.results[0].workload.batch

    def to_document(self) -> dict[str, Any]:
        return {
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "versions": dict(self.versions),
            "details": dict(self.details),
            "start": self.start.to_document(),
            "loaded": asdict(self.loaded),
            "memory": asdict(self.memory),
            "peaks": list(self.peaks),
            "compilation": None if self.compilation is None else asdict(self.compilation),
            "results": [result.to_document() for result in self.results],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Session:
        return cls(
            **{
                **document,
                "start": Run.from_document(document["start"]),
                "loaded": Memory.from_document(document["loaded"]),
                "memory": Memory.from_document(document["memory"]),
                "peaks": tuple(document["peaks"]),
                "compilation": Compilation(**document["compilation"]) if document["compilation"] else None,
                "results": tuple(Result.from_document(result) for result in document["results"]),
            }
        )


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


def run_workloads(
    engine: Engine,
    workloads: Sequence[Workload],
    *,
    vocab_size: int,
    warmup: int,
    repeats: int,
    seed: int,
    progress: Progress,
) -> tuple[Run, tuple[Result, ...]]:
    """The first generation of all, of two tokens at most, and the runs of each workload."""
    total = 1 + len(workloads) * (warmup + repeats)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        progress(Step("run", done, total))

    progress(Step("run", 0, total))
    brief = shortened(workloads[0])
    start = generate_once(engine, make_prompts(brief, vocab_size, seed), brief)
    advance()
    results = [
        Result(each, tuple(measure(engine, make_prompts(each, vocab_size, seed), each, warmup, repeats, advance)))
        for each in workloads
    ]
    return start, tuple(results)


def shortened(workload: Workload) -> Workload:
    """`workload` with the two new tokens that call each graph once."""
    return replace(workload, new_tokens=min(workload.new_tokens, 2))


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns and the seconds it took."""
    begin = time.perf_counter()
    value = work()
    return value, time.perf_counter() - begin


def _summary(repeats: Sequence[Sequence[float]]) -> Summary:
    summary = summarise(repeats)
    if summary is None:
        raise ValueError("a result has at least one run")
    return summary
