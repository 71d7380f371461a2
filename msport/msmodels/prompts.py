"""Checks the token ids of callers, and makes one array per prompt."""

from __future__ import annotations

from typing import Any

import numpy as np

from msport.checkpoint.dtypes import Array
from msport.errors import UsageError

Prompts = Any  # int [batch, seq], nested sequences or array; rows may differ in length if a method says so


def read_prompts(ids: Prompts, vocab_size: int, max_length: int) -> list[Array]:
    """One int32 array ``[seq]`` per prompt; a flat sequence is one prompt.

    Raises `UsageError` for an empty prompt, one longer than `max_length`, and an id outside the vocabulary.
    """
    prompts = [checked_ids(row, vocab_size) for row in _rows(ids)]
    for prompt in prompts:
        if len(prompt) > max_length:
            raise UsageError(
                f"a prompt of {len(prompt)} tokens is longer than max_length ({max_length});"
                " shorten it or load the model with a larger max_length"
            )
    return prompts


def equally_long(prompts: list[Array]) -> list[Array]:
    """`prompts`; raises `UsageError` if their lengths differ."""
    if len({len(prompt) for prompt in prompts}) != 1:
        raise UsageError("the prompts must have one length here: int [batch, seq]")
    return prompts


def checked_ids(ids: Array, vocab_size: int) -> Array:
    """``ids [n]`` as int32; raises `UsageError` if they are not integers, none, or outside the vocabulary."""
    if ids.ndim != 1 or len(ids) == 0 or ids.dtype.kind not in "iu":
        raise UsageError(f"token ids must be integers, at least one; got shape {ids.shape}, dtype {ids.dtype}")
    smallest, largest = int(ids.min()), int(ids.max())
    if smallest < 0 or largest >= vocab_size:
        wrong = smallest if smallest < 0 else largest
        raise UsageError(f"token id {wrong} is outside the vocabulary of {vocab_size}")
    return ids.astype(np.int32)


def as_array(ids: Any) -> Array:
    try:
        return np.asarray(ids)
    except ValueError:
        raise UsageError("token ids must be integers, [batch, seq]; here rows are nested deeper, or unevenly") from None


def _rows(ids: Prompts) -> list[Array]:
    if isinstance(ids, np.ndarray):
        return list(ids) if ids.ndim == 2 else [ids]
    try:
        nested = len(ids) > 0 and not np.isscalar(ids[0])
    except (TypeError, KeyError):  # neither a sequence nor an array
        nested = False
    return [as_array(row) for row in ids] if nested else [as_array(ids)]
