"""Chat templates: jinja rendered as Transformers renders it (``utils/chat_template_utils.py``), in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from msport.errors import CheckpointError, UsageError


class ChatTemplate:
    """The template `source` read from the file `where`; raises `CheckpointError` if it is not valid jinja.

    `special_tokens` are the names that a template may use besides the messages: ``bos_token``, ``eos_token``, ...
    """

    def __init__(self, source: str, where: Path, special_tokens: Mapping[str, Any]) -> None:
        self._where = where
        self._special_tokens = dict(special_tokens)
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise CheckpointError(
                f"{where}: the chat template is not valid jinja ({error}); use --raw, or repair it"
            ) from None

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool) -> str:
        """The prompt for `messages`; raises `UsageError` with the template's own words if it refuses them."""
        try:
            return self._template.render(
                messages=list(messages),
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        except Exception as error:  # a template may fail in any way that a program can
            raise UsageError(f"{self._where}: the chat template refuses these messages ({error}); use --raw") from error


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
