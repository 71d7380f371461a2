"""The text on which the cost of quantisation is measured."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from msport.architectures import ModelConfig
from msport.checkpoint.regular_files import open_regular
from msport.errors import UsageError, parameter
from msport.msmodels.tokenizer import Tokenizer, encode_for_model, load_tokenizer
from msport.validate.prompts import TEXTS, Prompt, given_prompts

# Tokens of a file that are used, and of one context: the logits of all are kept on disk meanwhile.
MOST_TOKENS = 8192
_CONTEXT = 2048
# Bytes of a file that are read; more than the tokens that are used.
_MOST_BYTES = 1 << 18


def choose_texts(
    folder: Path, config: ModelConfig, file: Path | None, prompts: Sequence[str | Sequence[int]] | None
) -> tuple[Prompt, ...]:
    """The beginning of the text `file`, else the user's own `prompts`, else three short texts, for the model in
    `folder`; empty if there is no tokenizer for them.

    A file is cut into contexts, which share its name. Raises `UsageError` for a file that cannot be used.
    """
    tokenizer = load_tokenizer(folder)
    if file is not None:
        if tokenizer is None:
            raise UsageError(
                f"{parameter('text')} needs a tokenizer, but {folder} has no tokenizer.json; take it from the model's"
                " repository, or give prompts as token ids (--ids 1,2,3)"
            )
        found = list(_contexts(file, tokenizer, config))
    elif prompts is not None:
        found = list(given_prompts(prompts, config, tokenizer, None))
    elif tokenizer is None:
        found = []
    else:
        found = [
            Prompt(name, tuple(encode_for_model(tokenizer, text, config)[: config.max_position_embeddings]))
            for name, text in TEXTS.items()
        ]
    return tuple(replace(prompt, number=number, decoded=0) for number, prompt in enumerate(found))


def _contexts(file: Path, tokenizer: Tokenizer, config: ModelConfig) -> Iterator[Prompt]:
    """The tokens of `file`; each context begins as the tokenizer begins a text."""
    ids = encode_for_model(tokenizer, _read(file), config)[:MOST_TOKENS]
    if len(ids) < 2:
        raise UsageError(f"{file}: has {len(ids)} tokens; give a text of at least two, better of some thousand")
    first = ids[:1] if ids[0] in tokenizer.special_ids else []
    length = min(_CONTEXT, config.max_position_embeddings) - len(first)
    rest = ids[len(first) :]
    for begin in range(0, len(rest), length):
        yield Prompt(file.name, (*first, *rest[begin : begin + length]))


def _read(file: Path) -> str:
    try:
        with open(open_regular(file), "rb") as opened:
            content = opened.read(_MOST_BYTES)
        return codecs.getincrementaldecoder("utf-8-sig")().decode(content, final=len(content) < _MOST_BYTES)
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not a text in UTF-8 ({error.reason} at byte {error.start}); convert it") from None
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror}); give a text file") from None
