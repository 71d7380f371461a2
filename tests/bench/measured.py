"""A real benchmark of a real model, and Transformers on one of its workloads; done ahead, see tests/ahead.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from msport import benchmark, convert_checkpoint
from msport.bench import BenchReport
from msport.bench.measure import processes
from msport.bench.measure.limits import Limits
from msport.bench.measure.session import Session
from msport.bench.measure.workload import Job, Workload
from msport.progress import Progress
from msport.sample import write_sample

WORKLOAD = Workload(prompt_tokens=20, new_tokens=6)
REPEATS = 2
SEED = 3


@dataclass(frozen=True)
class Transformers:
    """What Transformers did on `WORKLOAD`, with as many threads as cores."""

    session: Session
    cores: int


def make_tiny(folder: Path) -> Path:
    """A converted gpt-oss of two layers below `folder`, beside its source."""
    write_sample("gpt-oss", folder / "source", overrides={"num_hidden_layers": 2, "vocab_size": 512})
    convert_checkpoint(folder / "source", folder / "converted", dtype="float32")
    return folder / "converted"


def report() -> BenchReport:
    """Two batches of two prompts, and a dtype that the CPU lacks. The machine is measured once, not twice."""
    measure, known = processes.measure_limits, dict[str, Limits]()

    def measure_once(dtype: str, cores: Sequence[int], progress: Progress | None) -> Limits:
        if dtype not in known:
            known[dtype] = measure(dtype, cores, progress)
        return known[dtype]

    with TemporaryDirectory() as folder, patch.object(processes, "measure_limits", measure_once):
        return benchmark(
            make_tiny(Path(folder)),
            batch=(1, 2),
            prompt_tokens=(WORKLOAD.prompt_tokens, 24),
            new_tokens=WORKLOAD.new_tokens,
            dtype=("float32", "bfloat16"),
            warmup=1,
            repeats=REPEATS,
            seed=SEED,
        )


def transformers() -> Transformers:
    with TemporaryDirectory() as folder:
        make_tiny(Path(folder))
        job = Job(f"{folder}/source", (WORKLOAD,), WORKLOAD.length, warmup=0, repeats=REPEATS, seed=SEED)
        return Transformers(processes.measure_transformers(job), len(job.cores))
