"""Chat templates, the child's side: jinja rendered as Transformers renders it (``utils/chat_template_utils.py``).

Jinja's sandbox keeps a template away from Python's insides, but bounds neither its time nor its memory: this runs in a
process that `chat_template` starts and limits.
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
    """The prompt that the template `source` of the file `where` makes of `messages` and the other `names` it may use.

    Raises `CheckpointError` if it is not valid jinja, and `UsageError` with its own words if it refuses the messages.
    """
    try:
        text = _compile(source, where).render(messages=list(messages), tools=None, documents=None, **names)
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # a template may fail in any way that a program can
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
    """What `error` says, fit for a line: a template chooses the words, and their number."""
    words = " ".join((str(error) or type(error).__name__).split())
    text = "".join(character if character.isprintable() else "?" for character in words)
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


class _GenerationTag(Extension):
    """Reads over the ``{% generation %}`` blocks by which Transformers marks an assistant's tokens in training."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as a set

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


def _environment() -> ImmutableSandboxedEnvironment:
    # Prompts are plain text for a tokenizer: HTML escaping would corrupt them.
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
