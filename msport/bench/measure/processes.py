"""The processes of a benchmark, one for each measurement; they run one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from msport.bench.measure.limits import Limits
from msport.bench.measure.session import Session
from msport.bench.measure.typed_json import parse
from msport.bench.measure.workload import Job, shortened
from msport.child import call_in_child
from msport.progress import Progress, titled

# Switches off msport's cache of graphs and MindSpore's own, overriding the user's settings.
_NO_CACHE = {"MSPORT_GRAPH_CACHE": "off", "MS_COMPILER_CACHE_ENABLE": "0"}


@dataclass(frozen=True, slots=True)
class WarmStart:
    """Two starts that share a cache of graphs: one that filled it, and one that used `cached` graphs from it.

    `cache_nbytes` is its size on disk.
    """

    filling: Session
    warm: Session
    cached: int
    cache_nbytes: int


def measure_limits(dtype: str, cores: Sequence[int], progress: Progress | None = None) -> Limits:
    """Measures the machine's own speed in `dtype` with the processors `cores`."""
    arguments = {"dtype": dtype, "threads": len(cores)}
    environment = {**_threads(cores), **_NO_CACHE}
    answer = call_in_child(
        "msport.bench.measure.limits:measure",
        arguments,
        task="measuring the machine",
        environment=environment,
        cores=cores,
        progress=titled("msport:", progress),
    )
    return parse(Limits, answer)


def measure_msport(job: Job, progress: Progress | None = None) -> Session:
    """Measures msport on every workload of `job`, without a cache of graphs."""
    return _measure(job, "msport_engine", f"the benchmark of {job.folder}", _NO_CACHE, titled("msport:", progress))


def measure_transformers(job: Job, progress: Progress | None = None, dtype: str = "float32") -> Session:
    """Measures Transformers on every workload of `job`, whose folder holds the original checkpoint, in `dtype` on
    the CPU.
    """
    task = f"the baseline on {job.folder}"
    return _measure(job, "transformers_engine", task, {}, titled("Transformers:", progress), dtype=dtype)


def measure_warm_start(job: Job, progress: Progress | None = None) -> WarmStart:
    """Starts msport with an empty cache of graphs and generates two tokens; then starts it again with the filled cache.

    The second process runs `job`, or also generates two tokens if `job` has no repeats.
    """
    brief = replace(job, workloads=(shortened(job.workloads[0]),), warmup=0, repeats=1)
    task = f"compiling {job.folder}"
    with TemporaryDirectory(prefix="msport-bench-") as folder:
        environment = {"MSPORT_GRAPH_CACHE": folder, "MS_COMPILER_CACHE_ENABLE": ""}
        filling = _measure(brief, "msport_engine", task, environment, titled("fill cache:", progress))
        chosen = job if job.repeats else brief
        warm = _measure(chosen, "msport_engine", task, environment, titled("warm cache:", progress))
        nbytes = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    return WarmStart(filling, warm, warm.details["cached_graphs"], nbytes)


def _measure(
    job: Job, engine: str, task: str, environment: Mapping[str, str], progress: Progress | None, **arguments: str
) -> Session:
    answer = call_in_child(
        f"msport.bench.measure.{engine}:run",
        {"job": asdict(job), **arguments},
        task=task,
        environment={**_threads(job.cores), **environment},
        cores=job.cores,
        progress=progress,
    )
    return parse(Session, answer)


def _threads(cores: Sequence[int]) -> dict[str, str]:
    return {"MSPORT_THREADS": str(len(cores)), "OMP_NUM_THREADS": str(len(cores))}
