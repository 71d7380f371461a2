"""``msport convert``."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click

from msport.cli.parameters import size
from msport.cli.progress import ProgressBar
from msport.cli.tables import counted, table
from msport.convert import Conversion, Plan, format_size, prepare, run
from msport.convert.budget import MAX_MEMORY
from msport.convert.patterns import pattern_name, summarise
from msport.convert.plan import DTYPES, FORMATS, MAX_SHARD_SIZE
from msport.convert.staging import check_space, free_space
from msport.hub import DEFAULT_HUB, HUBS

EXAMPLES = """\b
Examples:
  msport convert openai/gpt-oss-20b
  msport convert openai-mirror/gpt-oss-20b --source modelscope
  msport convert ./gpt-oss-20b -o gpt-oss-20b-ms --dtype float16 --verify
  msport convert openai/gpt-oss-20b --dtype mxfp4 --format ckpt --max-shard-size 1GB
  msport convert ./gpt-oss-20b --dry-run
"""


@click.command(epilog=EXAMPLES)
@click.argument("model")
@click.option(
    "-o", "--output", metavar="DIR", help="Folder to write; absent or empty.  [default: MODEL's name with -ms]"
)
@click.option(
    "--dtype",
    type=click.Choice(list(DTYPES)),
    default="bfloat16",
    show_default=True,
    help="What floating tensors become. mxfp4: packed experts stay packed, the rest becomes bfloat16.",
)
@click.option("--format", "file_format", type=click.Choice(list(FORMATS)), default="safetensors", show_default=True)
@click.option(
    "--max-shard-size",
    metavar="SIZE",
    callback=size,
    default=MAX_SHARD_SIZE,
    show_default=True,
    help="Bytes of tensors in a file.",
)
@click.option(
    "--max-memory",
    metavar="SIZE",
    callback=size,
    default=MAX_MEMORY,
    show_default=True,
    help="Bound of the process's resident memory.",
)
@click.option("--workers", type=int, help="Tensors converted at once.  [default: one a core, at most 4]")
@click.option("--revision", help="Branch, tag or commit of a Hub repository.")
@click.option("--source", type=click.Choice(HUBS), default=DEFAULT_HUB, show_default=True, help="Hub that has MODEL.")
@click.option("--keep-source", is_flag=True, help="Download MODEL into the Hub's cache first, instead of streaming it.")
@click.option("--verify", is_flag=True, help="Read the result back, and recompute it, before it appears.")
@click.option("--dry-run", is_flag=True, help="Print the plan, the disk and the memory it needs; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def command(
    model: str,
    output: str | None,
    dtype: str,
    file_format: str,
    max_shard_size: int,
    max_memory: int,
    workers: int | None,
    revision: str | None,
    source: str,
    keep_source: bool,
    verify: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Convert MODEL, a folder or a Hub id, to a checkpoint that MindSpore loads.

    Weights stream through a bounded amount of memory, from a Hub without being stored. The folder appears under its
    name when it is complete.
    """
    conversion = prepare(
        model,
        output,
        dtype=dtype,
        format=file_format,
        max_shard_size=max_shard_size,
        max_memory=max_memory,
        workers=workers,
        revision=revision,
        source=source,
        keep_source=keep_source,
    )
    if dry_run:
        click.echo(json.dumps(_plan_document(conversion), indent=2) if as_json else _plan_text(conversion))
        check_space(conversion.output, conversion.disk_nbytes)
        return
    start = time.perf_counter()
    with ProgressBar() as progress:
        run(conversion, verify=verify, progress=progress)
    seconds = time.perf_counter() - start
    if as_json:
        click.echo(json.dumps({**_summary(conversion), "seconds": round(seconds, 3), "verified": verify}, indent=2))
    else:
        click.echo(_result_text(conversion, seconds, verify))


def _summary(conversion: Conversion) -> dict[str, Any]:
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
        "shards": [{"file": shard.file, "nbytes": shard.layout.file_size} for shard in plan.shards],
        "dropped": [{"name": dropped.name, "reason": dropped.reason} for dropped in plan.dropped],
    }


def _plan_document(conversion: Conversion) -> dict[str, Any]:
    tensors = [
        {
            "name": tensor.name,
            "dtype": tensor.dtype.name,
            "shape": tensor.shape,
            "file": tensor.file,
            "extents": tensor.extents,
            "transform": tensor.transform,
            "rounded": tensor.rounded,
            "sources": [
                {"name": source.name, "dtype": source.dtype.name, "shape": source.shape, "file": source.file}
                for source in tensor.sources
            ],
        }
        for tensor in conversion.plan.tensors
    ]
    return {
        **_summary(conversion),
        "disk_nbytes": conversion.disk_nbytes,
        "disk_free_nbytes": free_space(conversion.output),
        "memory_nbytes": conversion.budget.nbytes,
        "workers": conversion.budget.workers,
        "tensors": tensors,
    }


def _plan_text(conversion: Conversion) -> str:
    plan, budget = conversion.plan, conversion.budget
    source = conversion.source.id if conversion.source.revision else conversion.source.folder
    lines = [f"{source}: {plan.architecture} to {plan.dtype}, {plan.format}", "", "tensors"]
    lines += table(_pattern_rows(plan), "><<<>")
    lines += ["", "shards", *table(_shard_rows(plan), "<>>")]
    if plan.dropped:
        lines += ["", "dropped", *table([(dropped.name, dropped.reason) for dropped in plan.dropped], "<<")]
    if rounded := sum(tensor.rounded for tensor in plan.tensors):
        lines += ["", f"rounded to {plan.dtype}: {counted(rounded, 'tensor')}"]
    lines += [
        "",
        f"output  {_shown(conversion.output)}, {counted(len(plan.tensors), 'tensor')}",
        f"disk    {format_size(conversion.disk_nbytes)} needed, {format_size(free_space(conversion.output))} free",
        f"memory  at most {format_size(budget.nbytes)}, {counted(budget.workers, 'worker')}",
    ]
    return "\n".join(lines)


def _shown(folder: Path) -> Path:
    """`folder` as a user in the current folder would write it."""
    here = Path.cwd().resolve()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _pattern_rows(plan: Plan) -> list[tuple[str, ...]]:
    transforms = {pattern_name(tensor.name): tensor.transform for tensor in plan.tensors}
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
        (shard.file, counted(counts[shard.file], "tensor"), format_size(shard.layout.file_size))
        for shard in plan.shards
    ]


def _result_text(conversion: Conversion, seconds: float, verified: bool) -> str:
    plan = conversion.plan
    rate = format_size(int(plan.nbytes / seconds))
    lines = [
        f"{_shown(conversion.output)}: {plan.architecture}, {plan.dtype}, {plan.format}",
        f"  {counted(len(plan.tensors), 'tensor')}, {format_size(plan.nbytes)} in {counted(len(plan.shards), 'shard')},"
        f" {seconds:.1f} s ({rate}/s)" + (", verified" if verified else ""),
    ]
    lines += [f"  dropped {dropped.name}: {dropped.reason}" for dropped in plan.dropped]
    return "\n".join(lines)
