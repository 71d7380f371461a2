"""A benchmark as one self-contained page: the tables of the terminal, and charts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msport.bench.cells import Cell, document_cells
from msport.bench.chart import COLOURS, Point, Series, bar_chart, line_chart, share_chart
from msport.bench.measurements import Measurements
from msport.bench.page import paragraph, render, section, table
from msport.bench.published import HEADING, published_about
from msport.bench.text_grid import limit_rows, ratio_rows, result_rows, startup_rows
from msport.bench.workload import Workload
from msport.convert import format_size
from msport.report.layout import counted, utc

# Groups of bars that fit a chart.
_PER_CHART = 6


def render_page(report: Measurements, document: Mapping[str, Any], published: bool = False) -> str:
    """The page of `report`, whose JSON values are `document`; it opens without a network.

    `published` adds, apart from everything measured, what others published about such models.
    """
    cells = [cell for cell in document_cells(document) if cell.workload is not None]
    setup = report.setup
    processes = counted(setup.processes, "process", "processes")
    runs = f"{setup.warmup} warm-up and {counted(setup.repeats, 'measured run')}, {processes}"
    said = (
        f"{setup.architecture} from {setup.source}, on {setup.device}: {setup.processor},"
        f" {counted(setup.threads, 'thread')}; {runs}; {utc(setup.started)}"
    )
    body = [
        *_charts(cells),
        section("Memory of the process", _memory(report)),
        *_tables(report),
    ]
    if report.unavailable:
        rows = [
            (part.dtype, str(part.batch), ", ".join(map(str, part.prompts)), part.reason) for part in report.unavailable
        ]
        body.append(section("Not available", table([("dtype", "batch", "prompts", "why"), *rows], "<>><")))
    if report.notes:
        body.append(section("Notes", "".join(paragraph(note) for note in report.notes)))
    if published:
        lines = [(row.model, row.stack, row.figures) for row in published_about(setup.architecture)]
        body.append(section(HEADING, table([("model", "ran on", "figures"), *lines], "<<<")))
    body.append(section("Setup", table([("setting", "value"), *_setup_rows(document["setup"])], "<<")))
    return render(setup.folder, said, body)


def _charts(cells: Sequence[Cell]) -> Iterator[str]:
    yield section("Throughput", _throughput(cells))
    yield section("Time to first token by length of the prompt", _by_length(cells, "first_token"))
    if any("decode_p50" in cell.figures for cell in cells):
        yield section("Time per output token by length of the prompt", _by_length(cells, "decode_p50"))
    yield section("Share of the limits measured in the same run", _shares([c for c in cells if c.engine == "msport"]))


def _throughput(cells: Sequence[Cell]) -> str:
    """Bars for each batch, or, where there is one, for each prompt; several charts where one has not enough colours."""
    title = "new tokens/s, prefill included"
    if len({cell.batch for cell in cells}) == 1:
        return _bars(cells, _what, _engine, title)
    if len({_name(cell, cells) for cell in cells}) <= COLOURS:
        return _bars(cells, _batch, lambda cell: _name(cell, cells), title)
    parts = {prompt: [cell for cell in cells if _what(cell) == prompt] for prompt in dict.fromkeys(map(_what, cells))}
    return "\n".join(_bars(part, _batch, _engine, f"{prompt}: {title}") for prompt, part in parts.items())


def _bars(cells: Sequence[Cell], group: Callable[[Cell], str], name: Callable[[Cell], str], title: str) -> str:
    """The throughput of `cells`, side by side where their `group` is the same, in the colour of their `name`."""
    groups, names = (list(dict.fromkeys(map(each, cells))) for each in (group, name))
    found = {(name(cell), group(cell)): _point(cell, "throughput") for cell in cells}
    series = [Series(one, [found.get((one, each)) for each in groups]) for one in names]
    return bar_chart(groups, series, title, "{:.4g}".format)


def _by_length(cells: Sequence[Cell], figure: str) -> str:
    """A line for each engine, dtype and batch over the prompts; a chart for each batch where colours do not suffice."""
    if len({_line(cell) for cell in cells}) <= COLOURS:
        return _lines(cells, figure, "milliseconds")
    parts = {batch: [cell for cell in cells if cell.batch == batch] for batch in sorted({c.batch for c in cells})}
    return "\n".join(_lines(part, figure, f"batch {batch}: milliseconds") for batch, part in parts.items())


def _lines(cells: Sequence[Cell], figure: str, title: str) -> str:
    prompts = list(dict.fromkeys(_prompt(_workload(cell)) for cell in sorted(cells, key=_length)))
    lines = list(dict.fromkeys(_line(cell) for cell in cells))
    found = {(_line(cell), _prompt(_workload(cell))): _point(cell, figure) for cell in cells}
    series = [Series(line, [found.get((line, prompt)) for prompt in prompts]) for line in lines]
    return line_chart(prompts, series, title, lambda seconds: f"{1e3 * seconds:.4g}")


def _memory(report: Measurements) -> str:
    """Bars for what each session held after loading and at most, beside what was expected."""
    charts = []
    for begin in range(0, len(report.sessions), _PER_CHART):
        some = report.sessions[begin : begin + _PER_CHART]
        groups = [f"{each.kind} batch {each.batch}\n{each.max_length} positions" for each in some]
        series = [
            Series("after loading", [_bytes(each.loaded.resident) for each in some]),
            Series("peak", [_bytes(max(each.peaks), min(each.peaks)) for each in some]),
            Series("expected", [_bytes(report.need(each).total) for each in some]),
        ]
        if any(each.memory.device for each in some):
            peaks = [None if each.memory.device is None else each.memory.device.allocated_peak for each in some]
            series.append(Series("peak on the device", [None if peak is None else _bytes(peak) for peak in peaks]))
        charts.append(bar_chart(groups, series, "bytes", lambda value: format_size(round(value))))
    return "\n".join(charts)


def _bytes(value: int, low: int | None = None) -> Point:
    return Point(value, value if low is None else low, value)


def _shares(cells: Sequence[Cell]) -> str:
    rows = [f"{cell.dtype}, batch {cell.batch}, {_prompt(_workload(cell))}" for cell in cells]
    kinds = {
        "decoding, of the memory bandwidth": "bandwidth_share",
        "prefill, of the matrix products": "arithmetic_share",
    }
    return share_chart(
        rows,
        [
            (title, [cell.figures[name].value if name in cell.figures else None for cell in cells])
            for title, name in kinds.items()
        ],
    )


def _tables(report: Measurements) -> Iterator[str]:
    yield section("Starting up, and memory", table(startup_rows(report)))
    yield section("Running", table(result_rows(report.sessions)))
    yield section("Beside the limits", table(limit_rows(report)))
    probes = [
        (dtype, kind, f"{probe.best / 1e9:.4g}", f"{probe.median / 1e9:.4g}", probe.method)
        for dtype, limits in report.limits.items()
        for kind, each in (("GB/s", limits.memory), ("GFLOP/s", limits.arithmetic))
        for probe in each
    ]
    yield section("The limits", table([("dtype", "unit", "best", "median", "how it was measured"), *probes], "<<>><"))
    if report.baselines:
        yield section("Transformers in float32", table(result_rows(report.baselines)))
        yield section("msport is so many times as fast", table(ratio_rows(report)))


def _name(cell: Cell, cells: Sequence[Cell]) -> str:
    """What tells the cells of one batch apart: the prompt, and the engine and dtype where there are several."""
    several = len({(each.engine, each.dtype) for each in cells}) > 1
    return f"{_engine(cell)}, {_what(cell)}" if several else _what(cell)


def _engine(cell: Cell) -> str:
    return f"{cell.engine} {cell.dtype}"


def _batch(cell: Cell) -> str:
    return f"batch {cell.batch}"


def _what(cell: Cell) -> str:
    return _prompt(_workload(cell))


def _line(cell: Cell) -> str:
    return f"{cell.engine} {cell.dtype}, batch {cell.batch}"


def _prompt(workload: Workload) -> str:
    return f"{workload.name} {workload.prompt_tokens}" if workload.name else f"prompt {workload.prompt_tokens}"


def _length(cell: Cell) -> int:
    return _workload(cell).prompt_tokens


def _workload(cell: Cell) -> Workload:
    return cell.workload or Workload()


def _point(cell: Cell, figure: str) -> Point | None:
    found = cell.figures.get(figure)
    return None if found is None else Point(found.value, found.low, found.high)


def _setup_rows(setup: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), str(value)) for name, value in setup.items() if value is not None]
