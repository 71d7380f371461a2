"""A benchmark as one self-contained page: what limits its worth, the tables of the terminal, and charts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict

from msport.bench.caveats import is_caution
from msport.bench.drawing import axis_of, bars, point_of, show_bytes, value_text
from msport.bench.figures import Cell, make_cells
from msport.bench.measure.workload import Workload
from msport.bench.measurements import Measurements, Setup
from msport.bench.published import HEADING, published_about
from msport.bench.tables import limit_rows, ratio_rows, result_rows, startup_rows
from msport.bench.text import engine_lines
from msport.report.chart import Mark, Row, Series, line_chart, row_chart
from msport.report.frame import Point
from msport.report.layout import counted, number, percent, utc
from msport.report.marks import COLOURS, colour
from msport.report.page import Banner, cards, remarks, render, section, table
from msport.report.scale import linear, measured

# Groups of bars that fit a chart.
_PER_CHART = 6

# What the page of a single workload shows first.
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
    """The page of `report`; it opens without a network.

    `published` adds, apart from everything measured, what others published about such models.
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
        section("Memory of the process", _memory(report)),
        *_tables(report),
    ]
    if report.unavailable:
        rows = [
            (part.dtype, str(part.batch), ", ".join(map(str, part.prompts)), part.reason) for part in report.unavailable
        ]
        body.append(section("Not available", table([("dtype", "batch", "prompts", "why"), *rows], "<><<")))
    if notes:
        body.append(section("Notes", remarks(notes)))
    if published:
        lines = [(row.model, row.stack, row.figures) for row in published_about(setup.architecture)]
        body.append(section(HEADING, table([("model", "ran on", "figures"), *lines], "<<<")))
    settings = table([("setting", "value"), *_setup_rows(report.setup)], "<<")
    body.append(section("Setup", remarks(engine_lines(report)), settings))
    banners = [Banner("caution", "CAUTION", cautions)] if cautions else []
    return render("msport bench", setup.folder, said, banners, body)


def _cards(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    """The figures of the only session, and of the only workload; of several there is no such choice."""
    starts, workloads = ([cell for cell in cells if (cell.workload is None) is start] for start in (True, False))
    chosen = [cell for some in (starts, workloads) if len(some) == 1 for cell in some]
    figures = {name: figure.value for cell in chosen for name, figure in cell.figures.items()}
    return [
        (title, value_text(name, figures[name]).removesuffix(" tokens/s"))
        for name, title in _CARDS.items()
        if name in figures
    ]


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


def _bars(
    cells: Sequence[Cell],
    group: Callable[[Cell], str],
    name: Callable[[Cell], str],
    title: str,
    figure: str = "throughput",
) -> str:
    """A `figure` of `cells`, side by side where their `group` is the same, in the colour of their `name`."""
    groups, names = (list(dict.fromkeys(map(each, cells))) for each in (group, name))
    found = {(name(cell), group(cell)): cell for cell in cells}
    series = [(one, [point_of(found.get((one, each)), figure) for each in groups]) for one in names]
    return bars(groups, series, title, axis_of(figure)[1])


def _by_length(cells: Sequence[Cell], figure: str) -> str:
    """A line for each engine, dtype and batch over the prompts; a chart for each batch where colours do not suffice."""
    if len({_line(cell) for cell in cells}) <= COLOURS:
        return _lines(cells, figure)
    parts = {batch: [cell for cell in cells if cell.batch == batch] for batch in sorted({c.batch for c in cells})}
    return "\n".join(_lines(part, figure, f"batch {batch}: ") for batch, part in parts.items())


def _lines(cells: Sequence[Cell], figure: str, title: str = "") -> str:
    cells = sorted((cell for cell in cells if figure in cell.figures), key=_length)
    found: dict[str, list[Point | None]] = {}
    for cell in cells:
        found.setdefault(_line(cell), []).append(point_of(cell, figure, _length(cell), _what(cell)))
    series = [Series(line, [point for point in points if point], dots=True) for line, points in found.items()]
    unit, show = axis_of(figure)
    if len({_length(cell) for cell in cells}) == 1:
        return _bars(cells, _what, _line, f"{title}{unit}", figure)
    highest = max(point.high for one in series for point in one.points)
    return line_chart(
        series,
        measured((_length(cell), _what(cell).removeprefix("prompt ")) for cell in cells),
        linear(0.0, 1.05 * highest, show),
        across="tokens of the prompt (logarithmic)",
        up=f"{title}{unit}",
        show=show,
    )


def _memory(report: Measurements) -> str:
    """Bars for what each session held after loading and at most, beside what was expected."""
    charts = []
    for begin in range(0, len(report.sessions), _PER_CHART):
        some = report.sessions[begin : begin + _PER_CHART]
        groups = [f"{each.kind} batch {each.batch}\n{each.max_length} positions" for each in some]
        series: list[tuple[str, list[Point | None]]] = [
            ("after loading", [_bytes(each.loaded.resident) for each in some]),
            ("peak", [_bytes(max(each.peaks), min(each.peaks)) for each in some]),
            ("expected", [_bytes(report.need(each).total) for each in some]),
        ]
        if any(each.memory.device for each in some):
            peaks = [None if each.memory.device is None else each.memory.device.allocated_peak for each in some]
            series.append(("peak on the device", [None if peak is None else _bytes(peak) for peak in peaks]))
        charts.append(bars(groups, series, "bytes", show_bytes))
    return "\n".join(charts)


def _bytes(value: int, low: int | None = None) -> Point:
    return Point(0.0, "", value, value if low is None else low, value)


_SHARES = {
    "bandwidth_share": "decoding, of the memory bandwidth",
    "arithmetic_share": "prefill, of the matrix products",
}


def _shares(cells: Sequence[Cell]) -> str:
    kinds = {name: (colour(number), title) for number, (name, title) in enumerate(_SHARES.items())}
    rows = [Row(f"{cell.dtype}, batch {cell.batch}, {_what(cell)}", _share_marks(cell, kinds)) for cell in cells]
    most = max([1.0, *(mark.value for row in rows for mark in row.marks)])
    across, limits = "share of what the machine reached in the same run", [(1.0, "limit")]
    return row_chart(rows, linear(0.0, most, percent), across=across, limits=limits, keys=list(kinds.values()))


def _share_marks(cell: Cell, kinds: Mapping[str, tuple[str, str]]) -> list[Mark]:
    found = [(cell.figures[name].value, *kinds[name]) for name in kinds if name in cell.figures]
    return [Mark(share, f"{title}: {share:.1%}", kind, bar=True, note=percent(share)) for share, kind, title in found]


def _tables(report: Measurements) -> Iterator[str]:
    yield section("Starting up, and memory", table(startup_rows(report)))
    yield section("Running", table(result_rows(report.sessions)))
    yield section("Beside the limits", table(limit_rows(report)))
    probes = [
        (dtype, kind, number(probe.best / 1e9), number(probe.median / 1e9), probe.method)
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


def _setup_rows(setup: Setup) -> list[tuple[str, str]]:
    said = {**asdict(setup), "started": utc(setup.started)}
    return [(name.replace("_", " "), str(value)) for name, value in said.items() if value is not None]
