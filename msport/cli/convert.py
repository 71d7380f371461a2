"""``msport convert``."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from msport.cli.completion import folders
from msport.cli.convert_text import plan_document, plan_text, result_text, summary
from msport.cli.parameters import refuse_given, size
from msport.cli.progress import bytes_on_stderr
from msport.cli.resuming import resumable
from msport.convert import Options, prepare, run
from msport.convert.budget import MAX_MEMORY
from msport.convert.conversion import check_disk, find_unfinished
from msport.convert.plan import AUTO, DTYPES, GROUP_SIZE, HEADS, MAX_SHARD_SIZE
from msport.convert.resume import done_nbytes
from msport.convert.shards import FORMATS
from msport.hub import DEFAULT_HUB, HUBS

EXAMPLES = """\b
Examples:
  msport convert openai/gpt-oss-20b
  msport convert openai-mirror/gpt-oss-20b --source modelscope
  msport convert ./gpt-oss-20b -o gpt-oss-20b-ms --dtype float16 --verify
  msport convert openai/gpt-oss-20b --dtype mxfp4 --format ckpt --max-shard-size 1GB
  msport convert Qwen/Qwen2.5-14B-Instruct --dtype int4
  msport convert ./gpt-oss-20b --dry-run
"""


@click.command(epilog=EXAMPLES)
@click.argument("model", shell_complete=folders)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    shell_complete=folders,
    help="Folder to write; new or empty.  [default: MODEL's name with -ms]",
)
@click.option(
    "--dtype",
    type=click.Choice(list(DTYPES)),
    default=AUTO,
    show_default=True,
    help="How weights are stored. auto: unchanged; MXFP4 and FP8 are decoded to bfloat16; GPTQ, AWQ and"
    " compressed-tensors stay packed. mxfp4: packed experts stay packed, everything else becomes bfloat16. int8, int4:"
    " linear layers and experts are quantised, everything else is unchanged.",
)
@click.option(
    "--group-size",
    type=int,
    default=GROUP_SIZE,
    show_default=True,
    help="With int8 and int4: inputs that share a scale, a multiple of 32.",
)
@click.option(
    "--zero-points", is_flag=True, help="With int8 and int4: a zero point per group, instead of symmetric codes."
)
@click.option(
    "--head",
    type=click.Choice(HEADS),
    default=AUTO,
    show_default=True,
    help="int8: quantise the head too (the embedding, if it is the head). auto: as it is.",
)
@click.option(
    "--format",
    type=click.Choice(list(FORMATS)),
    default="safetensors",
    show_default=True,
    help="Format of the weights. MindSpore memory-maps safetensors, but reads a whole .ckpt file.",
)
@click.option(
    "--max-shard-size",
    metavar="SIZE",
    callback=size,
    default=MAX_SHARD_SIZE,
    show_default=True,
    help="Largest size of the tensors in one file.",
)
@click.option(
    "--max-memory",
    metavar="SIZE",
    callback=size,
    default=MAX_MEMORY,
    show_default=True,
    help="Largest resident memory of the process.",
)
@click.option("--workers", type=int, help="Tensors converted at the same time.  [default: one per core, at most 4]")
@click.option("--revision", help="Branch, tag or commit of a Hub repository.")
@click.option("--source", type=click.Choice(HUBS), help=f"Hub to get MODEL from.  [default: {DEFAULT_HUB}]")
@click.option("--keep-source", is_flag=True, help="Download MODEL into the Hub's cache first, instead of streaming it.")
@click.option(
    "--verify",
    is_flag=True,
    help="Read the result back and compute it again from the source (a streamed one is downloaded again) before it"
    " appears.",
)
@click.option("--restart", is_flag=True, help="Discard what an interrupted conversion left, and start over.")
@click.option("--dry-run", is_flag=True, help="Print the plan and the disk and memory that it needs; write nothing.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON document instead of text, and progress on stderr as JSON lines.",
)
def command(
    model: str,
    output: str | None,
    verify: bool,
    restart: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Convert MODEL, a folder or a Hub id, to a checkpoint that MindSpore loads.

    Weights stream through a bounded amount of memory; weights from a Hub are not stored. The folder appears under its
    name when it is complete.

    Until then msport writes to a hidden folder next to it, .NAME.msport-partial. After an interruption (an error, a
    full disk, Ctrl-C, kill -9, a power failure), run the same command again to resume. To start over, add --restart or
    remove the hidden folder.
    """
    if dry_run:
        refuse_given("--dry-run writes nothing", "verify", "keep_source")
    conversion = prepare(model, output, Options(**options))
    resumed = 0 if restart else done_nbytes(find_unfinished(conversion), conversion.plan)
    if dry_run:
        plan = plan_document(conversion, resumed) if as_json else None
        click.echo(json.dumps(plan, indent=2) if plan else plan_text(conversion, resumed))
        check_disk(conversion)
        return
    start = time.perf_counter()
    with resumable(conversion), bytes_on_stderr(as_json) as progress:
        run(conversion, verify=verify, restart=restart, progress=progress)
    seconds = time.perf_counter() - start
    if as_json:
        fetched = conversion.source.fetched
        made = {"seconds": round(seconds, 3), "resumed_nbytes": resumed, "verified": verify, "fetched": fetched}
        click.echo(json.dumps({**summary(conversion), **made}, indent=2))
    else:
        click.echo(result_text(conversion, seconds, verify, resumed))
