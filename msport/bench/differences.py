"""Differences of two benchmarks besides their figures: those that may explain a change or make figures incomparable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from msport.bench.caveats import is_caution
from msport.bench.figures import Cell
from msport.bench.measurements import Measurements, Setup

# Settings that must be equal for two figures to be comparable, and their names in messages.
_SAME = {
    "checkpoint": "the checkpoint",
    "processor": "the processor",
    "threads": "the number of threads",
    "device": "the device",
    "seed": "the seed",
}

OTHER_THING = "the figures are not about the same thing"

_HASH_DIGITS = 12

# Largest number of lines about what only one of the two has.
_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Run:
    """A compared benchmark: the name of its file, what was measured, and its figures."""

    file: str
    report: Measurements
    cells: tuple[Cell, ...]

    @property
    def started(self) -> str:
        return self.report.setup.started


def describe_differences(first: Run, other: Run, drift: float) -> Iterator[str]:
    """A line for each difference of two runs; `drift` is the difference of the machine's own speed."""
    if drift:
        yield f"the machine's own speed differs by {drift:.0%} between these runs: less than that is called noise"
    setups = [_setup(run.report.setup) for run in (first, other)]
    for name, title in _SAME.items():
        was, became = (setup[name] for setup in setups)
        if was != became:
            yield f"{title} differs: {was}, then {became}; {OTHER_THING}"
    before, after = _described(first.report), _described(other.report)
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            yield f"{name}: {before[name]}, then {after[name]}"
    if not _titles(first).keys() & _titles(other).keys():
        yield "the two have nothing in common that was measured: compare runs of the same prompts, batches and dtypes"
    yield from _lacking(first, other)
    yield from _lacking(other, first)
    for run in (first, other):
        yield from (f"{run.file}: {note}" for note in run.report.notes if is_caution(note))


def _setup(setup: Setup) -> dict[str, object]:
    return {**asdict(setup), "checkpoint": f"{setup.source} ({setup.checkpoint[:_HASH_DIGITS]})"}


def _described(report: Measurements) -> dict[str, str]:
    """Settings that may explain a change: versions, operators, and the length of the caches."""
    found: dict[str, dict[str, None]] = {}
    for session in (*report.sessions, *report.baselines):
        own = {f"{session.engine}'s {name.replace('_', ' ')}": value for name, value in session.details.items()}
        if session.engine == "msport":
            own["msport's max length"] = session.max_length
        for name, value in {**session.versions, **own}.items():
            found.setdefault(name, {})[str(value)] = None
    return {name: " and ".join(values) for name, values in found.items()}


def _lacking(run: Run, other: Run) -> Iterator[str]:
    """Lines about what was measured only in `run`."""
    measured = _titles(other)
    titles = [title for key, title in _titles(run).items() if key not in measured]
    yield from (f"only {run.file} has {title}" for title in titles[:_SHOWN])
    if len(titles) > _SHOWN:
        yield f"only {run.file} has {len(titles) - _SHOWN} others"


def _titles(run: Run) -> dict[object, str]:
    return {cell.key: cell.title for cell in run.cells}
