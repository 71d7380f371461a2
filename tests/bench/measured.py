"""A real benchmark of a real model, and Transformers on one of its workloads; done ahead, see tests/ahead.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from msport import benchmark, convert_checkpoint
from msport.bench import BenchReport
from msport.bench.measure.limits import Limits
from msport.bench.measure.processes import Bench, make_bench
from msport.bench.measure.session import Session
from msport.bench.measure.workload import Workload
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
    measure, known = Bench.measure_limits, dict[str, Limits]()

    def measure_once(bench: Bench, dtype: str) -> Limits:
        if dtype not in known:
            known[dtype] = measure(bench, dtype)
        return known[dtype]

    with TemporaryDirectory() as folder, patch.object(Bench, "measure_limits", measure_once):
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
        bench = make_bench(make_tiny(Path(folder)), [WORKLOAD], warmup=0, repeats=REPEATS, seed=SEED)
        return Transformers(bench.measure_baseline(Path(folder) / "source"), len(bench.cores))
