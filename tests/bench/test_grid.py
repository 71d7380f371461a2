"""A grid as text, CSV, JSON and a page: every cell is there, and published figures stand apart."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import jsonschema
import pytest
from report.drawings import outside

from bench.made_reports import BASELINE, COMPARED, GRID, REPORT, SESSION, STARTUP
from bench.schemas import DOCS, check_schema
from msport.bench.caveats import collect_notes
from msport.bench.compare import compare
from msport.bench.compare_views import render_comparison_page
from msport.bench.figures import KINDS, make_cells
from msport.bench.measure.session import Result, Session
from msport.bench.measure.workload import Workload
from msport.bench.published import HEADING, PUBLISHED, markdown_table, published_about
from msport.bench.report import BenchReport
from msport.bench.text import render_text
from msport.sizing.process import DeviceMemory

ON_DEVICE = replace(
    REPORT,
    sessions=(
        replace(SESSION, device="Ascend", memory=replace(SESSION.memory, device=DeviceMemory(3 * 10**9, 4 * 10**9))),
    ),
)


@pytest.mark.parametrize("report", [REPORT, COMPARED, GRID, ON_DEVICE], ids=["one", "compared", "grid", "device"])
def test_the_json_is_what_the_schema_says(report: BenchReport) -> None:
    document = json.loads(report.to_json())
    check_schema(document, "bench.schema.json")
    document["sessions"][0]["results"][0]["runs"][0]["step_seconds"] = "fast"
    with pytest.raises(jsonschema.ValidationError):
        check_schema(document, "bench.schema.json")


def test_the_text_has_a_row_for_each_workload_in_each_table() -> None:
    text = str(GRID)
    rows = [line.split()[:4] for line in text.splitlines()]
    for dtype in ("float32", "float16"):
        for batch in ("1", "2"):
            for prompt in ("64", "100"):
                assert rows.count([dtype, batch, prompt, "4"]) >= 3
    assert "bfloat16, batch 1, 2, prompt 64, 100: no such kernels" in text
    assert "no separate device memory" in text
    assert "msport is so many times as fast" in text


def test_the_memory_of_a_device_is_reported_and_the_cpu_has_none() -> None:
    assert "peak device memory    3.00 GB  (reserved 4.00 GB; npu-smi does not tell)" in str(ON_DEVICE)
    assert "none: the CPU computes in resident memory" in str(REPORT)


def test_the_csv_has_a_line_for_each_workload_of_each_engine() -> None:
    lines = list(csv.DictReader(io.StringIO(GRID.to_csv())))
    assert len(lines) == 2 * 4 + 4
    ours = lines[0]
    assert (ours["engine"], ours["dtype"], ours["batch"], ours["prompt_tokens"]) == ("msport", "float32", "1", "64")
    assert float(ours["first_token"]) == pytest.approx(0.2)
    assert float(ours["decode_p50"]) == pytest.approx(0.02)
    assert float(ours["compile_cold"]) == pytest.approx(4.0)
    assert float(ours["peak_resident"]) == 3e9
    assert lines[-1]["engine"] == "transformers"
    assert lines[-1]["compile_cold"] == ""


def test_figures_lie_between_their_repeats() -> None:
    cells = make_cells(GRID)
    assert {name for cell in cells for name in cell.figures} == set(KINDS) - {"peak_device"}
    for cell in cells:
        for figure in cell.figures.values():
            assert figure.low <= figure.value <= figure.high


def test_the_page_is_whole_opens_without_a_network_and_draws_every_chart() -> None:
    page = GRID.to_html(published=True)
    assert not re.search(r"(src|href)\s*=|url\(|@import", page)
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(charts) == 5
    for chart in charts:
        ET.fromstring(chart)
    throughput = charts[0]
    assert throughput.count("<rect") == 2 * 4 + 2 * 2  # the baseline is drawn once, msport in two dtypes
    assert "nan" not in page
    assert "no such kernels" in page


def test_no_text_of_a_chart_leaves_its_paper() -> None:
    workloads = [
        Workload(tokens, 4, 1, name) for name, tokens in (("chinese", 28), ("english", 31), ("long context", 15730))
    ]
    results = tuple(replace(SESSION.results[0], workload=workload) for workload in workloads)
    mixed = replace(
        COMPARED, sessions=(replace(SESSION, results=results),), baselines=(replace(BASELINE, results=results),)
    )
    comparison = compare(["a.json", "b.json"], [mixed] * 2)
    for page in (REPORT.to_html(), GRID.to_html(), mixed.to_html(), render_comparison_page(comparison)):
        assert list(outside(page)) == []
    assert list(outside(mixed.to_html().replace(">long context 15730<", ">a name that is very long<"))), "it is seen"


def test_no_two_bars_or_lines_of_a_chart_have_one_colour() -> None:
    batches = tuple(replace(each, results=_with_batch(each, 4)) for each in GRID.sessions[1::2])
    baselines = tuple(replace(each, results=_with_batch(each, 4)) for each in GRID.baselines[1:])
    report = replace(
        GRID,
        sessions=(*GRID.sessions, *batches),
        baselines=(*GRID.baselines, *baselines),
    )
    figures = re.findall(r"<figure.*?</figure>", report.to_html(), re.DOTALL)
    assert len(figures) > 5
    for figure in figures:
        keys = re.findall(r'class="key (s\d)"', figure)
        assert keys
        assert len(set(keys)) == len(keys)


def test_one_batch_has_one_chart_of_throughput_with_the_prompts_side_by_side() -> None:
    page = replace(GRID, sessions=GRID.sessions[:1], baselines=GRID.baselines[:1]).to_html()
    (chart,) = (part for part in page.split("<section>") if part.startswith("<h2>Throughput"))
    assert chart.count("<svg") == 1
    for title in ("msport float32, prompt 64: ", "msport float32, prompt 100: ", "transformers float32, prompt 64: "):
        assert title in chart


def test_memory_is_drawn_beside_what_was_expected() -> None:
    (chart,) = (part for part in ON_DEVICE.to_html().split("<section>") if "Memory of the process" in part)
    for title in ("after loading", "peak", "expected", "peak on the device"):
        assert f"{title}, float32 batch 1" in chart


def test_a_machine_that_was_busy_is_said_before_any_figure() -> None:
    busy = replace(REPORT, setup=replace(REPORT.setup, load_average=1.5))
    page = replace(busy, notes=collect_notes(busy)).to_html()
    said = page.index("the machine was busy when the benchmark began")
    assert page.index('class="banner caution"') < said < page.index('class="cards"') < page.index("<svg")
    assert page.count("the machine was busy") == 1
    assert 'class="banner' not in REPORT.to_html()


def test_a_single_workload_has_cards_and_a_grid_none() -> None:
    cards = REPORT.to_html().partition('class="cards"')[2].partition("</dl>")[0]
    for name, value in (("time to first token", "200 ms"), ("decode, a token", "20 ms"), ("peak memory", "3.00 GB")):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in cards
    assert 'class="cards"' not in GRID.to_html()


def test_the_page_says_in_which_versions_it_was_measured_and_when() -> None:
    page = COMPARED.to_html()
    for said in ("mindspore 2.10.0", "torch 2.13.0, transformers 4.57.1", "2026-11-21 08:00:00 UTC", "0" * 64):
        assert said in page


def test_one_length_is_drawn_in_bars_and_several_over_a_logarithmic_axis() -> None:
    assert "tokens of the prompt (logarithmic)" in GRID.to_html()
    assert "tokens of the prompt (logarithmic)" not in REPORT.to_html()
    assert "msport float32, batch 1, prompt 100: 200" in REPORT.to_html()


def test_a_warm_start_that_was_not_measured_has_no_column() -> None:
    cold = replace(GRID, sessions=tuple(replace(each, startup=replace(STARTUP, warm=None)) for each in GRID.sessions))
    assert "warm cache" in str(GRID)
    assert "warm cache" not in str(cold)


def _with_batch(session: Session, batch: int) -> tuple[Result, ...]:
    return tuple(replace(each, workload=replace(each.workload, batch=batch)) for each in session.results)


def test_a_page_of_one_token_has_no_chart_of_decoding() -> None:
    only = replace(SESSION.results[0], workload=replace(SESSION.results[0].workload, new_tokens=1))
    runs = tuple(replace(run, step_seconds=(), tokens=((1,),)) for run in only.runs)
    report = replace(REPORT, sessions=(replace(SESSION, results=(replace(only, runs=runs),)),))
    assert "Time per output token" not in report.to_html()


def test_published_figures_stand_under_their_own_heading_and_in_no_measured_document() -> None:
    text = render_text(GRID, published=True)
    measured, _, published = text.partition(HEADING)
    for row in published_about("GptOssForCausalLM"):
        assert row.figures in published
        assert row.figures not in measured
        assert row.figures not in GRID.to_json()
        assert row.figures not in GRID.to_csv()
    assert HEADING not in str(GRID)
    assert "no figures are known" in render_text(
        replace(GRID, setup=replace(GRID.setup, architecture="X")), published=True
    )


def test_the_document_of_published_figures_is_the_table_of_the_package() -> None:
    assert markdown_table() in (DOCS / "published-figures.md").read_text(encoding="utf-8")
    assert {row.model.split(",")[0] for row in PUBLISHED} >= {
        "gpt-oss-20b",
        "Qwen2.5-14B-Instruct",
        "Mistral-7B-Instruct-v0.2",
        "Gemma-2-2b-it",
    }
