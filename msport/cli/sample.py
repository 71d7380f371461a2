"""``msport sample``."""

from __future__ import annotations

from typing import Any

import click

from msport.architectures import ARCHITECTURES
from msport.checkpoint import strict_json
from msport.cli.completion import families, folders
from msport.cli.parameters import size
from msport.cli.progress import bytes_on_stderr
from msport.convert import inspect_path
from msport.errors import UsageError
from msport.report.formatting import counted
from msport.sample import write_sample
from msport.sample.write import DTYPES
from msport.sizing.units import format_size

EXAMPLES = """\b
Examples:
  msport sample gpt-oss tiny-gpt-oss
  msport sample gpt-oss tiny-gpt-oss --seed 1 --dtype bfloat16
  msport sample qwen3-moe tiny-qwen3-moe
  msport sample gpt-oss small-gpt-oss --set num_hidden_layers=8 --set hidden_size=256
"""


def _overrides(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """Fields of config.json from NAME=VALUE with the value in JSON."""
    fields: dict[str, Any] = {}
    for value in values:
        name, _, text = value.partition("=")
        if name in fields:
            raise UsageError(f"--set {name} is given twice, and only one could be; leave the other out")
        try:
            fields[name] = strict_json.parse(text.encode(), max_digits=strict_json.MAX_SETTING_DIGITS)
        except ValueError:
            raise UsageError(f"--set {value}: write NAME=VALUE, the value in JSON as in config.json") from None
    return fields


FAMILIES = ", ".join(family.title.lower() for family in ARCHITECTURES.values())


@click.command(
    epilog=EXAMPLES,
    help=f"Write a tiny random checkpoint of FAMILY to DIR, in the Hub's exact layout.\n\nFAMILY is one of {FAMILIES}.",
)
@click.argument("architecture", metavar="FAMILY", shell_complete=families)
@click.argument("folder", metavar="DIR", shell_complete=folders)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the weights.")
@click.option(
    "--dtype", type=click.Choice(list(DTYPES)), help="Dtype of the weights.  [default: as the family ships them]"
)
@click.option(
    "--set",
    "overrides",
    metavar="NAME=VALUE",
    callback=_overrides,
    multiple=True,
    help="Replace a field of config.json, the value in JSON; may be repeated.",
)
@click.option(
    "--max-shard-size",
    metavar="SIZE",
    callback=size,
    help="Largest size of the tensors in one file.  [default: a quarter of all]",
)
def command(
    architecture: str,
    folder: str,
    seed: int,
    dtype: str | None,
    overrides: dict[str, Any],
    max_shard_size: int | None,
) -> None:
    with bytes_on_stderr(as_json=False) as progress:
        write_sample(
            architecture,
            folder,
            seed=seed,
            overrides=overrides,
            dtype=dtype,
            max_shard_size=max_shard_size,
            progress=progress,
        )
    written = inspect_path(folder)
    shards = counted(len(set(written.files.values())), "shard")
    click.echo(
        f"{folder}: {written.architecture}, {written.parameters:,} parameters,"
        f" {len(written.tensors)} tensors, {format_size(written.nbytes)} in {shards}"
    )
