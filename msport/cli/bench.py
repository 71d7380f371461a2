"""``msport bench``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from msport.cli.completion import files, folders
from msport.cli.folders import find_folder
from msport.cli.interruption import telling
from msport.cli.outputs import STDOUT, check_outputs, write_report
from msport.cli.parameters import json_option, refuse_given, refuse_others
from msport.cli.progress import ProgressBar
from msport.errors import UsageError

EXAMPLES = """\b
Examples:
  msport bench
  msport bench gpt-oss-20b-ms --prompt 512 --new-tokens 128 --repeats 10
  msport bench --batch 1,2,4 --prompt 64,128,256,512 --dtype float32,float16 --html grid.html
  msport bench --suite mixed --baseline torch --published --json report.json
  msport bench --compare before.json after.json
  msport bench --json - | jq '.sessions[0].results[0].decode_seconds.p50'
"""

_DTYPES = ("float32", "float16", "bfloat16", "mxfp4")


class Several(click.ParamType):  # type: ignore[type-arg]
    """One or more values, separated by commas."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        try:
            return tuple(self._parse(each.strip()) for each in str(value).split(","))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("give whole numbers from 1 up, separated by commas")
    return int(text)


def _dtype(text: str) -> str:
    if text not in _DTYPES:
        raise ValueError(f"give some of {', '.join(_DTYPES)}, separated by commas")
    return text


@click.command(epilog=EXAMPLES)
@click.argument("paths", metavar="[DIR]", nargs=-1, shell_complete=files)
@click.option(
    "--suite",
    type=click.Choice(["mixed", "grid", "prefill-decode", "memory"]),
    help="A set of workloads; the options below change it.",
)
@click.option(
    "--prompt", "prompt_tokens", type=Several("N,...", _number), help="Tokens of each prompt.  [default: 128]"
)
@click.option("--new-tokens", type=int, metavar="N", help="Tokens generated after each prompt.  [default: 64]")
@click.option("--batch", type=Several("N,...", _number), help="Sequences in a batch.  [default: 1]")
@click.option(
    "--dtype",
    type=Several("DTYPE,...", _dtype),
    help="Dtype of computation; mxfp4: the device's best, for packed weights.  [default: the device's best]",
)
@click.option(
    "--max-length",
    type=int,
    metavar="N",
    help="Length of the KV caches, or the longest context of --suite memory.  [default: as needed]",
)
@click.option("--warmup", type=int, metavar="N", help="Warm-up runs in each process.  [default: 2]")
@click.option("--repeats", type=int, metavar="N", help="Measured runs; two or more show the spread.  [default: 5]")
@click.option("--processes", type=int, metavar="N", help="Processes that share the measured runs.  [default: 2]")
@click.option("--threads", type=int, metavar="N", help="Processors that each process may use.  [default: all]")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random prompts.")
@click.option(
    "--baseline",
    type=click.Choice(["torch"]),
    help="Also measure Transformers in float32, with the same weights and processors, and print ratios.",
)
@click.option(
    "--reference",
    metavar="MODEL",
    shell_complete=folders,
    help="Folder or Hub id for --baseline.  [default: what DIR was made from]",
)
@click.option("--published", is_flag=True, help="Also print figures that others published about this model.")
@click.option("--compare", is_flag=True, help="Compare two or more JSON reports instead: --compare A.json B.json ...")
@json_option
@click.option(
    "--csv",
    "csv_file",
    metavar="FILE",
    shell_complete=files,
    help="Write the figures as CSV; - prints them instead of the text.",
)
@click.option(
    "--html",
    "html_file",
    metavar="FILE",
    shell_complete=files,
    help="Write the report as one self-contained page with charts.",
)
def command(
    paths: tuple[str, ...],
    published: bool,
    compare: bool,
    json_file: str | None,
    csv_file: str | None,
    html_file: str | None,
    **options: Any,
) -> None:
    """Measure the converted checkpoint in DIR: loading, compiling, prefill, decoding, memory.

    Each figure is measured in separate processes, and compared with the memory bandwidth and the speed of matrix
    products that the same run measures. Options with several values, separated by commas, measure all combinations.
    docs/benchmarking.md explains each figure. DIR defaults to the current folder if that is a converted checkpoint,
    else to the newest one directly below it.
    """
    outputs = {"--json": json_file, "--csv": csv_file, "--html": html_file}
    check_outputs(outputs, printable=("--json", "--csv"), read=paths if compare else ())
    if compare:
        refuse_others("--compare measures nothing", "paths", "compare", "json_file", "csv_file", "html_file")
        _compare(paths, json_file, csv_file, html_file)
        return
    _refuse_without_effect(options["suite"], options["baseline"], outputs)
    if len(paths) > 1:
        raise UsageError(f"bench takes one folder, not {len(paths)}; --compare takes several reports")
    from msport.bench import benchmark
    from msport.bench.text import render_text

    checkpoint = find_folder(paths[0] if paths else None)
    with ProgressBar() as progress, telling(progress.where):
        report = benchmark(checkpoint, **options, progress=progress)
    write_report(
        lambda: f"{render_text(report, published)}\n",
        (json_file, lambda: f"{report.to_json()}\n"),
        (csv_file, report.to_csv),
        (html_file, lambda: report.to_html(published)),
    )


def _refuse_without_effect(suite: str | None, baseline: str | None, outputs: Mapping[str, str | None]) -> None:
    if baseline is None:
        refuse_given("only --baseline torch has a reference", "reference")
    if suite == "mixed":
        refuse_given("the prompts of --suite mixed are texts", "prompt_tokens", "seed")
    if STDOUT in outputs.values() and outputs["--html"] is None:
        refuse_given("JSON and CSV cannot hold published figures", "published")


def _compare(paths: Sequence[str], json_file: str | None, csv_file: str | None, html_file: str | None) -> None:
    from msport.bench.compare import compare_files
    from msport.bench.compare_views import render_comparison, render_comparison_page

    if len(paths) < 2:
        raise UsageError("--compare needs two or more reports that msport bench --json wrote")
    if csv_file is not None:
        raise UsageError("--compare writes no CSV; take --json or --html")
    comparison = compare_files([Path(path) for path in paths])
    write_report(
        lambda: f"{render_comparison(comparison)}\n",
        (json_file, lambda: f"{comparison.to_json()}\n"),
        (html_file, lambda: render_comparison_page(comparison)),
    )
