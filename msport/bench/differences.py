"""In what two benchmarks differ besides their figures, and what may explain those."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msport.bench.caveats import is_caution
from msport.bench.figures import document_cells

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
    files: tuple[str, str], documents: tuple[Mapping[str, Any], Mapping[str, Any]], drift: float
) -> Iterator[str]:
    """A line for each difference of the reports `documents` in `files`; `drift` is that of the machine's own speed."""
    if drift:
        yield f"the machine's own speed differs by {drift:.0%} between these runs: less than that is called noise"
    setups = [_setup(document) for document in documents]
    for name, title in _SAME.items():
        if setups[0][name] != setups[1][name]:
            was, became = (setup[name] for setup in setups)
            yield f"{title} differs: {was}, then {became}; {OTHER_THING}"
    was, became = map(_described, documents)
    for name in sorted(was.keys() & became.keys()):
        if was[name] != became[name]:
            yield f"{name}: {was[name]}, then {became[name]}"
    yield from _only_in_one(files, documents)
    for file, document in zip(files, documents, strict=True):
        for note in document["notes"]:
            if is_caution(note):
                yield f"{file}: {note}"


def _setup(document: Mapping[str, Any]) -> dict[str, object]:
    setup = document["setup"]
    return {**setup, "checkpoint": f"{setup['source']} ({setup['checkpoint'][:_HASH_DIGITS]})"}


def _described(document: Mapping[str, Any]) -> dict[str, str]:
    """What may explain a change: versions, operators, and the positions that the caches hold."""
    found: dict[str, dict[str, None]] = {}
    for session in (*document["sessions"], *document["baselines"]):
        own = {f"{session['engine']}'s {name.replace('_', ' ')}": value for name, value in session["details"].items()}
        if session["engine"] == "msport":
            own["msport's max length"] = session["max_length"]
        for name, value in {**session["versions"], **own}.items():
            found.setdefault(name, {})[str(value)] = None
    return {name: " and ".join(values) for name, values in found.items()}


def _only_in_one(files: tuple[str, str], documents: tuple[Mapping[str, Any], Mapping[str, Any]]) -> Iterator[str]:
    cells = [{cell.key: cell.title for cell in document_cells(document)} for document in documents]
    if not cells[0].keys() & cells[1].keys():
        yield "the two have nothing in common that was measured: compare runs of the same prompts, batches and dtypes"
    for file, own, other in zip(files, cells, reversed(cells), strict=True):
        lacking = [title for key, title in own.items() if key not in other]
        yield from (f"only {file} has {title}" for title in lacking[:_SHOWN])
        if len(lacking) > _SHOWN:
            yield f"only {file} has {len(lacking) - _SHOWN} others"
