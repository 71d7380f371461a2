"""Options that several commands share."""

from __future__ import annotations

import click

from msport.convert.sizes import parse_size


def size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Callback of an option that is a size, such as 5GB or 400MB."""
    return None if value is None else parse_size(value)
