"""The prompt of ``msport generate``: read, through the chat template, and as token ids that the model knows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from msport.architectures import ModelConfig
from msport.errors import UsageError
from msport.msmodels.tokenizer import Tokenizer, encode

# Beyond it stdin is not read; a context of a million tokens is a third of that.
_LONGEST_PROMPT = 16_000_000
# A prompt that has more characters than these for each of the model's positions most likely does not fit.
_CHARACTERS_PER_TOKEN = 8
# How many tokens at the end of a part of a text may come together to fewer in the whole.
_UNSETTLED = 64


def check_ids(ids: Sequence[int], config: ModelConfig) -> list[int]:
    """`ids`; raises `UsageError` for one that the model does not know."""
    for token in ids:
        if not 0 <= token < config.vocab_size:
            raise UsageError(f"--ids: {token} is no token of the model; its ids go from 0 to {config.vocab_size - 1}")
    return list(ids)


def encode_prompt(
    text: str,
    tokenizer: Tokenizer | None,
    folder: Path,
    config: ModelConfig,
    *,
    chat: bool | None,
    system: str | None,
) -> list[int]:
    """Token ids of the prompt for the model in `folder`, through the chat template if `chat`; None: if there is one.

    Raises `UsageError` for a prompt without tokens, and for one that certainly has more than the model has positions.
    """
    if not text:
        raise UsageError("the prompt is empty; give some text")
    if tokenizer is None:
        raise UsageError(f"{folder}: has no tokenizer.json; give the prompt as token ids: --ids 1,2,3")
    if chat is False or (chat is None and not tokenizer.has_chat_template):
        if system is not None:
            raise UsageError("--system needs a chat; leave it out, or use --chat")
        return _encode_bounded(text, tokenizer, config)
    messages = [{"role": "user", "content": text}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return _encode_bounded(tokenizer.apply_chat_template(messages), tokenizer, config, add_special_tokens=False)


def _encode_bounded(text: str, tokenizer: Tokenizer, config: ModelConfig, **options: bool) -> list[int]:
    """The ids of `text`. A megabyte takes seconds, so of a text that is far too long only the beginning is encoded."""
    limit = config.max_position_embeddings
    beginning = text[: _CHARACTERS_PER_TOKEN * limit]
    ids = encode(tokenizer, beginning, config, **options)
    if len(beginning) < len(text):
        if len(ids) > limit + _UNSETTLED:
            raise UsageError(
                f"the prompt of {len(text)} characters has more than {limit} tokens; the model was made for no more:"
                " shorten the prompt"
            )
        ids = encode(tokenizer, text, config, **options)
    if not ids:
        raise UsageError(
            "the prompt is empty: template and tokenizer make no token of it; give some text, or use --raw"
        )
    return ids


def read_prompt(prompt: str) -> str:
    """The text given with -p, or for ``-`` that of stdin."""
    if prompt != "-":
        return prompt
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("stdin is closed, so -p - reads no prompt; give text with -p TEXT")
    try:
        text = sys.stdin.read(_LONGEST_PROMPT + 1)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"stdin: the prompt is not {error.encoding.upper()};"
            " convert it first, for example with iconv -f GBK -t UTF-8"
        ) from None
    if len(text) > _LONGEST_PROMPT:
        raise UsageError(f"stdin: the prompt has more than {_LONGEST_PROMPT} characters; shorten it")
    return text.removesuffix("\n")
