"""Options that several commands share."""

from __future__ import annotations

import click

from msport.cli.completion import files
from msport.errors import UsageError
from msport.sizing.units import parse_size

json_option = click.option(
    "--json",
    "json_file",
    metavar="FILE",
    shell_complete=files,
    help="Write the report as JSON; - prints it instead of the text.",
)


def size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Click callback for a size such as 5GB or 400MB; returns bytes."""
    return None if value is None else parse_size(value)


def parse_ids(text: str) -> list[int]:
    """Token ids from ``1,2,3``."""
    try:
        return [int(token) for token in text.split(",")]
    except ValueError:
        raise UsageError(f"--ids {text}: write token ids with commas between them, as in --ids 1,2,3") from None


def token_ids(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> list[list[int]]:
    """Click callback for a repeatable option of token ids."""
    return [parse_ids(text) for text in value]


def refuse_given(why: str, *names: str) -> None:
    """Raises `UsageError` if one of the parameters `names` was given in this call, because it would be ignored."""
    if options := given(*names):
        raise UsageError(f"{why}: {', '.join(options)} would be ignored; leave that out")


def refuse_others(why: str, *names: str) -> None:
    """The same for every parameter of this call except `names`."""
    others = [str(parameter.name) for parameter in click.get_current_context().command.params]
    refuse_given(why, *(name for name in others if name not in names))


def given(*names: str) -> list[str]:
    """The parameters in `names` that were given in this call, as options."""
    context = click.get_current_context()
    options = {str(parameter.name): max(parameter.opts, key=len) for parameter in context.command.params}
    default = click.core.ParameterSource.DEFAULT
    return [options[name] for name in names if context.get_parameter_source(name) is not default]
