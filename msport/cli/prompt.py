"""The prompt of ``msport generate``: reads it, applies the chat template, and encodes it to valid token ids."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from msport.architectures import ModelConfig
from msport.errors import UsageError
from msport.msmodels.tokenizer import Tokenizer, encode_for_model

# At most this many characters are read from stdin. A context of a million tokens is a third of that.
_LONGEST_PROMPT = 16_000_000
# A prompt with more characters per position of the model most likely does not fit.
_CHARACTERS_PER_TOKEN = 8
# At a cut in a text, up to this many tokens may become fewer in the whole text.
_UNSETTLED = 64


def check_ids(ids: Sequence[int], config: ModelConfig) -> list[int]:
    """Returns `ids`. Raises `UsageError` for an id outside the vocabulary."""
    for token in ids:
        if not 0 <= token < config.vocab_size:
            raise UsageError(f"--ids: {token} is not a token of the model; ids go from 0 to {config.vocab_size - 1}")
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

    Raises `UsageError` for a prompt without tokens, and for one that is certainly longer than the model's context.
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
    """The ids of `text`. Of a text that is much too long, only the beginning is encoded: a megabyte takes seconds."""
    limit = config.max_position_embeddings
    beginning = text[: _CHARACTERS_PER_TOKEN * limit]
    ids = encode_for_model(tokenizer, beginning, config, **options)
    if len(beginning) < len(text):
        if len(ids) > limit + _UNSETTLED:
            raise UsageError(
                f"the prompt of {len(text)} characters has more than {limit} tokens; the model was made for no more:"
                " shorten the prompt"
            )
        ids = encode_for_model(tokenizer, text, config, **options)
    if not ids:
        raise UsageError(
            "the prompt is empty: template and tokenizer make no token of it; give some text, or use --raw"
        )
    return ids


def read_prompt(prompt: str) -> str:
    """The text of -p, or that of stdin for ``-``."""
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
