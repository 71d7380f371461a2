"""``msport validate``."""

from __future__ import annotations

from typing import Any

import click

from msport.cli.completion import files, folders
from msport.cli.folders import find_folder
from msport.cli.interruption import telling
from msport.cli.outputs import check_outputs, write_report
from msport.cli.parameters import json_option, token_ids
from msport.cli.progress import ProgressBar

EXAMPLES = """\b
Examples:
  msport validate
  msport validate gpt-oss-20b-ms --reference ./gpt-oss-20b --tol 1e-3
  msport validate --level layers --max-length 4400 --html report.html
  msport validate --level weights --json - | jq .passed
  msport validate --dtype mxfp4 --ids 1,2,3 --ids 4,5
  msport validate qwen-int4 --original ./qwen --text book.txt --max-kl 0.05
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
    help="Folder or Hub id to compare with, or a file of --save-reference.  [default: what DIR was made from]",
)
@click.option(
    "--tol",
    type=float,
    help="Largest relative L2 error of a token.  [default: 1e-2; 2e-2 in float16, 1e-1 in bfloat16]",
)
@click.option(
    "--rule",
    type=click.Choice(["rounding", "tolerance"]),
    default="rounding",
    show_default=True,
    help="rounding: rounding must explain the errors, and every weight must match its source. tolerance: only --tol.",
)
@click.option(
    "--level",
    type=click.Choice(["logits", "layers", "weights"]),
    default="logits",
    show_default=True,
    help="Compare logits; or also every operation of every layer; or only every tensor with its source.",
)
@click.option(
    "--stream/--no-stream",
    default=None,
    help="Run both sides one layer at a time.  [default: if the model does not fit in memory]",
)
@click.option(
    "--max-length",
    type=int,
    metavar="N",
    help="Tokens of the longest prompt.  [default: more than the window and two prefill chunks]",
)
@click.option(
    "-p",
    "--prompt",
    "prompts",
    multiple=True,
    metavar="TEXT",
    help="Use this prompt instead of the default ones; may be repeated.",
)
@click.option(
    "--ids", multiple=True, metavar="1,2,3", callback=token_ids, help="Use this prompt of token ids; may be repeated."
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16", "mxfp4"]),
    help="Dtype of computation; mxfp4: the device's best, for packed weights.  [default: the device's best]",
)
@click.option(
    "--reference-dtype",
    type=click.Choice(["float32", "float16", "bfloat16", "model"]),
    default="float32",
    show_default=True,
    help="Dtype of computation of the reference; model: that of its weights.",
)
@click.option(
    "--save-reference",
    metavar="FILE",
    shell_complete=files,
    help="Save what the reference computed, for machines without torch.",
)
@click.option(
    "--original",
    metavar="MODEL",
    shell_complete=folders,
    help="Unquantised folder or Hub id, for the cost of int4 and int8.  [default: what DIR was made from]",
)
@click.option(
    "--text",
    metavar="FILE",
    shell_complete=files,
    help="Text for that cost and perplexity.  [default: the prompts given, else three short texts]",
)
@click.option(
    "--max-kl",
    type=float,
    metavar="NATS",
    help="Fail if the mean KL divergence from the original is larger.  [default: not judged]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random prompts.")
@json_option
@click.option(
    "--html", "html_file", metavar="FILE", shell_complete=files, help="Write the report as one self-contained page."
)
def command(
    folder: str | None,
    prompts: tuple[str, ...],
    ids: list[list[int]],
    json_file: str | None,
    html_file: str | None,
    **options: Any,
) -> int:
    """Compare the converted checkpoint in DIR with PyTorch, and say where they differ.

    DIR defaults to the current folder if that is a converted checkpoint, else to the newest one directly below it.
    """
    from msport.validate import validate_model
    from msport.validate.views.page import render_page

    checkpoint = find_folder(folder)
    check_outputs({"--json": json_file, "--html": html_file, "--save-reference": options["save_reference"]})
    with ProgressBar() as progress, telling(progress.where):
        report = validate_model(checkpoint, **options, prompts=[*prompts, *ids] or None, progress=progress)
    write_report(
        lambda: f"{report}\n", (json_file, lambda: f"{report.to_json()}\n"), (html_file, lambda: render_page(report))
    )
    return 0 if report.passed else 1
