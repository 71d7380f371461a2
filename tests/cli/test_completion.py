"""What Tab offers: commands, options, families; folders and files are the shell's own."""

from __future__ import annotations

import pytest
from click.shell_completion import ShellComplete

from msport.cli import COMMANDS, cli


def offered(*words: str) -> list[tuple[str, str]]:
    """Value and kind of what is offered for the last of `words`."""
    *before, last = words
    complete = ShellComplete(cli, {}, "msport", "_MSPORT_COMPLETE")
    return [(item.value, item.type) for item in complete.get_completions(before, last)]


def test_commands_and_options_are_offered() -> None:
    assert offered("con") == [("convert", "plain")]
    assert {value for value, _ in offered("")} == set(COMMANDS)
    assert ("--max-memory", "plain") in offered("convert", "--max-m")


def test_families_are_offered() -> None:
    assert offered("sample", "gp") == [("gpt-oss", "plain")]
    assert len(offered("sample", "")) > 5


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("convert", "tin"), "dir"),
        (("convert", "tiny", "-o", "tin"), "dir"),
        (("validate", "tin"), "dir"),
        (("validate", "--reference", "tin"), "file"),
        (("generate", "tin"), "dir"),
        (("doctor", "tin"), "dir"),
        (("sample", "gpt-oss", "tin"), "dir"),
        (("inspect", "tin"), "file"),
        (("bench", "--compare", "tin"), "file"),
        (("bench", "--json", "tin"), "file"),
    ],
)
def test_folders_and_files_are_left_to_the_shell(words: tuple[str, ...], kind: str) -> None:
    assert offered(*words) == [("tin", kind)]
