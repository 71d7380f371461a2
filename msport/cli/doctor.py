"""``msport doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from msport.cli.completion import folders
from msport.cli.interruption import telling
from msport.cli.parameters import refuse_given
from msport.report.formatting import counted

if TYPE_CHECKING:
    from msport.doctor import Check

EXAMPLES = """\b
Examples:
  msport doctor
  msport doctor gpt-oss-20b-ms --max-length 16384 --batch 4
  msport doctor --json | jq '.checks[] | select(.status != "pass")'
  msport doctor --ascend gpt-oss-20b-ms

\b
Exit status: 0 nothing failed, 1 a check failed.
"""


@click.command(epilog=EXAMPLES)
@click.argument("folder", metavar="[DIR]", required=False, shell_complete=folders)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16", "mxfp4"]),
    help="Dtype of computation; mxfp4: the device's best, for packed weights.  [default: the device's best]",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=1),
    default=4096,
    show_default=True,
    metavar="N",
    help="Length of the KV caches, in tokens.",
)
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Sequences in a batch.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="Time after which a check that hangs fails.",
)
@click.option("--ascend", is_flag=True, help="Only build the Ascend graphs of DIR's config.json, on any machine.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def command(
    folder: str | None, dtype: str | None, max_length: int, batch: int, timeout: float, ascend: bool, as_json: bool
) -> int:
    """Check this machine: versions, device, CANN, memory, disk, compiler, and a small step of training.

    With DIR, a converted checkpoint, also check that it is complete and fits this machine. Each line passes, warns or
    fails, and says what to do. With --ascend, check instead that MindSpore accepts the graphs that an Ascend NPU would
    run, and print which of their parts are fused operators. This needs no NPU, reads no weights and measures nothing.
    """
    from msport.doctor import diagnose

    if ascend:
        return _check_ascend(folder, dtype, max_length, batch, timeout, as_json)
    if folder is None:
        refuse_given("without DIR no model is fitted", "max_length", "batch")
    made: list[Check] = []

    def note(check: Check) -> None:
        made.append(check)
        if not as_json:
            click.echo(check)

    with telling(lambda: f" after {counted(len(made), 'check')}"):
        diagnosis = diagnose(folder, dtype=dtype, max_length=max_length, batch=batch, timeout=timeout, report=note)
    click.echo(diagnosis.to_json() if as_json else diagnosis.counts)
    return 0 if diagnosis.passed else 1


def _check_ascend(
    folder: str | None, dtype: str | None, max_length: int, batch: int, timeout: float, as_json: bool
) -> int:
    from msport.doctor.ascend_graphs import diagnose_ascend
    from msport.errors import UsageError

    if folder is None:
        raise UsageError("--ascend needs DIR, a folder with a model's config.json")
    diagnosis = diagnose_ascend(folder, dtype=dtype, max_length=max_length, batch=batch, timeout=timeout)
    click.echo(diagnosis.to_json() if as_json else diagnosis)
    return 0 if diagnosis.passed else 1
