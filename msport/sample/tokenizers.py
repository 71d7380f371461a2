"""Real tokenizers of any size: byte-level BPE, learned from a page of text, with a family's special tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from msport.errors import UsageError
from msport.sample.chat import ChatFormat
from msport.sample.corpus import TEXT

# The corpus has merges for a few more. Further ids of a larger vocabulary have no text, as in gpt-oss's own.
MAX_TOKENS = 1024
_BYTES = 256

# gpt-oss's own pattern: https://github.com/openai/tiktoken, `o200k_base`.
_PATTERN = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)


def tokenizer_files(chat: ChatFormat, vocab_size: int) -> tuple[dict[str, str], dict[str, int]]:
    """The tokenizer's files by name, and the id of each special token, for a model of `vocab_size` ids.

    Raises UsageError if `vocab_size` is too small for all bytes and the special tokens.
    """
    learned = min(vocab_size, MAX_TOKENS) - chat.reserved
    if learned < _BYTES:
        raise UsageError(f"vocab_size is {vocab_size}; a byte-level tokenizer needs at least {_BYTES + chat.reserved}")
    tokenizer = _train(learned, chat.special_tokens)
    ids = {token: learned + offset for offset, token in enumerate(chat.special_tokens)}
    files = {
        "tokenizer.json": tokenizer.to_str(pretty=True) + "\n",
        "tokenizer_config.json": _json(_tokenizer_config(chat, ids)),
        "special_tokens_map.json": _json(_named_tokens(chat)),
        "chat_template.jinja": chat.template,
    }
    return files, ids


def _train(learned: int, special_tokens: tuple[str, ...]) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=learned, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens])
    return tokenizer


def _tokenizer_config(chat: ChatFormat, ids: Mapping[str, int]) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "added_tokens_decoder": {str(number): {"content": token, **flags} for token, number in ids.items()},
        **_named_tokens(chat),
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 131072,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def _named_tokens(chat: ChatFormat) -> dict[str, str]:
    named = {"bos_token": chat.bos, "eos_token": chat.eos, "pad_token": chat.pad}
    return {role: token for role, token in named.items() if token is not None}


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
