"""A real benchmark of a real model: its figures hang together, and it refuses what it cannot measure."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.measured import REPEATS, SEED, WORKLOAD, Transformers
from bench.schemas import check_schema
from msport import benchmark, load_model
from msport.architectures import load_config
from msport.bench import BenchReport
from msport.bench.document import SCHEMA
from msport.bench.measure.processes import measure_msport
from msport.bench.measure.workload import Job, Workload, make_prompts
from msport.errors import CheckpointError, UsageError
from msport.sizing.costs import Costs
from msport.sizing.fit import estimate


@pytest.fixture(params=[pytest.param("report", marks=pytest.mark.ahead("bench.measured:report"))])
def report(ahead: Callable[[], BenchReport]) -> BenchReport:
    return ahead()


def test_every_time_is_positive_and_percentiles_are_in_order(report: BenchReport) -> None:
    (session, _), (startup, _) = report.sessions, report.startups
    result = session.results[0]
    decode = result.decode
    assert decode is not None
    assert 0 < decode.minimum <= decode.p50 <= decode.p95 <= decode.p99 <= decode.maximum
    assert decode.count == REPEATS * (WORKLOAD.new_tokens - 1)
    assert 0 < result.prefill.p50 <= result.first_token.p50 <= result.total.p50
    assert all(seconds > 0 for seconds in (*startup.import_seconds, *startup.load_seconds))
    assert 0 < result.throughput < 1 / decode.minimum
    assert session.memory.peak_resident > report.costs(session).weight_bytes


def test_a_process_that_ran_held_less_than_was_expected(report: BenchReport) -> None:
    for session in report.sessions:
        need = estimate(report.costs(session), session.max_length, session.batch)
        assert session.memory.peak_resident < need.total


@pytest.mark.slow
def test_a_process_that_ran_in_float16_held_less_than_was_expected(tiny_checkpoint: Path) -> None:
    session = measure_msport(Job(str(tiny_checkpoint), (Workload(200, 2),), 202, "float16", warmup=0, repeats=1))
    costs = Costs(load_config(tiny_checkpoint), "float16")
    assert session.memory.peak_resident < estimate(costs, 202, 1).total


@functools.cache
def greedy_tokens(folder: Path) -> tuple[tuple[int, ...], ...]:
    """What the model itself makes of `WORKLOAD`."""
    model = load_model(folder, max_length=WORKLOAD.length)
    ids = make_prompts(WORKLOAD, model.config.vocab_size, seed=SEED)
    tokens = [int(model.prefill(ids).argmax())]
    while len(tokens) < WORKLOAD.new_tokens:
        tokens.append(int(model.decode(np.array(tokens[-1:])).argmax()))
    return (tuple(tokens),)


def test_the_tokens_counted_are_the_tokens_that_the_model_produces(report: BenchReport, tiny_checkpoint: Path) -> None:
    runs = report.sessions[0].results[0].runs
    assert [run.tokens for run in runs] == [greedy_tokens(tiny_checkpoint)] * REPEATS
    assert [run.process for run in runs] == [0, 1]


def test_compiling_is_measured_cold_and_with_a_cache_that_was_really_used(report: BenchReport) -> None:
    startup, later = report.startups
    for compiled in (startup.cold, later.cold):
        assert compiled.prefill > 0
        assert compiled.decode > 0
    assert [session.details["cached_graphs"] for session in report.sessions] == [0, 0]
    assert later.warm is None  # measured once a dtype
    assert startup.warm is not None
    assert startup.warm.total > 0
    assert startup.cache_was_used
    assert (startup.graphs, startup.cached) == (2, 2)
    assert startup.cache_nbytes > 0


def test_shares_are_bytes_and_operations_over_time(report: BenchReport) -> None:
    document = report.to_document()["sessions"][0]["results"][0]
    run_steps = [step for run in document["runs"] for step in run["step_seconds"]]
    bandwidth = document["memory_bandwidth"]
    assert bandwidth["amount"] / max(run_steps) * 0.99 <= bandwidth["achieved"]
    assert bandwidth["achieved"] <= bandwidth["amount"] / min(run_steps) * 1.01
    assert bandwidth["of_limit"] == pytest.approx(bandwidth["achieved"] / report.limits["float32"].bandwidth.best)
    arithmetic = document["arithmetic"]
    assert arithmetic["achieved"] == pytest.approx(arithmetic["amount"] / document["prefill_seconds"]["p50"])


def test_the_json_is_one_document_with_all_samples_and_what_repeats_them(report: BenchReport) -> None:
    document: dict[str, Any] = json.loads(report.to_json())
    assert document["schema"] == SCHEMA
    setup, session = document["setup"], document["sessions"][0]
    assert (setup["seed"], setup["repeats"], setup["warmup"]) == (SEED, REPEATS, 1)
    assert len(setup["checkpoint"]) == 64
    assert set(session["versions"]) == {"msport", "mindspore", "numpy", "python"}
    assert session["startup"]["cache_was_used"] is True
    assert len(session["results"][0]["runs"]) == REPEATS
    assert document["baselines"] == []


def test_the_text_names_every_figure(report: BenchReport) -> None:
    text = str(report)
    for words in ("compile", "warm cache", "token ms", "p99", "peak", "GB/s"):
        assert words in text
    assert "baseline" not in text


def test_a_broken_checkpoint_is_the_loaders_own_line(tiny_checkpoint: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(tiny_checkpoint, tmp_path / "broken"))
    (broken / "model.safetensors.index.json").unlink()
    for shard in broken.glob("*.safetensors"):
        shard.write_bytes(b"")
    with pytest.raises(CheckpointError, match="broken"):
        benchmark(broken)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"new_tokens": 0}, "new_tokens must be at least 1"),
        ({"max_length": 8}, r"max_length \(8\) is less than prompt and new tokens \(192\)"),
        ({"repeats": 0}, "repeats must be at least 1, not 0"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"threads": 100_000}, "threads is 100000; this process may use 1 to"),
        ({"baseline": "jax"}, "baseline 'jax' is not one of torch"),
        ({"dtype": "bfloat16"}, "no bfloat16 kernels on CPU"),
    ],
)
def test_arguments_that_cannot_be_measured_are_refused(
    tiny_checkpoint: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        benchmark(tiny_checkpoint, **options)


def test_a_grid_measures_each_batch_and_prompt_and_says_which_dtype_is_not_available(report: BenchReport) -> None:
    measured = [result.workload for session in report.sessions for result in session.results]
    assert [(work.batch, work.prompt_tokens) for work in measured] == [(1, 20), (1, 24), (2, 20), (2, 24)]
    for session in report.sessions:
        for result in session.results:
            assert [len(run.tokens) for run in result.runs] == [result.workload.batch] * REPEATS
    assert {(part.dtype, part.batch) for part in report.unavailable} == {("bfloat16", 1), ("bfloat16", 2)}
    assert "no bfloat16 kernels" in report.unavailable[0].reason
    check_schema(json.loads(report.to_json()), "bench.schema.json")


@pytest.mark.slow
def test_the_memory_suite_measures_what_a_longer_context_takes(tiny_checkpoint: Path) -> None:
    report = benchmark(tiny_checkpoint, suite="memory", batch=1, prompt_tokens=16, new_tokens=2, max_length=1024)
    short, long = report.sessions
    assert (short.max_length, long.max_length) == (18, 1024)
    assert all(session.loaded.resident < session.memory.peak_resident for session in report.sessions)
    assert report.startups[0].warm is None


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"msport\.json"):
        benchmark(tmp_path)


def test_a_missing_package_of_the_baseline_is_said_first(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from msport.errors import MissingDependencyError
    from msport.validate.reference import loading

    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="needs torch and transformers: pip install"):
        benchmark(tiny_checkpoint, baseline="torch")


@pytest.mark.reference
@pytest.mark.ahead("bench.measured:transformers")
def test_transformers_runs_the_same_workload_and_produces_the_same_tokens(
    ahead: Callable[[], Transformers], tiny_checkpoint: Path
) -> None:
    pytest.importorskip("transformers")
    theirs = ahead()
    session = theirs.session
    assert session.engine == "transformers"
    assert session.dtype == "float32"
    assert session.details["threads"] == theirs.cores
    assert {"torch", "transformers"} <= set(session.versions)
    (result,) = session.results
    assert result.workload == WORKLOAD
    assert [run.tokens for run in result.runs] == [greedy_tokens(tiny_checkpoint)] * REPEATS
    assert result.decode is not None
    assert 0 < result.decode.p50 <= result.decode.p99
