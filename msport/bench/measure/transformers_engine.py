"""The baseline of a benchmark: the same checkpoint in Transformers on PyTorch, on the CPU, in float32 unless asked.

It runs in a child process without msport, because the idle threads of one slow the other by a third. Transformers
chooses the attention implementation; the cache is its default one. Only this module of the benchmark imports torch.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from msport.bench.measure.loop import Array
from msport.bench.measure.session import Session, run_workloads, timed
from msport.bench.measure.typed_json import parse
from msport.bench.measure.workload import Job
from msport.errors import parameter
from msport.progress import Progress, Step
from msport.sizing.process import read_memory
from msport.validate.reference.loading import PACKAGES, check_reference_installed, load_transformers, quiet

BASELINES = ("torch",)


def check_installed() -> None:
    """Raises `MissingDependencyError` if torch or Transformers is missing, before a long run begins."""
    check_reference_installed(f"{parameter('baseline')} torch", otherwise=", or leave it out")


def run(job: Mapping[str, Any], dtype: str, *, progress: Progress) -> dict[str, Any]:
    """Runs the `Job` with the fields `job` on an original checkpoint in `dtype`; returns the fields of its `Session`.

    The dtype of the job is msport's, and may be one that Transformers does not have.
    """
    return asdict(_measure(parse(Job, job), dtype, progress))


def _measure(job: Job, dtype: str, progress: Progress) -> Session:
    progress(Step("import"))
    _, import_seconds = timed(_import)
    import torch

    torch.set_num_threads(len(job.cores))
    progress(Step("load"))
    model, load_seconds = timed(lambda: _load(Path(job.folder), dtype))
    loaded = read_memory()
    start, results = run_workloads(_Engine(model), job, model.config.vocab_size, progress)
    memory = read_memory()
    return Session(
        engine="transformers",
        versions={**{name: version(name) for name in (*PACKAGES, "numpy")}, "python": platform.python_version()},
        device="CPU",
        dtype=dtype,
        max_length=job.max_length,
        details={"attention": model.config._attn_implementation, "threads": torch.get_num_threads()},
        import_seconds=import_seconds,
        load_seconds=load_seconds,
        start=start,
        loaded=loaded,
        memory=memory,
        peaks=(memory.peak_resident,),
        results=results,
    )


class _Engine:
    """Transformers as an `Engine` of the timed loop: plain forward passes, without `generate`."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._cache: Any = None

    def prefill(self, ids: Array) -> Array:
        from transformers import DynamicCache

        self._cache = DynamicCache()
        return self._forward(ids)

    def decode(self, tokens: Array) -> Array:
        return self._forward(tokens.reshape(-1, 1))

    def _forward(self, ids: Array) -> Array:
        import torch

        with torch.inference_mode():
            output = self._model(
                torch.from_numpy(ids).long(), past_key_values=self._cache, use_cache=True, logits_to_keep=1
            )
        logits: Array = output.logits[:, -1].float().numpy()
        return logits


def _import() -> None:
    import torch  # noqa: F401
    import transformers  # noqa: F401


def _load(folder: Path, dtype: str) -> Any:
    with quiet():
        return load_transformers(folder, dtype, attention=None)
