"""msport's side of a benchmark: the converted model in graph mode. Runs in a child process."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from msport import __version__
from msport.bench.memory import read_memory
from msport.bench.session import Session, run_workloads, timed
from msport.bench.workload import Workload
from msport.child import Progress


def run(
    folder: str,
    dtype: str | None,
    max_length: int,
    workloads: Sequence[Mapping[str, int]],
    warmup: int,
    repeats: int,
    seed: int,
    *,
    progress: Progress,
) -> dict[str, Any]:
    """The document of the `Session` of the converted checkpoint in `folder`; all `workloads` have one batch size."""
    chosen = [Workload(**workload) for workload in workloads]
    progress("import", 0, 1)
    loading, import_seconds = timed(lambda: import_module("msport.msmodels.loading"))
    progress("load", 0, 1)
    model, load_seconds = timed(
        lambda: loading.load_model(Path(folder), dtype=dtype, max_length=max_length, batch_size=chosen[0].batch)
    )
    start, results = run_workloads(
        model,
        chosen,
        vocab_size=model.config.vocab_size,
        warmup=warmup,
        repeats=repeats,
        seed=seed,
        progress=progress,
    )
    return Session(
        engine="msport",
        versions={
            "msport": __version__,
            "mindspore": version("mindspore"),
            "numpy": version("numpy"),
            "python": platform.python_version(),
        },
        device=model.device,
        dtype=model.dtype,
        max_length=model.max_length,
        details={"operators": model.operators, "prefill_chunk": model.prefill_chunk},
        import_seconds=import_seconds,
        load_seconds=load_seconds,
        start=start,
        memory=read_memory(_device_peak(model.device)),
        results=results,
    ).to_document()


def _device_peak(device: str) -> int | None:
    """The most that MindSpore's memory pool gave out; on the CPU that memory is the process's own."""
    if device == "CPU":
        return None
    import mindspore as ms

    return int(ms.runtime.max_memory_allocated())
