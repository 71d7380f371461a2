"""msport's side of a benchmark: the converted model in graph mode. Runs in a child process."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from typing import Any

from msport import __version__
from msport.bench.measure.loop import Array, Engine
from msport.bench.measure.npu import read_device_memory
from msport.bench.measure.session import Compilation, Session, run_workloads, timed
from msport.bench.measure.typed_json import parse
from msport.bench.measure.workload import Job
from msport.progress import Progress, Step
from msport.sizing.kept import packed_names
from msport.sizing.process import Memory, read_memory


def run(job: Mapping[str, Any], *, progress: Progress) -> dict[str, Any]:
    """Runs the `Job` with the fields `job` on a converted checkpoint; returns the fields of its `Session`."""
    return asdict(_measure(parse(Job, job), progress))


def _measure(job: Job, progress: Progress) -> Session:
    batch = job.workloads[0].batch
    progress(Step("import"))
    loading, import_seconds = timed(lambda: import_module("msport.msmodels.loading"))
    progress(Step("load"))
    model, load_seconds = timed(
        lambda: _settled(loading.load_model(job.folder, job.dtype, max_length=job.max_length, batch_size=batch))
    )
    loaded = _read_memory(model.device)
    progress(Step("compile"))
    model.warm_up()
    compiled = model.graphs.compiled
    start, results = run_workloads(_engine(model), job, model.config.vocab_size, progress)
    memory = _read_memory(model.device)
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
        details={
            "operators": model.operators,
            "prefill_chunk": model.prefill_chunk,
            "cached_graphs": sum(graph.cached for graph in compiled.values()),
        },
        import_seconds=import_seconds,
        load_seconds=load_seconds,
        start=start,
        loaded=loaded,
        memory=memory,
        peaks=(memory.peak_resident,),
        results=results,
        packed=bool(packed_names(model.kept)),
        storage=model.costs.storage,
        compilation=Compilation(compiled["prefill"].seconds, compiled["decode"].seconds),
    )


class Synchronised:
    """An engine on a separate device: a call ends when `synchronise` returns, which waits until the device is idle."""

    def __init__(self, engine: Engine, synchronise: Callable[[], object]) -> None:
        self._engine = engine
        self._synchronise = synchronise

    def prefill(self, ids: Array) -> Array:
        logits = self._engine.prefill(ids)
        self._synchronise()
        return logits

    def decode(self, tokens: Array) -> Array:
        logits = self._engine.decode(tokens)
        self._synchronise()
        return logits


def _engine(model: Any) -> Engine:
    """The engine for `model`. On the CPU MindSpore computes in the caller's thread, so nothing runs after a call
    returns.
    """
    if model.device == "CPU":
        engine: Engine = model
        return engine
    import mindspore as ms

    return Synchronised(model, ms.runtime.synchronize)


def _settled(model: Any) -> Any:
    """Returns `model` after its weights have been copied to a separate device."""
    if model.device != "CPU":
        import mindspore as ms

        ms.runtime.synchronize()
    return model


def _read_memory(device: str) -> Memory:
    """The memory of this process and of its device; the CPU has no separate memory."""
    if device == "CPU":
        return read_memory()
    import mindspore as ms

    return read_memory(read_device_memory(ms.get_context("device_id")))
