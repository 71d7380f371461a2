"""The processes of a benchmark, one for each thing measured; they run one after the other, never two at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from msport.architectures import load_config
from msport.bench.measure.limits import Limits
from msport.bench.measure.machine import choose_cores
from msport.bench.measure.mindspore_device import Device
from msport.bench.measure.session import Session, shortened
from msport.bench.measure.workload import Workload, check_workload
from msport.child import call_in_child
from msport.errors import UsageError
from msport.progress import Progress, Step

WARMUP = 2
REPEATS = 5

# Neither msport's cache of graphs nor MindSpore's own, whatever the user has set.
_NO_CACHE = {"MSPORT_GRAPH_CACHE": "off", "MS_COMPILER_CACHE_ENABLE": "0"}


@dataclass(frozen=True, slots=True)
class WarmStart:
    """Two starts that share a cache of graphs: one that filled it, and one that found `cached` graphs in it.

    `cache_nbytes` is what it takes on disk.
    """

    filling: Session
    warm: Session
    cached: int
    cache_nbytes: int


@dataclass(frozen=True, slots=True)
class Bench:
    """A converted checkpoint, and how it is measured; each method starts the processes that it needs.

    `cores` are the processors that every process gets.
    """

    folder: Path
    workloads: tuple[Workload, ...]
    dtype: str | None
    max_length: int
    warmup: int
    repeats: int
    seed: int
    cores: tuple[int, ...]
    progress: Progress | None = None

    def measure_limits(self, dtype: str) -> Limits:
        """The machine's own speed."""
        arguments = {"dtype": dtype, "threads": len(self.cores)}
        return Limits.from_document(self._call("limits:measure", arguments, "measuring the machine", _NO_CACHE))

    def measure_subject(self, repeats: int | None = None) -> Session:
        """msport on every workload, `repeats` times (None: all of them), without a cache of graphs."""
        task = f"the benchmark of {self.folder}"
        return Session.from_document(self._call("msport_engine:run", self._subject_arguments(repeats), task, _NO_CACHE))

    def measure_baseline(self, source: Path, repeats: int | None = None) -> Session:
        """Transformers with the original checkpoint in the folder `source`, on every workload."""
        arguments = {
            "folder": str(source),
            "threads": len(self.cores),
            "max_length": self.max_length,
            **self._run_arguments(repeats),
        }
        task = f"the baseline on {source}"
        return Session.from_document(self._call("transformers_engine:run", arguments, task, {}, "Transformers"))

    def measure_warm_start(self, repeats: int = 0) -> WarmStart:
        """msport with an empty cache of graphs, on two tokens, and with the cache that this filled.

        The second is measured on every workload, `repeats` times; for 0 on two tokens, too.
        """
        brief = {
            **self._subject_arguments(1),
            "workloads": [asdict(shortened(self.workloads[0]))],
            "warmup": 0,
        }
        task = f"compiling {self.folder}"
        with TemporaryDirectory(prefix="msport-bench-") as folder:
            environment = {"MSPORT_GRAPH_CACHE": folder, "MS_COMPILER_CACHE_ENABLE": ""}
            filling = Session.from_document(self._call("msport_engine:run", brief, task, environment, "fill cache"))
            measured = self._subject_arguments(repeats) if repeats else brief
            warm = Session.from_document(self._call("msport_engine:run", measured, task, environment, "warm cache"))
            nbytes = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        return WarmStart(filling, warm, warm.details["cached_graphs"], nbytes)

    def _subject_arguments(self, repeats: int | None) -> dict[str, object]:
        return {
            "folder": str(self.folder),
            "dtype": self.dtype,
            "max_length": self.max_length,
            **self._run_arguments(repeats),
        }

    def _run_arguments(self, repeats: int | None) -> dict[str, object]:
        workloads = [asdict(workload) for workload in self.workloads]
        return {
            "workloads": workloads,
            "warmup": self.warmup,
            "repeats": self.repeats if repeats is None else repeats,
            "seed": self.seed,
        }

    def _call(
        self,
        function: str,
        arguments: Mapping[str, object],
        task: str,
        environment: Mapping[str, str],
        title: str = "msport",
    ) -> dict[str, object]:
        def report(step: Step) -> None:
            if self.progress is not None:
                self.progress(replace(step, phase=f"{title}: {step.phase}"))

        threads = {"MSPORT_THREADS": str(len(self.cores)), "OMP_NUM_THREADS": str(len(self.cores))}
        answer: dict[str, object] = call_in_child(
            f"msport.bench.measure.{function}",
            arguments,
            task=task,
            environment={**threads, **environment},
            cores=self.cores,
            progress=report,
        )
        return answer


def ask_device(dtypes: Sequence[str], progress: Progress | None = None) -> Device:
    """The device that MindSpore computes on, and which of `dtypes` it refuses; asked in a process of its own."""
    arguments = {"dtypes": list(dtypes)}
    function, task = "msport.bench.measure.mindspore_device:describe", "asking MindSpore for its device"
    return Device.from_document(call_in_child(function, arguments, task=task, progress=progress))


def make_bench(
    folder: str | Path,
    workloads: Sequence[Workload],
    *,
    dtype: str | None = None,
    max_length: int | None = None,
    warmup: int = WARMUP,
    repeats: int = REPEATS,
    threads: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Bench:
    """A `Bench` with everything checked; the arguments are those of `benchmark`. All workloads have one batch size."""
    config = load_config(Path(folder))
    for workload in workloads:
        check_workload(workload, config)
    longest = max(workload.length for workload in workloads)
    if max_length is not None and max_length < longest:
        raise UsageError(f"max_length ({max_length}) is less than prompt and new tokens ({longest}); raise it")
    if warmup < 0 or repeats < 1 or seed < 0:
        raise UsageError(f"warmup ({warmup}) and seed ({seed}) must be at least 0, repeats ({repeats}) at least 1")
    return Bench(
        Path(folder),
        tuple(workloads),
        dtype,
        max_length or longest,
        warmup,
        repeats,
        seed,
        choose_cores(threads),
        progress,
    )
