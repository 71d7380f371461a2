"""In what two benchmarks differ besides their figures, and what may explain those."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from msport.bench.caveats import is_caution
from msport.bench.figures import Cell
from msport.bench.measurements import Measurements, Setup

# What must be the same for two figures to be about the same thing, and what each is called.
_SAME = {
    "checkpoint": "the checkpoint",
    "processor": "the processor",
    "threads": "the number of threads",
    "device": "the device",
    "seed": "the seed",
}

OTHER_THING = "the figures are not about the same thing"

_HASH_DIGITS = 12

# Lines about what only one of the two has.
_SHOWN = 6


def describe_differences(
    files: tuple[str, str],
    reports: tuple[Measurements, Measurements],
    cells: tuple[Sequence[Cell], Sequence[Cell]],
    drift: float,
) -> Iterator[str]:
    """A line for each difference of the `reports` in `files`; `drift` is that of the machine's own speed."""
    if drift:
        yield f"the machine's own speed differs by {drift:.0%} between these runs: less than that is called noise"
    setups = [_setup(report.setup) for report in reports]
    for name, title in _SAME.items():
        was, became = (setup[name] for setup in setups)
        if was != became:
            yield f"{title} differs: {was}, then {became}; {OTHER_THING}"
    before, after = map(_described, reports)
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            yield f"{name}: {before[name]}, then {after[name]}"
    yield from _only_in_one(files, cells)
    for file, report in zip(files, reports, strict=True):
        yield from (f"{file}: {note}" for note in report.notes if is_caution(note))


def _setup(setup: Setup) -> dict[str, object]:
    return {**asdict(setup), "checkpoint": f"{setup.source} ({setup.checkpoint[:_HASH_DIGITS]})"}


def _described(report: Measurements) -> dict[str, str]:
    """What may explain a change: versions, operators, and the positions that the caches hold."""
    found: dict[str, dict[str, None]] = {}
    for session in (*report.sessions, *report.baselines):
        own = {f"{session.engine}'s {name.replace('_', ' ')}": value for name, value in session.details.items()}
        if session.engine == "msport":
            own["msport's max length"] = session.max_length
        for name, value in {**session.versions, **own}.items():
            found.setdefault(name, {})[str(value)] = None
    return {name: " and ".join(values) for name, values in found.items()}


def _only_in_one(files: tuple[str, str], cells: tuple[Sequence[Cell], Sequence[Cell]]) -> Iterator[str]:
    titles = [{cell.key: cell.title for cell in each} for each in cells]
    if not titles[0].keys() & titles[1].keys():
        yield "the two have nothing in common that was measured: compare runs of the same prompts, batches and dtypes"
    for file, own, other in zip(files, titles, reversed(titles), strict=True):
        lacking = [title for key, title in own.items() if key not in other]
        yield from (f"only {file} has {title}" for title in lacking[:_SHOWN])
        if len(lacking) > _SHOWN:
            yield f"only {file} has {len(lacking) - _SHOWN} others"
