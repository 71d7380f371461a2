"""What ``msport convert`` prints: the plan of a conversion, and its result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msport.checkpoint.dtypes import FLOATING
from msport.cli.tensor_patterns import pattern_name, summarise
from msport.convert import Conversion, Plan
from msport.convert.output_folder import occupied_space
from msport.report.formatting import counted
from msport.report.table import columns
from msport.sizing.free import free_disk
from msport.sizing.units import format_size


def summary(conversion: Conversion) -> dict[str, Any]:
    """The part of the JSON document that plan and result share."""
    plan = conversion.plan
    return {
        "source": conversion.source.id,
        "revision": conversion.source.revision,
        "output": str(conversion.output),
        "architecture": plan.architecture,
        "dtype": plan.dtype,
        "format": plan.format,
        "tensor_count": len(plan.tensors),
        "nbytes": plan.nbytes,
        "shards": [
            {"file": shard.file, "nbytes": shard.layout.file_size, "kept": shard.source} for shard in plan.shards
        ],
        "rounded": [
            {"from": narrowed.source, "to": narrowed.target, "tensor_count": narrowed.count}
            for narrowed in plan.rounded
        ],
        "dropped": [{"name": dropped.name, "reason": dropped.reason} for dropped in plan.dropped],
    }


def plan_document(conversion: Conversion, done_nbytes: int) -> dict[str, Any]:
    """The whole plan for JSON. `done_nbytes` bytes of its tensors exist already."""
    tensors = [
        {
            "name": tensor.name,
            "dtype": tensor.dtype.name,
            "shape": tensor.shape,
            "file": tensor.file,
            "extents": tensor.extents,
            "transform": tensor.transform.label,
            "rounded": tensor.rounded,
            "sources": [
                {"name": source.name, "dtype": source.dtype.name, "shape": source.shape, "file": source.file}
                for source in tensor.sources
            ],
        }
        for tensor in conversion.plan.tensors
    ]
    return {
        **summary(conversion),
        "disk_nbytes": conversion.disk_nbytes,
        "disk_free_nbytes": free_disk(conversion.output),
        "disk_occupied_nbytes": occupied_space(conversion.output),
        "done_nbytes": done_nbytes,
        "memory_nbytes": conversion.budget.nbytes,
        "workers": conversion.budget.workers,
        "tensors": tensors,
    }


def plan_text(conversion: Conversion, done_nbytes: int) -> str:
    """The plan as text. `done_nbytes` bytes of its tensors exist already."""
    plan, budget = conversion.plan, conversion.budget
    source = conversion.source.id if conversion.source.revision else conversion.source.folder
    lines = [f"{source}: {plan.architecture} to {_dtypes(plan)}, {plan.format}", "", "tensors"]
    lines += columns(_pattern_rows(plan), "><<<>")
    lines += ["", "shards", *columns(_shard_rows(plan), "<>><")]
    if plan.dropped:
        lines += ["", "dropped", *columns([(dropped.name, dropped.reason) for dropped in plan.dropped], "<<")]
    lines += [""] * bool(plan.rounded or plan.quantised) + _rounded_lines(plan)
    lines += [
        "",
        f"output  {_shown(conversion.output)}, {counted(len(plan.tensors), 'tensor')}",
        _disk_line(conversion),
        f"memory  at most {format_size(budget.nbytes)}, {counted(budget.workers, 'worker')}",
    ]
    if done_nbytes:
        lines.append(f"resume  {format_size(done_nbytes)} of {format_size(plan.nbytes)} are done already")
    return "\n".join(lines)


def _dtypes(plan: Plan) -> str:
    """The dtype of the output, and other dtypes in it."""
    others = Counter(tensor.dtype.name for tensor in plan.tensors if tensor.dtype.name != plan.dtype)
    if plan.dtype not in {dtype.name for dtype in FLOATING} or not others:  # codes and scales have other dtypes
        return plan.dtype
    named = ", ".join(f"{counted(count, 'tensor')} {name}" for name, count in others.items())
    return f"{plan.dtype} ({named})"


def _rounded_lines(plan: Plan) -> list[str]:
    """A line about the tensors that are rounded, and one for each encoding to which some are quantised."""
    parts = [f"{counted(each.count, 'tensor')} from {each.source} to {each.target}" for each in plan.rounded]
    lines = [f"rounded: {', '.join(parts)}; --dtype float32 keeps every value"] if parts else []
    lines += [f"quantised: {counted(count, 'matrix', 'matrices')} to {target}" for target, count in plan.quantised]
    return lines


def _disk_line(conversion: Conversion) -> str:
    needed, occupied = conversion.disk_nbytes, occupied_space(conversion.output)
    free = format_size(free_disk(conversion.output))
    line = f"disk    {format_size(needed)} needed, {free} free"
    return f"{line}, {format_size(occupied)} taken by an unfinished conversion" if occupied else line


def _shown(folder: Path) -> Path:
    """`folder` relative to the current folder, if possible."""
    here = Path.cwd().resolve()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _pattern_rows(plan: Plan) -> list[tuple[str, ...]]:
    transforms = {pattern_name(tensor.name): tensor.transform.label for tensor in plan.tensors}
    return [
        (
            str(pattern.count),
            pattern.name,
            f"{pattern.dtype.name} {list(pattern.shape)}",
            transforms[pattern.name],
            format_size(pattern.nbytes),
        )
        for pattern in summarise(plan.tensors)
    ]


def _shard_rows(plan: Plan) -> list[tuple[str, ...]]:
    counts = Counter(tensor.file for tensor in plan.tensors)
    return [
        (
            shard.file,
            counted(counts[shard.file], "tensor"),
            format_size(shard.layout.file_size),
            f"the source's {shard.source}, byte for byte" if shard.source else "",
        )
        for shard in plan.shards
    ]


def result_text(conversion: Conversion, seconds: float, verified: bool, resumed_nbytes: int) -> str:
    """The result as text, converted in `seconds`; earlier runs wrote `resumed_nbytes` bytes of it."""
    plan = conversion.plan
    rate = format_size(int((plan.nbytes - resumed_nbytes) / seconds))
    resumed = f", {format_size(resumed_nbytes)} of it earlier" if resumed_nbytes else ""
    lines = [
        f"{_shown(conversion.output)}: {plan.architecture}, {_dtypes(plan)}, {plan.format}",
        f"  {counted(len(plan.tensors), 'tensor')}, {format_size(plan.nbytes)} in {counted(len(plan.shards), 'shard')},"
        f" {seconds:.1f} s ({rate}/s){resumed}" + (", verified" if verified else ""),
    ]
    lines += [f"  {line}" for line in _rounded_lines(plan)]
    lines += [f"  dropped {dropped.name}: {dropped.reason}" for dropped in plan.dropped]
    if fetched := conversion.source.fetched:
        lines.append(f"  fetched {_fetched_line(fetched)}")
    return "\n".join(lines)


def _fetched_line(fetched: Mapping[str, str]) -> str:
    counts = Counter(fetched.values())
    by_hash = counts["sha256"] + counts["git"]
    parts = [f"{counted(by_hash, 'file')} whose hash is the Hub's"] if by_hash else []
    parts += [f"{counted(counts['length'], 'file')} checked by length and ETag"] if counts["length"] else []
    parts += [f"{counted(counts['no-hash'], 'file')} of which the Hub states no hash"] if counts["no-hash"] else []
    return ", ".join(parts)
