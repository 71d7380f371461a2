"""``msport validate``."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from msport.cli.completion import files, folders
from msport.cli.folders import find_folder
from msport.cli.interruption import telling
from msport.cli.outputs import STDOUT, check_outputs, write_output
from msport.cli.parameters import json_option, token_ids
from msport.cli.progress import ProgressBar

if TYPE_CHECKING:
    from msport.validate import Report

EXAMPLES = """\b
Examples:
  msport validate
  msport validate gpt-oss-20b-ms --reference ./gpt-oss-20b --tol 1e-3
  msport validate --level layers --max-length 4400 --html report.html
  msport validate --level weights --json - | jq .passed
  msport validate --dtype mxfp4 --ids 1,2,3 --ids 4,5
  msport validate gpt-oss-20b-ms --save-reference golden.safetensors
  msport validate gpt-oss-20b-ms --reference golden.safetensors

\b
Exit status: 0 passed, 1 failed, 2 could not be judged.
"""


@click.command(epilog=EXAMPLES)
@click.argument("folder", metavar="[DIR]", required=False, shell_complete=folders)
@click.option(
    "--reference",
    metavar="MODEL|FILE",
    shell_complete=files,
    help="Folder or Hub id to compare with, or golden values of --save-reference.  [default: what DIR was made from]",
)
@click.option(
    "--tol",
    type=float,
    help="Relative L2 error that a token may have.  [default: 1e-2; 2e-2 in float16, 1e-1 in bfloat16]",
)
@click.option(
    "--rule",
    type=click.Choice(["rounding", "tolerance"]),
    default="rounding",
    show_default=True,
    help="Rounding must explain the error, and every weight be what its source makes it; or --tol alone decides.",
)
@click.option(
    "--level",
    type=click.Choice(["logits", "layers", "weights"]),
    default="logits",
    show_default=True,
    help="Compare logits; every operation of every layer too; or every tensor with its source, running nothing.",
)
@click.option(
    "--stream/--no-stream",
    default=None,
    help="Run both sides one layer at a time.  [default: where the model would not fit in memory]",
)
@click.option(
    "--max-length",
    type=int,
    metavar="N",
    help="Tokens of the longest prompt.  [default: past the window and two chunks]",
)
@click.option(
    "-p", "--prompt", "prompts", multiple=True, metavar="TEXT", help="Use this prompt instead; may be repeated."
)
@click.option(
    "--ids", multiple=True, metavar="1,2,3", callback=token_ids, help="Use these token ids instead; may be repeated."
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16", "mxfp4"]),
    help="What DIR computes in; mxfp4: experts packed.  [default: mxfp4 if DIR is, or the device's best]",
)
@click.option(
    "--reference-dtype",
    type=click.Choice(["float32", "float16", "bfloat16", "model"]),
    default="float32",
    show_default=True,
    help="What the reference computes in; model: what its weights are.",
)
@click.option(
    "--save-reference",
    metavar="FILE",
    shell_complete=files,
    help="Keep what the reference computed, for machines that have no torch.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random prompts.")
@json_option
@click.option(
    "--html", "html_file", metavar="FILE", shell_complete=files, help="Write the report as one self-contained page."
)
def command(
    folder: str | None,
    reference: str | None,
    tol: float | None,
    rule: Any,
    level: Any,
    stream: bool | None,
    max_length: int | None,
    prompts: tuple[str, ...],
    ids: list[list[int]],
    dtype: str | None,
    reference_dtype: str,
    save_reference: str | None,
    seed: int,
    json_file: str | None,
    html_file: str | None,
) -> int:
    """Compare the converted checkpoint in DIR with PyTorch, and say where they part.

    DIR is the current folder if that is a converted checkpoint, else the newest one directly below it.
    """
    from msport.validate import validate_model

    checkpoint = find_folder(folder)
    check_outputs({"--json": json_file, "--html": html_file, "--save-reference": save_reference})
    with ProgressBar() as progress, telling(progress.where):
        report = validate_model(
            checkpoint,
            reference,
            tol,
            level=level,
            rule=rule,
            dtype=dtype,
            reference_dtype=reference_dtype,
            stream=stream,
            prompts=[*prompts, *ids] or None,
            max_length=max_length,
            seed=seed,
            save_reference=save_reference,
            progress=progress,
        )
    _write(report, json_file, html_file)
    return 0 if report.passed else 1


def _write(report: Report, json_file: str | None, html_file: str | None) -> None:
    from msport.validate.views.html import render_html
    from msport.validate.views.text import render_text

    with ExitStack() as last:  # a file that cannot be written keeps neither the other one nor the verdict back
        last.callback(lambda: click.echo(report.to_json() if json_file == STDOUT else render_text(report)))
        last.callback(write_output, html_file, lambda: render_html(report))
        last.callback(write_output, json_file, lambda: report.to_json() + "\n")
