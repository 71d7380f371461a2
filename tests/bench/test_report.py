"""What a report derives from its samples is what a person derives by hand."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from bench.made_reports import BASELINE, COMPARED, LIMITS, REPORT, SESSION, STARTUP, WORKLOAD
from bench.schemas import check_schema
from msport.bench import caveats
from msport.bench.caveats import collect_notes
from msport.bench.measure.limits import Limits, Probe
from msport.bench.measure.loop import Run
from msport.bench.measure.session import Result, Session
from msport.bench.measure.typed_json import parse
from msport.bench.measure.workload import Workload
from msport.bench.report import BenchReport
from msport.bench.shares import decode_share, prefill_share, ratios

RESULT = SESSION.results[0]


def _with_result(report: BenchReport, result: Result) -> BenchReport:
    return replace(report, sessions=(replace(SESSION, results=(result,)),))


def test_rates_count_every_sequence() -> None:
    assert RESULT.prefill_rate == pytest.approx(100 / 0.1)
    assert RESULT.throughput == pytest.approx(4 / 0.26)
    batch = replace(RESULT, workload=replace(WORKLOAD, batch=3))
    assert batch.prefill_rate == pytest.approx(3 * 100 / 0.1)
    assert batch.throughput == pytest.approx(3 * 4 / 0.26)


def test_the_share_of_bandwidth_is_bytes_over_time_over_the_measured_limit() -> None:
    costs = REPORT.costs(SESSION)
    share = decode_share(RESULT, costs, LIMITS)
    assert share is not None
    assert costs.decode_bytes(100) <= share.amount <= costs.decode_bytes(102)  # positions 100, 101, 102
    assert share.achieved == pytest.approx(costs.decode_bytes(101) / 0.02, rel=1e-3)
    assert share.of_limit == pytest.approx(share.achieved / 2e10)


def test_a_batch_reads_its_weights_once_and_a_cache_for_each_sequence() -> None:
    costs = REPORT.costs(SESSION)
    batch = replace(RESULT, workload=replace(WORKLOAD, batch=2))
    share = decode_share(batch, costs, LIMITS)
    assert share is not None
    assert share.amount == pytest.approx(costs.decode_bytes(101, 2))
    assert prefill_share(batch, costs, LIMITS).amount == 2 * costs.prefill_flops(100)


def test_ratios_above_one_mean_that_msport_is_faster() -> None:
    found = ratios(RESULT, BASELINE.results[0])
    assert found["prefill"] == pytest.approx(0.3 / 0.1)
    assert found["first_token"] == pytest.approx(0.3 / 0.2)
    assert found["decode"] == pytest.approx(0.05 / 0.02)
    assert found["throughput"] == pytest.approx(0.45 / 0.26)


def test_a_baseline_belongs_to_the_session_with_its_workloads() -> None:
    other = replace(SESSION, results=(replace(RESULT, workload=replace(WORKLOAD, batch=2)),))
    report = replace(REPORT, sessions=(other, SESSION), baselines=(BASELINE,))
    assert list(report.pairs()) == [(SESSION, BASELINE)]
    assert [len(ratios) for ratios in json.loads(report.to_json())["times_as_fast_as_baseline"]] == [0, 1]


def test_a_baseline_on_the_host_has_no_share_of_an_npus_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caveats, "last_level_cache_nbytes", lambda: 1 << 40)
    npu = replace(SESSION, device="Ascend")
    report = replace(COMPARED, setup=replace(COMPARED.setup, device="Ascend"), sessions=(npu,))
    (theirs,) = report.to_document()["baselines"]
    assert theirs["results"][0]["memory_bandwidth"] is theirs["results"][0]["arithmetic"] is None
    check_schema(json.loads(report.to_json()), "bench.schema.json")
    assert not any("processor's caches" in note for note in collect_notes(report))
    assert any("processor's caches" in note for note in collect_notes(COMPARED))


def test_a_session_survives_its_document() -> None:
    assert parse(Session, json.loads(json.dumps(asdict(SESSION)))) == SESSION


def test_the_document_carries_the_ratios_beside_the_baseline() -> None:
    document = json.loads(COMPARED.to_json())
    assert document["times_as_fast_as_baseline"][0][0]["decode"] == pytest.approx(2.5)
    assert document["baselines"][0]["engine"] == "transformers"
    assert document["limits"]["float32"]["memory_bytes_per_second"] == 2e10
    assert "startup" not in document["baselines"][0]
    assert json.loads(REPORT.to_json())["times_as_fast_as_baseline"] == []


def test_the_text_shows_measured_figures_and_ratios() -> None:
    text = str(COMPARED)
    assert "decode, p50" in text
    assert "20 ms/token" in text
    assert "50 ms/token" in text
    assert "2.50" in text
    assert "compile, cold         4.00 s  (prefill 3.00, decode 1.00)" in text
    assert "3.00 GB" in text
    assert "times as fast" not in str(REPORT)


def test_a_warm_start_that_missed_the_cache_is_said() -> None:
    missed = replace(REPORT, sessions=(replace(SESSION, startup=replace(STARTUP, cached=1)),))
    assert "CACHE NOT USED" in str(missed)
    assert any("only 1 of 2 graphs came from" in note for note in collect_notes(missed))
    assert not any("came from the cache" in note for note in collect_notes(REPORT))


def test_a_machine_whose_speed_moved_is_said() -> None:
    again = Limits((Probe("reading", 1.5e10, 1e10, 9),), (Probe("multiplying", 1.9e11, 1e11, 9),))
    (note,) = (note for note in collect_notes(replace(REPORT, limits={"float32": LIMITS + again})) if "moved" in note)
    assert note.startswith("memory bandwidth: the machine's speed moved by 33%")


def test_notes_name_their_dtype_where_there_are_several() -> None:
    moved = LIMITS + Limits((Probe("reading", 1.5e10, 1e10, 9),), LIMITS.arithmetic)
    half = replace(SESSION, dtype="float16")
    report = replace(COMPARED, sessions=(SESSION, half), limits={"float32": LIMITS, "float16": moved})
    notes = collect_notes(report)
    assert any(note.startswith("memory bandwidth in float16: the machine's speed moved") for note in notes)
    for dtype in ("float32", "float16"):
        assert f"{dtype}, {WORKLOAD.title}: both produced the same tokens up to 2 of 4" in notes


def test_a_machine_that_was_busy_before_is_said() -> None:
    busy = replace(REPORT, setup=replace(REPORT.setup, load_average=1.5))
    assert any("load average 1.5 on 2 processors" in note for note in collect_notes(busy))
    assert not any("busy" in note for note in collect_notes(REPORT))


def test_tokens_that_change_between_repeats_are_said() -> None:
    other = Run(0.1, 0.2, (0.02, 0.02, 0.02), ((1, 2, 3, 5),))
    changed = replace(RESULT, runs=(RESULT.runs[0], other))
    assert any("greedy tokens differ between repeats" in note for note in collect_notes(_with_result(REPORT, changed)))
    assert not any("greedy tokens" in note for note in collect_notes(REPORT))


def test_how_far_both_sides_agree_is_said_and_so_is_a_difference_of_dtype() -> None:
    assert any("the same tokens up to 2 of 4" in note for note in collect_notes(COMPARED))
    half = replace(COMPARED, sessions=(replace(SESSION, dtype="float16"),), limits={"float16": LIMITS})
    assert any("the baseline ran in float32, msport in float16" in note for note in collect_notes(half))


def test_one_new_token_says_nothing_about_decoding() -> None:
    only = Result(Workload(100, 1), (Run(0.1, 0.2, (), ((1,),)),))
    report = _with_result(REPORT, only)
    assert only.decode is None
    assert decode_share(only, REPORT.costs(SESSION), LIMITS) is None
    assert "decode, p50" not in str(report)
    assert any("nothing to say about decoding" in note for note in collect_notes(report))
    assert json.loads(report.to_json())["sessions"][0]["results"][0]["decode_seconds"] is None
