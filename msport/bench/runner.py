"""A whole benchmark: check the request, plan, measure, report."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from msport.architectures import load_config
from msport.arguments import checked
from msport.bench.caveats import collect_notes
from msport.bench.execution import execute
from msport.bench.measure.machine import choose_cores, processor
from msport.bench.measure.transformers_engine import BASELINES, check_installed
from msport.bench.measurements import Setup
from msport.bench.plan import Plan
from msport.bench.report import BenchReport
from msport.bench.suites import choose_shape, plan_groups
from msport.checkpoint import Manifest, open_checkpoint, read_manifest
from msport.checkpoint.manifest import checkpoint_hash
from msport.device import ask_device
from msport.errors import UsageError
from msport.hub import find_reference
from msport.progress import Progress
from msport.report.document import utc_now
from msport.sizing.kept import stored_encodings


@checked
def benchmark(
    folder: str | Path,
    *,
    suite: str | None = None,
    prompt_tokens: int | Sequence[int] | None = None,
    new_tokens: int | None = None,
    batch: int | Sequence[int] | None = None,
    dtype: str | Sequence[str] | None = None,
    max_length: int | None = None,
    warmup: int | None = None,
    repeats: int | None = None,
    processes: int | None = None,
    threads: int | None = None,
    seed: int = 0,
    baseline: str | None = None,
    reference: str | Path | None = None,
    progress: Progress | None = None,
) -> BenchReport:
    """Measures the converted checkpoint in `folder` on this machine, and the limits of the machine.

    Each batch size in `batch` runs prompts of each length in `prompt_tokens` (tokens), in each of `dtype` (None: the
    device's best), followed by `new_tokens` greedy tokens. There are `warmup` runs, then `repeats` measured runs, which
    are shared by `processes` processes. `suite` is one of ``mixed``, ``grid``, ``prefill-decode`` and ``memory``. An
    argument that is None gets the suite's value; without a suite these are 128 prompt tokens, 64 new tokens, batch 1, 5
    repeats, 2 warm-up runs and 2 processes. `max_length` is the length of the caches in tokens, by default the longest
    prompt and its new tokens; in the suite ``memory`` it is the longest context. `threads` is the number of processors,
    by default all that this process may use. `baseline` ``"torch"`` also measures Transformers in float32 on the source
    of `folder`, or on `reference`.

    If something else of the grid was measured, unsupported dtypes and crashed processes are part of the report. Raises
    `UsageError`, `MissingDependencyError` and other subclasses of `MsportError`, and `ChildError` if the only measured
    process crashes.
    """
    folder = Path(folder)
    manifest, config = read_manifest(folder), load_config(folder)
    with open_checkpoint(folder) as checkpoint:  # a broken checkpoint is refused before a long run begins
        stored = stored_encodings(config, checkpoint.tensors)
    shape = choose_shape(
        suite,
        config,
        prompts=_several(prompt_tokens),
        new_tokens=new_tokens,
        batches=_several(batch),
        warmup=warmup,
        repeats=repeats,
        processes=processes,
    )
    groups = plan_groups(suite, shape, folder, config, max_length)
    if seed < 0:
        raise UsageError(f"seed must be at least 0, not {seed}")
    cores = choose_cores(threads)
    source, load = _baseline_folder(manifest, baseline, reference), os.getloadavg()[0]
    started = utc_now()
    asked = _several(dtype)
    device = ask_device(asked or (), task="asking MindSpore for its device", progress=progress)
    dtypes = tuple(each for each in asked or (device.dtype,) if each not in device.refusals)
    if not dtypes:
        raise UsageError(next(iter(device.refusals.values())))
    setup = Setup(
        folder=str(folder),
        architecture=config.architecture,
        source=manifest.source,
        revision=manifest.revision,
        checkpoint=checkpoint_hash(manifest),
        device=device.target,
        device_memory=device.memory,
        processor=processor(),
        threads=len(cores),
        load_average=load,
        started=started,
        suite=suite,
        warmup=shape.warmup,
        repeats=shape.repeats,
        processes=shape.processes,
        seed=seed,
    )
    report = execute(Plan(setup, config, device, groups, dtypes, cores, source, stored), progress)
    return replace(report, notes=(*collect_notes(report), *report.notes))


def _several(value: object) -> tuple[Any, ...] | None:
    """`value` as a tuple; a single value becomes a tuple of one, None stays None."""
    if value is None:
        return None
    return tuple(value) if isinstance(value, Collection) and not isinstance(value, str) else (value,)


def _baseline_folder(manifest: Manifest, baseline: str | None, reference: str | Path | None) -> Path | None:
    """The folder of the baseline's checkpoint, found before a long run begins; None without a baseline."""
    if baseline is None and reference is not None:
        raise UsageError("only a baseline has a reference, which would be ignored; name the baseline, or leave it out")
    if baseline is None:
        return None
    if baseline not in BASELINES:
        raise UsageError(f"baseline {baseline!r} is not one of {', '.join(BASELINES)}")
    check_installed()
    return find_reference(reference, manifest.source, manifest.revision).folder
