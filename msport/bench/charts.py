"""The charts of a benchmark's page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from msport.bench.figures import Cell, Figure, axis_of, show_bytes
from msport.bench.measure.session import Session
from msport.bench.measure.workload import Workload
from msport.bench.measurements import Measurements
from msport.report.chart import ChartRow, Mark, Series, bar_chart, line_chart, row_chart
from msport.report.formatting import percent
from msport.report.frame import Point
from msport.report.scale import linear, measured
from msport.report.svg import COLOURS, colour

# Groups of bars that fit a chart.
PER_CHART = 6

_SHARES = {
    "bandwidth_share": "decoding, of the memory bandwidth",
    "arithmetic_share": "prefill, of the matrix products",
}


def point_of(figure: Figure | None) -> Point | None:
    """`figure` as a bar with its repeats as a whisker; None if it was not measured."""
    return None if figure is None else Point(0.0, "", figure.value, figure.low, figure.high)


def throughput_chart(cells: Sequence[Cell]) -> str:
    """Bars for each batch, or for each prompt of a single batch; several charts if one has too few colours."""
    title = "new tokens/s, prefill included"
    if len({cell.batch for cell in cells}) == 1:
        return _bars_of(cells, _prompt, _engine, title)
    engines = len({_engine(cell) for cell in cells})

    def name(cell: Cell) -> str:
        return f"{_engine(cell)}, {_prompt(cell)}" if engines > 1 else _prompt(cell)

    if len({name(cell) for cell in cells}) <= COLOURS:
        return _bars_of(cells, _batch, name, title)
    parts = _grouped(cells, _prompt)
    return "\n".join(_bars_of(part, _batch, _engine, f"{prompt}: {title}") for prompt, part in parts.items())


def length_chart(cells: Sequence[Cell], figure: str) -> str:
    """A line for each engine, dtype and batch over the prompts; one chart per batch if one chart has too few
    colours.
    """
    if len({_line(cell) for cell in cells}) <= COLOURS:
        return _lines_of(cells, figure)
    parts = _grouped(sorted(cells, key=lambda cell: cell.batch), _batch)
    return "\n".join(_lines_of(part, figure, f"{batch}: ") for batch, part in parts.items())


def memory_chart(report: Measurements) -> str:
    """Bars for the memory of each session after loading and at its peak, and for the estimate."""
    charts = []
    for begin in range(0, len(report.sessions), PER_CHART):
        some = report.sessions[begin : begin + PER_CHART]
        groups = [f"{each.kind} batch {each.batch}\n{each.max_length} positions" for each in some]
        series: list[tuple[str, list[Point | None]]] = [
            ("after loading", [_bytes(each.loaded.resident) for each in some]),
            ("peak", [point_of(Figure(max(each.peaks), None, min(each.peaks), max(each.peaks))) for each in some]),
            ("expected", [_bytes(report.need(each).total) for each in some]),
        ]
        if any(each.memory.device for each in some):
            series.append(("peak on the device", [_device_peak(each) for each in some]))
        charts.append(bar_chart(groups, series, up="bytes", show=show_bytes))
    return "\n".join(charts)


def share_chart(cells: Sequence[Cell]) -> str:
    """The share of the machine's limits that each workload reaches."""
    kinds = {name: (colour(number), title) for number, (name, title) in enumerate(_SHARES.items())}
    rows = [ChartRow(f"{cell.dtype}, batch {cell.batch}, {_prompt(cell)}", _share_marks(cell, kinds)) for cell in cells]
    most = max([1.0, *(mark.value for row in rows for mark in row.marks)])
    across, limits = "share of what the machine reached in the same run", [(1.0, "limit")]
    return row_chart(rows, linear(0.0, most, percent), across=across, limits=limits, keys=list(kinds.values()))


def _share_marks(cell: Cell, kinds: Mapping[str, tuple[str, str]]) -> list[Mark]:
    found = [(cell.figures[name].value, *kinds[name]) for name in kinds if name in cell.figures]
    return [Mark(share, f"{title}: {share:.1%}", kind, bar=True, note=percent(share)) for share, kind, title in found]


def _bars_of(
    cells: Sequence[Cell],
    group: Callable[[Cell], str],
    name: Callable[[Cell], str],
    title: str,
    figure: str = "throughput",
) -> str:
    """Bars of a `figure` of `cells`: side by side within a `group`, in the colour of their `name`."""
    groups, names = (list(dict.fromkeys(map(each, cells))) for each in (group, name))
    found = {(name(cell), group(cell)): cell.figures.get(figure) for cell in cells}
    series = [(one, [point_of(found.get((one, each))) for each in groups]) for one in names]
    return bar_chart(groups, series, up=title, show=axis_of(figure)[1])


def _lines_of(cells: Sequence[Cell], figure: str, title: str = "") -> str:
    cells = sorted((cell for cell in cells if figure in cell.figures), key=_length)
    unit, show = axis_of(figure)
    if len({_length(cell) for cell in cells}) == 1:
        return _bars_of(cells, _prompt, _line, f"{title}{unit}", figure)
    parts = _grouped(cells, _line)
    series = [Series(line, [_over_length(cell, figure) for cell in part], dots=True) for line, part in parts.items()]
    highest = max(point.high for one in series for point in one.points)
    return line_chart(
        series,
        measured((_length(cell), _prompt(cell).removeprefix("prompt ")) for cell in cells),
        linear(0.0, 1.05 * highest, show),
        across="tokens of the prompt (logarithmic)",
        up=f"{title}{unit}",
        show=show,
    )


def _over_length(cell: Cell, name: str) -> Point:
    figure = cell.figures[name]
    return Point(_length(cell), _prompt(cell), figure.value, figure.low, figure.high)


def _device_peak(session: Session) -> Point | None:
    device = session.memory.device
    return None if device is None else _bytes(device.allocated_peak)


def _bytes(value: int) -> Point:
    return Point.single(0.0, "", value)


def _grouped(cells: Iterable[Cell], key: Callable[[Cell], str]) -> dict[str, list[Cell]]:
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    return groups


def _engine(cell: Cell) -> str:
    return f"{cell.engine} {cell.dtype}"


def _batch(cell: Cell) -> str:
    return f"batch {cell.batch}"


def _line(cell: Cell) -> str:
    return f"{_engine(cell)}, {_batch(cell)}"


def _prompt(cell: Cell) -> str:
    workload = cell.workload or Workload()
    return f"{workload.name or 'prompt'} {workload.prompt_tokens}"


def _length(cell: Cell) -> int:
    return (cell.workload or Workload()).prompt_tokens
