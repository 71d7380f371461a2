"""What a shell offers after Tab: folders, files and families. click itself offers commands and options."""

from __future__ import annotations

from click import Context, Parameter
from click.shell_completion import CompletionItem


def folders(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """The shell's own completion of folders."""
    return [CompletionItem(incomplete, type="dir")]


def files(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """The shell's own completion of files and folders."""
    return [CompletionItem(incomplete, type="file")]


def families(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """The families that `msport sample` can write."""
    from msport.architectures import ARCHITECTURES

    titles = (family.title.lower() for family in ARCHITECTURES.values())
    return [CompletionItem(title) for title in titles if title.startswith(incomplete.lower())]
