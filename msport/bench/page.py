"""A benchmark as one self-contained page: warnings, charts, and the tables of the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from msport.bench.caveats import is_caution
from msport.bench.charts import length_chart, memory_chart, share_chart, throughput_chart
from msport.bench.figures import Cell, make_cells, value_text
from msport.bench.measurements import Measurements
from msport.bench.published import HEADING, published_about
from msport.bench.tables import limit_table, ratio_table, result_table, startup_table
from msport.bench.text import engine_lines
from msport.report.formatting import counted, number, utc
from msport.report.page import Banner, cards, remarks, render, section, settings
from msport.report.table import Table

# The figures at the top of the page of a single workload.
_CARDS = {
    "throughput": "new tokens/s",
    "first_token": "time to first token",
    "decode_p50": "decode, a token",
    "bandwidth_share": "of the memory bandwidth",
    "load": "load",
    "compile_cold": "compile, cold",
    "peak_resident": "peak memory",
}


def render_page(report: Measurements, published: bool = False) -> str:
    """The page of `report`; it needs no network.

    `published` adds a separate list of figures that others published about such models.
    """
    cells = make_cells(report)
    setup = report.setup
    cautions, notes = ([note for note in report.notes if is_caution(note) is wanted] for wanted in (True, False))
    processes = counted(setup.processes, "process", "processes")
    runs = f"{setup.warmup} warm-up and {counted(setup.repeats, 'measured run')}, {processes}"
    said = (
        f"{setup.architecture} from {setup.source}, on {setup.device}: {setup.processor},"
        f" {counted(setup.threads, 'thread')}; {runs}; {utc(setup.started)}"
    )
    body = [
        cards(_cards([cell for cell in cells if cell.engine == "msport"])),
        *_charts([cell for cell in cells if cell.workload is not None]),
        section("Memory of the process", memory_chart(report)),
        *_tables(report),
    ]
    if report.unavailable:
        rows = [
            (part.dtype, str(part.batch), ", ".join(map(str, part.prompts)), part.reason) for part in report.unavailable
        ]
        body.append(section("Not available", Table(("dtype", "batch", "prompts", "why"), rows, "<><<").html()))
    body.append(section("Notes", remarks(notes)))
    if published:
        lines = [(row.model, row.stack, row.figures) for row in published_about(setup.architecture)]
        body.append(section(HEADING, Table(("model", "ran on", "figures"), lines, "<<<").html()))
    setup_table = settings({**asdict(setup), "started": utc(setup.started)})
    body.append(section("Setup", remarks(engine_lines(report)), setup_table))
    banners = [Banner("caution", "CAUTION", cautions)] if cautions else []
    return render("msport bench", setup.folder, said, banners, body)


def _cards(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    """The figures of the only session and workload; empty if there are several."""
    starts, workloads = ([cell for cell in cells if (cell.workload is None) is start] for start in (True, False))
    chosen = [cell for some in (starts, workloads) if len(some) == 1 for cell in some]
    figures = {name: figure.value for cell in chosen for name, figure in cell.figures.items()}
    return [
        (title, value_text(name, figures[name]).removesuffix(" tokens/s"))
        for name, title in _CARDS.items()
        if name in figures
    ]


def _charts(cells: Sequence[Cell]) -> Iterator[str]:
    yield section("Throughput", throughput_chart(cells))
    yield section("Time to first token by length of the prompt", length_chart(cells, "first_token"))
    if any("decode_p50" in cell.figures for cell in cells):
        yield section("Time per output token by length of the prompt", length_chart(cells, "decode_p50"))
    ours = [cell for cell in cells if cell.engine == "msport"]
    yield section("Share of the limits measured in the same run", share_chart(ours))


def _tables(report: Measurements) -> Iterator[str]:
    yield section("Starting up, and memory", startup_table(report).html())
    yield section("Running", result_table(report.sessions).html())
    yield section("Beside the limits", limit_table(report).html())
    probes = [
        (dtype, kind, number(probe.best / 1e9), number(probe.median / 1e9), probe.method)
        for dtype, limits in report.limits.items()
        for kind, each in (("GB/s", limits.memory), ("GFLOP/s", limits.arithmetic))
        for probe in each
    ]
    head = ("dtype", "unit", "best", "median", "how it was measured")
    yield section("The limits", Table(head, probes, "<<>><").html())
    if report.baselines:
        yield section("Transformers in float32", result_table(report.baselines).html())
        yield section("msport is so many times as fast", ratio_table(report).html())
