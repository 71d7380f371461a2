"""Two runs of one thing agree within the spread that they state, and a real change does not."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.made_reports import GRID, LIMITS, REPORT, SESSION, STARTUP
from bench.schemas import check_schema
from msport.bench.compare import Change, Comparison, compare, compare_files, relative_change
from msport.bench.compare_views import render_comparison, render_comparison_page
from msport.bench.measure.limits import Limits
from msport.bench.measure.loop import Run
from msport.bench.measure.session import Compilation, Result
from msport.bench.report import BenchReport
from msport.errors import UsageError


def _run_of(times: np.ndarray[Any, Any], process: int) -> Run:
    prefill, *steps = times.tolist()
    return Run(prefill, prefill, tuple(steps), ((1,) * (len(steps) + 1),), process)


def _simulated(generator: np.random.Generator, factor: float = 1.0) -> BenchReport:
    """Five repeats in two processes: each process, repeat and step with its own deviation, as clocks have them."""
    runs = []
    for process, repeats in enumerate((3, 2)):
        of_process = generator.normal(1.0, 0.01)
        for _ in range(repeats):
            level = factor * of_process * generator.normal(1.0, 0.01)
            runs.append(_run_of(0.02 * level * (1 + generator.exponential(0.02, 8)), process))
    workload = replace(SESSION.results[0].workload, new_tokens=8)
    return replace(REPORT, sessions=(replace(SESSION, results=(Result(workload, tuple(runs)),)),))


def _compare(*reports: BenchReport) -> Comparison:
    return compare([f"{number}.json" for number in range(len(reports))], reports)


def _verdicts(comparison: Comparison) -> dict[str, str]:
    return {each.figure: each.verdict for each in comparison.others[0].changes}


def test_a_run_beside_itself_is_noise() -> None:
    comparison = _compare(GRID, GRID)
    assert {abs(each.change) for each in comparison.others[0].changes} == {0.0}
    assert {each.verdict for each in comparison.others[0].changes} == {"noise", "unknown"}
    assert comparison.others[0].notes == ()


def test_two_runs_of_the_same_thing_hardly_ever_disagree() -> None:
    generator, verdicts = np.random.default_rng(0), Counter[str]()
    for _ in range(200):
        changes = _compare(_simulated(generator), _simulated(generator)).others[0].changes
        verdicts.update(each.verdict for each in changes if each.figure in ("prefill_rate", "decode_p50", "throughput"))
    assert verdicts["noise"] >= 0.97 * verdicts.total()


def test_a_change_of_a_fifth_is_seen_on_the_right_side() -> None:
    generator = np.random.default_rng(1)
    slower = [_verdicts(_compare(_simulated(generator), _simulated(generator, 1.25))) for _ in range(20)]
    faster = [_verdicts(_compare(_simulated(generator), _simulated(generator, 0.8))) for _ in range(20)]
    for name in ("prefill_rate", "decode_p50", "throughput"):
        assert [each[name] for each in slower].count("worse") >= 19
        assert [each[name] for each in faster].count("better") >= 19


def test_a_change_is_for_the_better_where_rates_rise_and_times_fall() -> None:
    fast = replace(SESSION, results=(replace(SESSION.results[0], runs=tuple(map(_halved, SESSION.results[0].runs))),))
    verdicts = _verdicts(_compare(REPORT, replace(REPORT, sessions=(fast,))))
    assert verdicts["prefill_rate"] == verdicts["first_token"] == "better"
    assert _verdicts(_compare(replace(REPORT, sessions=(fast,)), REPORT))["prefill_rate"] == "worse"


def test_a_change_is_as_large_as_its_reverse_and_a_tiny_one_is_noise() -> None:
    assert relative_change("load", 1.0, 2.0) == pytest.approx(-1.0)
    assert relative_change("load", 2.0, 1.0) == pytest.approx(1.0)
    assert relative_change("throughput", 2.0, 1.0) == pytest.approx(-1.0)
    larger = replace(SESSION, memory=replace(SESSION.memory, peak_resident=3_010_000_000), peaks=(3_010_000_000,) * 2)
    equal = replace(SESSION, peaks=(3_000_000_000,) * 2)
    runs = [replace(REPORT, sessions=(session,)) for session in (equal, larger)]
    assert _verdicts(_compare(*runs))["peak_resident"] == "noise"


def test_a_machine_whose_speed_moved_excuses_no_more_than_it_moved() -> None:
    slower = Limits(tuple(replace(p, best=p.best / 2) for p in LIMITS.memory), LIMITS.arithmetic)
    other = replace(REPORT, limits={"float32": slower})
    comparison = _compare(REPORT, other)
    changes = {each.figure: each for each in comparison.others[0].changes}
    assert changes["first_token"].noise == pytest.approx(1.0)
    assert changes["first_token"].spread == pytest.approx(0.1, abs=0.1)
    assert changes["peak_resident"].noise < 0.1
    assert "the machine's own speed differs by 100%" in comparison.others[0].notes[0]
    assert _compare(REPORT, REPORT).others[0].notes == ()


def test_a_change_of_speed_within_a_run_counts_only_in_its_spread() -> None:
    disturbed = Limits(tuple(replace(p, best=p.best / 2) for p in LIMITS.memory), LIMITS.arithmetic)
    other = replace(REPORT, limits={"float32": LIMITS + disturbed})
    assert _compare(REPORT, other).others[0].notes == ()


def test_without_a_spread_there_is_no_verdict() -> None:
    one = replace(
        REPORT, sessions=(replace(SESSION, results=(replace(SESSION.results[0], runs=SESSION.results[0].runs[:1]),)),)
    )
    assert _verdicts(_compare(REPORT, one))["decode_p50"] == "unknown"
    assert Change("a", "load", 1.0, 2.0, -1.0, None, None).verdict == "unknown"


def test_a_compilation_too_short_to_be_measured_has_no_change() -> None:
    for seconds in (0.0, -0.2):  # reports of earlier versions have negative ones
        startup = replace(STARTUP, cold=Compilation(seconds, 0.0))
        changes = _compare(REPORT, replace(REPORT, sessions=(replace(SESSION, startup=startup),))).others[0].changes
        assert "compile_cold" not in {each.figure for each in changes}
        assert "compile_warm" in {each.figure for each in changes}


def test_what_differs_between_the_runs_is_said() -> None:
    other = replace(
        GRID,
        setup=replace(GRID.setup, processor="Another one", checkpoint="1" * 64),
        sessions=(replace(GRID.sessions[0], versions={"msport": "0.2.0", "mindspore": "2.10.0"}),),
        notes=("memory bandwidth: the machine's speed moved, repeat on an idle machine",),
    )
    notes = _compare(GRID, other).others[0].notes
    assert any("the processor differs: A processor, then Another one" in note for note in notes)
    assert any("the checkpoint differs" in note for note in notes)
    assert "msport: 0.1.0, then 0.2.0" in notes
    assert any(note.startswith("only 0.json has msport float32, batch 2, starting up") for note in notes)
    assert any(note.startswith("1.json: memory bandwidth") for note in notes)


def test_other_operators_and_longer_caches_are_said_for_they_explain_a_change() -> None:
    portable = replace(SESSION, details={**SESSION.details, "operators": "portable"}, max_length=4096)
    notes = _compare(REPORT, replace(REPORT, sessions=(portable,))).others[0].notes
    assert "msport's operators: cpu, then portable" in notes
    assert "msport's max length: 104, then 4096" in notes


def test_the_memory_of_each_length_is_compared_with_that_of_the_same_length() -> None:
    long = replace(SESSION, max_length=4096, peaks=(9_000_000_000,) * 2)
    report = replace(REPORT, sessions=(SESSION, long))
    changes = [each for each in _compare(report, report).others[0].changes if each.figure == "peak_resident"]
    assert [each.before for each in changes] == [3e9, 9e9]
    assert "4096 positions, starting up" in changes[1].cell


def test_each_change_is_judged_by_the_noise_shown_beside_it() -> None:
    times = np.ones(4)
    runs = (_run_of(0.9 * times, 0), _run_of(1.1 * times, 1))  # 20 % apart
    slow = replace(SESSION, results=(Result(SESSION.results[0].workload, runs),))
    fast = replace(SESSION, results=(replace(slow.results[0], runs=tuple(_scaled(run, 0.81) for run in runs)),))
    comparison = _compare(replace(REPORT, sessions=(slow,)), replace(REPORT, sessions=(fast,)))
    (line,) = (line for line in render_comparison(comparison).splitlines() if " decode, p50 " in line)
    assert line.endswith("-19.0%   -16.7 to +20.0%  better")  # and not "-19.0%  20.0%  better"


def test_runs_with_nothing_in_common_get_a_line_that_says_so() -> None:
    half = replace(SESSION, dtype="float16")
    notes = _compare(REPORT, replace(REPORT, sessions=(half,), limits={"float16": LIMITS})).others[0].notes
    assert notes[0].startswith("the two have nothing in common that was measured")


def test_the_text_says_what_is_noise_and_the_page_draws_it() -> None:
    generator = np.random.default_rng(2)
    comparison = _compare(_simulated(generator), _simulated(generator), _simulated(generator, 1.5))
    text = render_comparison(comparison)
    assert "figures agree within the runs' own stated spread" in text
    assert "WORSE" in text
    assert text.count("beside: ") == 2
    page = render_comparison_page(comparison)
    assert not re.search(r"(src|href)\s*=|url\(|@import", page)
    assert page.count("<svg") >= 2 + 4
    check_schema(json.loads(comparison.to_json()), "bench-compare.schema.json")


@pytest.mark.parametrize(
    ("factors", "kind", "word"),
    [
        ((1.0,), "good", "NO CHANGE"),
        ((0.5,), "good", "BETTER"),
        ((2.0,), "bad", "WORSE"),
        ((1.0, 2.0), "bad", "WORSE"),
        ((0.5, 2.0), "bad", "MIXED"),
    ],
)
def test_a_banner_says_the_outcome_of_a_comparison(factors: tuple[float, ...], kind: str, word: str) -> None:
    slower = [_timed(factor) for factor in factors]
    comparison = _compare(_timed(1.0), *slower)
    page = render_comparison_page(comparison)
    banner = page.partition('<div class="banner ')[2].partition("</div>")[0]
    assert banner.startswith(f'{kind}"><strong>{word}</strong>')
    assert banner.count("figures agree within") == len(factors)
    assert page.index(banner) < page.index("<svg")
    assert (
        render_comparison(comparison)
        .splitlines()[-1]
        .startswith({2.0: "WORSE: ", 0.5: "BETTER: "}.get(factors[-1], "NO CHANGE: "))
    )


def test_runs_without_a_spread_are_not_judged_and_those_of_other_things_are_marked() -> None:
    startup = replace(STARTUP, import_seconds=(2.0,), load_seconds=(0.5,))
    session = replace(SESSION, startup=startup, peaks=(1,), results=(_first_run(SESSION.results[0]),))
    once = replace(REPORT, sessions=(session,))
    page = render_comparison_page(_compare(once, once))
    assert '<div class="banner caution"><strong>NOT JUDGED</strong>' in page
    assert "CAUTION" not in page
    other = replace(REPORT, setup=replace(REPORT.setup, checkpoint="1" * 64))
    cautioned = render_comparison_page(_compare(REPORT, other)).partition("<strong>CAUTION</strong>")[2]
    assert "the figures are not about the same thing" in cautioned.partition("</div>")[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "its schema is missing"),
        ('{"schema": "msport.bench/1"}', "measure again"),
    ],
)
def test_a_file_that_is_not_a_report_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        compare_files([tmp_path / "a.json", tmp_path / "a.json"])
    with pytest.raises(UsageError, match="cannot be read"):
        compare_files([tmp_path / "missing.json", tmp_path / "a.json"])


def test_a_report_read_from_its_file_is_compared_as_the_one_that_was_measured(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.json", "b.json")]
    reports = (GRID, _simulated(np.random.default_rng(3)))
    for file, report in zip(files, reports, strict=True):
        file.write_text(report.to_json())
    read = compare_files(files)
    assert read.to_document() == compare([str(file) for file in files], reports).to_document()


def test_a_report_that_lacks_a_part_is_refused_by_name(tmp_path: Path) -> None:
    document = json.loads(REPORT.to_json())
    del document["sessions"][0]["results"][0]["runs"]
    for name, content in (("whole.json", REPORT.to_json()), ("part.json", json.dumps(document))):
        (tmp_path / name).write_text(content)
    with pytest.raises(
        UsageError, match=r"part\.json: not a whole report \(sessions\[0\]\.results\[0\]\.runs is missing\)"
    ):
        compare_files([tmp_path / "whole.json", tmp_path / "part.json"])


def _timed(factor: float) -> BenchReport:
    """Two repeats, a tenth apart, of times that are `factor` times those of the factor 1."""
    runs = tuple(_run_of(factor * level * 0.02 * np.ones(4), process) for process, level in enumerate((0.95, 1.05)))
    return replace(REPORT, sessions=(replace(SESSION, results=(Result(SESSION.results[0].workload, runs),)),))


def _first_run(result: Result) -> Result:
    return replace(result, runs=result.runs[:1])


def _halved(run: Run) -> Run:
    return replace(run, prefill_seconds=run.prefill_seconds / 2, first_token_seconds=run.first_token_seconds / 2)


def _scaled(run: Run, factor: float) -> Run:
    return replace(run, step_seconds=tuple(factor * step for step in run.step_seconds))
