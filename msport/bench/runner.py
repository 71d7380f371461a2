"""A benchmark from beginning to end: check, start up cold and warm, measure the model, its peer and the machine."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from msport.architectures import ModelConfig, load_config
from msport.bench import baseline as peer
from msport.bench.machine import processor
from msport.bench.notes import collect_notes
from msport.bench.processes import REPEATS, WARMUP, Bench, WarmStart, make_bench
from msport.bench.report import BenchReport, Setup, Startup
from msport.bench.session import Session
from msport.bench.workload import Workload
from msport.checkpoint import Manifest, read_manifest
from msport.child import Progress
from msport.errors import UsageError
from msport.validate.runner import checkpoint_hash, find_reference


def benchmark(
    folder: str | Path,
    *,
    prompt_tokens: int = 128,
    new_tokens: int = 64,
    batch: int = 1,
    dtype: str | None = None,
    max_length: int | None = None,
    warmup: int = WARMUP,
    repeats: int = REPEATS,
    threads: int | None = None,
    seed: int = 0,
    baseline: str | None = None,
    reference: str | Path | None = None,
    progress: Progress | None = None,
) -> BenchReport:
    """Measures the converted checkpoint in `folder` on this machine, beside what the machine could do.

    `batch` random prompts of `prompt_tokens` are followed by `new_tokens` greedy ones, `repeats` times after `warmup`
    times. `max_length` is what the caches hold, by default just that; `threads` is the number of processors used, by
    default all that this process may use. `baseline` ``"torch"`` also measures Transformers in float32 on the
    checkpoint that `folder` came from, or on `reference`.

    Raises `UsageError`, `MissingDependencyError` and other subclasses of `MsportError`; `ChildError` if a measured
    process crashes.
    """
    folder, workload = Path(folder), Workload(prompt_tokens, new_tokens, batch)
    manifest, config = read_manifest(folder), load_config(folder)
    bench = make_bench(
        folder,
        (workload,),
        dtype=dtype,
        max_length=max_length,
        warmup=warmup,
        repeats=repeats,
        threads=threads,
        seed=seed,
        progress=progress,
    )
    source, load = _baseline_folder(manifest, baseline, reference), os.getloadavg()[0]
    start = bench.measure_warm_start()
    limits = bench.measure_limits(start.warm.dtype)
    session = bench.measure_subject()
    baselines = () if source is None else (bench.measure_baseline(source),)
    limits += bench.measure_limits(start.warm.dtype)
    startups = (_startup(start, session),)
    report = BenchReport(_setup(bench, manifest, config, load), config, limits, startups, (session,), baselines)
    return replace(report, notes=collect_notes(report))


def _startup(start: WarmStart, session: Session) -> Startup:
    sessions = (start.filling, start.warm, session)
    return Startup(
        tuple(each.import_seconds for each in sessions),
        tuple(each.load_seconds for each in sessions),
        cold=session.compilation,
        warm=start.warm.compilation,
        graphs=1 if start.warm.compilation.decode is None else 2,
        cached=start.cached,
        cache_nbytes=start.cache_nbytes,
    )


def _baseline_folder(manifest: Manifest, baseline: str | None, reference: str | Path | None) -> Path | None:
    """Where the peer's checkpoint lies, found before anything long has started; None if no baseline was asked for."""
    if baseline is None:
        return None
    if baseline not in peer.BASELINES:
        raise UsageError(f"baseline {baseline!r} is none of {', '.join(peer.BASELINES)}")
    peer.check_installed()
    return find_reference(manifest, reference).folder


def _setup(bench: Bench, manifest: Manifest, config: ModelConfig, load_average: float) -> Setup:
    return Setup(
        folder=str(bench.folder),
        architecture=config.architecture,
        source=manifest.source,
        revision=manifest.revision,
        checkpoint=checkpoint_hash(manifest),
        processor=processor(),
        threads=len(bench.cores),
        load_average=load_average,
        warmup=bench.warmup,
        repeats=bench.repeats,
        seed=bench.seed,
    )
