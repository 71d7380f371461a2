"""``msport bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from msport.checkpoint import write_atomically
from msport.cli.folders import find_folder
from msport.cli.validate import PhaseBar
from msport.errors import OutputError

if TYPE_CHECKING:
    from msport.bench import BenchReport

EXAMPLES = """\b
Examples:
  msport bench
  msport bench gpt-oss-20b-ms --prompt 512 --new-tokens 128 --repeats 10
  msport bench --baseline torch --json report.json
  msport bench --json - | jq '.sessions[0].results[0].decode_seconds.p50'
"""


@click.command(epilog=EXAMPLES)
@click.argument("folder", metavar="[DIR]", required=False)
@click.option("--prompt", "prompt_tokens", type=int, default=128, show_default=True, help="Tokens of each prompt.")
@click.option("--new-tokens", type=int, default=64, show_default=True, help="Tokens generated after each prompt.")
@click.option("--batch", type=int, default=1, show_default=True, help="Sequences that run together.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="What DIR computes in.  [default: the device's best]",
)
@click.option(
    "--max-length", type=int, metavar="N", help="Positions the caches hold.  [default: prompt and new tokens]"
)
@click.option("--warmup", type=int, default=2, show_default=True, help="Runs before the measured ones.")
@click.option("--repeats", type=int, default=5, show_default=True, help="Measured runs; two or more show the spread.")
@click.option(
    "--threads", type=int, metavar="N", help="Processors that every process may use.  [default: all it may use]"
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random prompts.")
@click.option(
    "--baseline",
    type=click.Choice(["torch"]),
    help="Also measure Transformers in float32, with the same weights and processors, and print ratios.",
)
@click.option(
    "--reference", metavar="MODEL", help="Folder or Hub id for --baseline.  [default: what DIR was made from]"
)
@click.option("--json", "json_file", metavar="FILE", help="Write the report as JSON; - prints it instead of the text.")
def command(
    folder: str | None,
    prompt_tokens: int,
    new_tokens: int,
    batch: int,
    dtype: str | None,
    max_length: int | None,
    warmup: int,
    repeats: int,
    threads: int | None,
    seed: int,
    baseline: str | None,
    reference: str | None,
    json_file: str | None,
) -> None:
    """Measure the converted checkpoint in DIR: loading, compiling, prefill, decoding, memory.

    Every figure is measured, in processes of their own, and set beside the machine's memory bandwidth and speed of
    matrix products from the same run. docs/benchmarking.md says what each one means.
    DIR is the current folder if that is a converted checkpoint, else the newest one directly below it.
    """
    from msport.bench import benchmark

    checkpoint = find_folder(folder)
    if json_file not in (None, "-") and not Path(str(json_file)).absolute().parent.is_dir():
        raise OutputError(f"{json_file}: its folder does not exist; make it first")
    with PhaseBar() as progress:
        report = benchmark(
            checkpoint,
            prompt_tokens=prompt_tokens,
            new_tokens=new_tokens,
            batch=batch,
            dtype=dtype,
            max_length=max_length,
            warmup=warmup,
            repeats=repeats,
            threads=threads,
            seed=seed,
            baseline=baseline,
            reference=reference,
            progress=progress,
        )
    _write(report, json_file)


def _write(report: BenchReport, json_file: str | None) -> None:
    click.echo(report.to_json() if json_file == "-" else str(report))
    if json_file is not None and json_file != "-":
        write_atomically(Path(json_file), report.to_json() + "\n")
