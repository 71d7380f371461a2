"""The command line: one thin file per command. Parses, calls, prints."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import traceback
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from msport import __version__
from msport.cli.interruption import Interruption
from msport.cli.streams import open_closed_streams
from msport.errors import MsportError

# Name and one-line help of each command. `msport --help` reads these and imports no command.
COMMANDS = {
    "convert": "Stream a Hub checkpoint into a MindSpore checkpoint.",
    "inspect": "Show what a checkpoint holds; reads only headers.",
    "validate": "Compare a converted model with PyTorch.",
    "generate": "Generate text with a converted model.",
    "bench": "Measure loading, compilation, prefill and decoding.",
    "doctor": "Check this machine: versions, device, memory, a training step.",
    "sample": "Write a tiny random checkpoint in the Hub's exact layout.",
}

EPILOG = """\b
Example: msport convert openai/gpt-oss-20b && msport validate --tol 1e-2
Tab completion: eval "$(_MSPORT_COMPLETE=bash_source msport)"; also zsh_source, fish_source
"""

_SHORT_HELP_WIDTH = 80
_PARAMETER = re.compile(r"`\w+` \((--?[\w-]+)\)")  # as msport.errors.parameter writes it


class CommandGroup(click.Group):
    """Imports a command's module only when that command runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"msport.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Ends quietly if the reader of stdout goes away, as `| head` does; click's exit code 1 means "failed" here."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            with suppress(OSError, ValueError), open(os.devnull, "wb") as nothing:
                os.dup2(nothing.fileno(), sys.stdout.fileno())  # for what Python writes on its way out
            raise SystemExit(128 + signal.SIGPIPE) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            near = get_close_matches(name, COMMANDS, n=1)
            meant = f" Did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"No such command '{name}'.{meant}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()), col_max=_SHORT_HELP_WIDTH)


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
)
@click.version_option(__version__, prog_name="msport")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Port open language models to MindSpore: convert, validate, generate, benchmark."""


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line. Every error that a user can cause becomes one line on stderr and exit code 2."""
    open_closed_streams()
    own_process = arguments is None
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    with Interruption(quiet=not debug) as interruption:
        status = _run(arguments, debug, interruption)
    if own_process and interruption.number is not None and any(name.startswith("mindspore.") for name in sys.modules):
        sys.stdout.flush()
        os._exit(status)  # a half imported MindSpore, or one that runs a graph, aborts when Python shuts down
    sys.exit(status)


def _run(arguments: list[str], debug: bool, interruption: Interruption) -> int:
    """Runs the command and returns its exit code."""
    try:
        status: Any = cli.main(args=arguments, prog_name="msport", standalone_mode=False, obj=interruption)
        return status if isinstance(status, int) else 0
    except click.ClickException as error:
        _show(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return interruption.tell()
    except Exception as error:
        if interruption.number is not None:  # MindSpore or a worker raised it because of the interruption
            return interruption.tell()
        if debug:
            traceback.print_exc()
        click.echo(f"msport: error: {describe(error)}", err=True)
        return 2


def _show(error: click.ClickException) -> None:
    """Shows a wrong command line as one line; for `msport` without a command, shows the help."""
    message = error.format_message()
    if "\n" in message:
        error.show()
        return
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "msport"
    end = " See" if message.endswith("?") else "; see"
    click.echo(f"msport: error: {message.rstrip('.')}{end} {path} --help", err=True)


def describe(error: Exception) -> str:
    """One line for `error`, with the remedy if the cause is known."""
    if isinstance(error, MsportError):
        return str(_PARAMETER.sub(r"\1", _one_line(error)))
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{error.filename or 'the output'}: the disk is full; free space or choose another folder with -o"
    if isinstance(error, OSError) and error.errno is not None:
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror}; check that the path exists and that you may read or write it"
    if isinstance(error, MemoryError):
        return "out of memory; lower --max-memory, --max-length or the batch, or use a machine with more memory"
    return f"internal error: {type(error).__name__}: {_one_line(error)}; run again with --debug and report it"


def _one_line(error: Exception) -> str:
    """The message without line breaks and without control characters, which a hostile file may contain."""
    line = " ".join(str(error).split())
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in line)
