"""The help answers at once, shows examples, and its examples are real commands."""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib import import_module

import click
import pytest

from msport.cli import COMMANDS, main

# Modules that cost more than a tenth of a second to import, which `msport --help` must not need.
HEAVY = {"mindspore", "torch", "transformers", "numpy", "tokenizers", "huggingface_hub", "jinja2"}


def command(name: str) -> click.Command:
    found: click.Command = import_module(f"msport.cli.{name}").command
    return found


def examples(name: str) -> list[list[str]]:
    """The arguments after `msport NAME` of every example in the command's help, as a shell would split them."""
    text = command(name).get_help(click.Context(command(name), info_name=f"msport {name}"))
    lines = [line.strip() for line in text.partition("Examples:")[2].splitlines()]
    shown = [line.partition(" | ")[0].partition(" < ")[0] for line in lines if line.startswith("msport ")]
    return [shlex.split(line)[2:] for line in shown]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_with_examples_that_parse(name: str) -> None:
    found = examples(name)
    assert found, f"msport {name} --help shows no example"
    for arguments in found:
        command(name).make_context(f"msport {name}", list(arguments))


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "try:\n    from msport.cli import main; main(['--help'])\n"
        f"finally:\n    print('HEAVY', sorted({HEAVY!r} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "HEAVY []" in output
    for name, summary in COMMANDS.items():
        assert name in output
        assert summary in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["port"], "No such command 'port'; see msport --help"),
        (["convrt", "x"], "No such command 'convrt'. Did you mean 'convert'? See msport --help"),
        (["convert"], "Missing argument 'MODEL'; see msport convert --help"),
        (["convert", "x", "--dtype", "int3"], "Invalid value for '--dtype': 'int3' is not one of 'auto', "),
        (["generate", "--prompts", "x"], "No such option '--prompts'"),
        (["convert", "x", "--dtyp", "y"], "No such option '--dtyp'. Did you mean '--dtype'? See msport convert --help"),
    ],
)
def test_a_wrong_command_line_is_one_line_that_leads_to_the_help(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    out, err = capsys.readouterr()
    assert (end.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"msport: error: {message}")
    assert err.endswith(" --help\n")


def test_without_a_command_the_help_is_shown() -> None:
    done = subprocess.run([sys.executable, "-m", "msport"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Usage: msport [OPTIONS] COMMAND" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
