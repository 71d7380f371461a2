"""Prompts that reveal faults: longer than every window and the prefill chunk, repetitive, with special tokens, real
text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from msport.architectures import ModelConfig
from msport.architectures.stated_ids import read_special_ids
from msport.errors import UsageError, parameter
from msport.msmodels.tokenizer import Tokenizer, encode_for_model, load_tokenizer

# More than a chunk of 128 and, in the longest default prompt, from before to after a window's ring buffer wraps.
DECODED = 162
SPECIAL_LENGTH = 32
_PAST = 17  # not a multiple of any chunk, so that the last chunk is partial

TEXTS = {
    "english": "The port of a model is finished when its logits agree with those of the original, token by token, and"
    " not before. Most faults hide well: a window that is one token too long changes nothing until a prompt passes it.",
    "chinese": "模型移植是否成功不能只看生成的文字是否通顺。应当逐个词元地比较两边的输出。"
    "滑动窗口若差一个位置、短提示词根本看不出来。",
    "code": 'def rms_norm(x, weight, eps=1e-6):\n    """Scale each row to unit mean square."""\n'
    "    variance = (x * x).mean(-1, keepdims=True)\n    return weight * x / np.sqrt(variance + eps)  # float32\n",
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids with a name. The last `decoded` of them also run one at a time, as in generation.

    `text` is what the user wrote; None for default prompts and prompts given as ids. `number` is that of its tensors in
    a recording: its position among the prompts of the run, from 0.
    """

    name: str
    ids: tuple[int, ...]
    decoded: int = 0
    text: str | None = None
    number: int = 0


def choose_prompts(
    folder: Path,
    config: ModelConfig,
    prompts: Sequence[str | Sequence[int]] | None,
    prefill_chunk: int,
    max_length: int | None,
    seed: int,
) -> tuple[Prompt, ...]:
    """The user's own `prompts` if there are any, else the default ones, for the model in `folder`."""
    if max_length is not None and max_length > config.max_position_embeddings:
        raise UsageError(
            f"{parameter('max_length')} {max_length} is more than the {config.max_position_embeddings} positions that"
            " the model was made for"
        )
    tokenizer = load_tokenizer(folder)
    if prompts is not None:
        return _numbered(given_prompts(prompts, config, tokenizer, max_length))
    special = read_special_ids(folder) | (tokenizer.special_ids if tokenizer else frozenset())
    return _numbered(
        default_prompts(config, tokenizer, special, prefill_chunk=prefill_chunk, max_length=max_length, seed=seed)
    )


def _numbered(prompts: Iterable[Prompt]) -> tuple[Prompt, ...]:
    return tuple(replace(prompt, number=number) for number, prompt in enumerate(prompts))


def default_prompts(
    config: ModelConfig,
    tokenizer: Tokenizer | None,
    special_ids: Iterable[int] = (),
    *,
    prefill_chunk: int,
    max_length: int | None = None,
    seed: int = 0,
) -> tuple[Prompt, ...]:
    """The default prompts; equal for equal arguments.

    The longest has `max_length` tokens if given; otherwise slightly more than the largest window and two chunks. No
    prompt is longer than the model's `max_position_embeddings`. `special_ids` appear only in the prompt made for them
    and, through the tokenizer, in text; never among random tokens.
    """
    longest = min(max_length or default_length(config, prefill_chunk), config.max_position_embeddings)
    generator = np.random.default_rng(seed)
    special = sorted({token for token in special_ids if 0 <= token < config.vocab_size})
    ordinary = _ordinary_ids(config, tokenizer, special)
    random = generator.choice(ordinary, longest)
    repeated = np.repeat(generator.choice(ordinary, 1), min(longest, prefill_chunk + 2 * _PAST))
    prompts = [
        _prompt("random", random, decoded=min(DECODED, longest - 1)),
        _prompt("repeated", repeated),
    ]
    if special:
        prompts.append(_prompt("special", _mixed(generator, ordinary, special)[:longest]))
    if tokenizer is not None:
        prompts += [_prompt(name, encode_for_model(tokenizer, text, config)[:longest]) for name, text in TEXTS.items()]
    return tuple(prompts)


def default_length(config: ModelConfig, prefill_chunk: int) -> int:
    """The number of tokens beyond the largest window plus two full chunks and a partial one."""
    return max((window for window in config.windows if window), default=0) + 2 * prefill_chunk + _PAST


def given_prompts(
    prompts: Sequence[str | Sequence[int]], config: ModelConfig, tokenizer: Tokenizer | None, max_length: int | None
) -> tuple[Prompt, ...]:
    """The user's own prompts, as text or token ids. Raises `UsageError` for one that cannot run."""
    if len(prompts) == 0:
        raise UsageError("the list of prompts is empty; give at least one prompt, or None for the default ones")
    return tuple(
        _given_prompt(f"prompt {number}", prompt, config, tokenizer, max_length)
        for number, prompt in enumerate(prompts, 1)
    )


def _given_prompt(
    name: str,
    prompt: str | Sequence[int],
    config: ModelConfig,
    tokenizer: Tokenizer | None,
    max_length: int | None,
) -> Prompt:
    if isinstance(prompt, str):
        if tokenizer is None:
            raise UsageError(f"{name} is text, but the checkpoint has no tokenizer.json; give token ids (--ids 1,2,3)")
        ids = encode_for_model(tokenizer, prompt, config)
        if not ids:
            raise UsageError(f"{name} is empty: the tokenizer makes no token of '{prompt}'")
    else:
        ids = [int(token) for token in prompt]
    if not ids or not all(0 <= token < config.vocab_size for token in ids):
        raise UsageError(f"{name} must hold token ids from 0 to {config.vocab_size - 1}, at least one")
    limit = min(max_length or config.max_position_embeddings, config.max_position_embeddings)
    if len(ids) > limit:
        raise UsageError(f"{name} has {len(ids)} tokens, more than max_length {limit}; shorten it or raise max_length")
    text = prompt if isinstance(prompt, str) else None
    return Prompt(name, tuple(ids), min(DECODED, len(ids) - 1), text)


def _ordinary_ids(
    config: ModelConfig, tokenizer: Tokenizer | None, special: Sequence[int]
) -> npt.NDArray[np.integer[Any]]:
    # Embeddings often have untrained padding rows beyond the tokenizer's vocabulary.
    known = config.vocab_size if tokenizer is None else min(config.vocab_size, tokenizer.vocab_size)
    ordinary = np.setdiff1d(np.arange(known), special)
    return ordinary if ordinary.size else np.arange(config.vocab_size)


def _mixed(
    generator: np.random.Generator, ordinary: npt.NDArray[np.integer[Any]], special: Sequence[int]
) -> npt.NDArray[np.integer[Any]]:
    """Special and ordinary tokens in turn, special first, so that each special token has context before and after
    it.
    """
    mixed = generator.choice(ordinary, SPECIAL_LENGTH)
    mixed[::2] = generator.choice(special, SPECIAL_LENGTH // 2)
    return mixed


def _prompt(name: str, ids: Iterable[int], decoded: int = 0) -> Prompt:
    return Prompt(name, tuple(int(token) for token in ids), decoded)
