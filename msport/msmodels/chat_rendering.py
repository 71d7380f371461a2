"""Renders chat templates, in a child process, as Transformers does (``utils/chat_template_utils.py``).

Jinja's sandbox blocks access to Python's internals, but does not limit time or memory. So `chat_template` starts a
process with limits for this code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from msport.errors import CheckpointError, UsageError
from msport.progress import Progress

# A context of a million tokens is a third of that.
_LONGEST_PROMPT = 16_000_000
_LONGEST_REASON = 300


def render(
    source: str, where: str, messages: Sequence[Mapping[str, Any]], names: Mapping[str, Any], *, progress: Progress
) -> str:
    """The prompt that the template `source`, from the file `where`, makes of `messages` and the other variables
    `names`.

    Raises `CheckpointError` if the template is not valid jinja, and `UsageError` with its message if it refuses the
    messages.
    """
    try:
        text = _compile(source, where).render(messages=list(messages), tools=None, documents=None, **names)
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # a template can raise any exception
        raise UsageError(f"{where}: the chat template refuses these messages ({_reason(error)}); use --raw") from error
    if len(text) > _LONGEST_PROMPT:
        raise UsageError(
            f"{where}: the chat template makes a prompt of {len(text)} characters, more than {_LONGEST_PROMPT};"
            " shorten the messages or use --raw"
        )
    return text


def _compile(source: str, where: str) -> jinja2.Template:
    try:
        return _environment().from_string(source)
    except RecursionError:
        raise CheckpointError(f"{where}: the chat template is nested too deeply; use --raw, or repair it") from None
    except (jinja2.TemplateError, SyntaxError, ValueError) as error:
        raise CheckpointError(
            f"{where}: the chat template is not valid jinja ({_reason(error)}); use --raw, or repair it"
        ) from None


def _reason(error: Exception) -> str:
    """The message of `error`, shortened to one line, because a template may choose any text."""
    words = " ".join((str(error) or type(error).__name__).split())
    text = "".join(character if character.isprintable() else "?" for character in words)
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


class _GenerationTag(Extension):
    """Ignores ``{% generation %}`` blocks, with which Transformers marks an assistant's tokens in training."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as a set

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


def _environment() -> ImmutableSandboxedEnvironment:
    # Prompts are plain text; HTML escaping would corrupt them.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
