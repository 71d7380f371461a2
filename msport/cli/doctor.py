"""``msport doctor``."""

from __future__ import annotations

import click

EXAMPLES = """\b
Examples:
  msport doctor
  msport doctor gpt-oss-20b-ms --max-length 16384 --batch 4
  msport doctor --json | jq '.checks[] | select(.status != "pass")'

\b
Exit status: 0 nothing failed, 1 a check failed.
"""


@click.command(epilog=EXAMPLES)
@click.argument("folder", metavar="[DIR]", required=False)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="What DIR would compute in.  [default: the device's best]",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=1),
    default=4096,
    show_default=True,
    metavar="N",
    help="Tokens that DIR's caches would hold.",
)
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Sequences that run together.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="After which a check that hangs has failed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def command(folder: str | None, dtype: str | None, max_length: int, batch: int, timeout: float, as_json: bool) -> int:
    """Check this machine: versions, device, CANN, memory, disk, compiler, and a small step of training.

    With DIR, a converted checkpoint, also whether that is whole and fits this machine. Each line passes, warns or
    fails, and says what to do.
    """
    from msport.doctor import diagnose

    diagnosis = diagnose(
        folder,
        dtype=dtype,
        max_length=max_length,
        batch=batch,
        timeout=timeout,
        report=None if as_json else click.echo,
    )
    click.echo(diagnosis.to_json() if as_json else diagnosis.counts)
    return 0 if diagnosis.passed else 1
