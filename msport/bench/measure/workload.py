"""What is run: how many sequences, how long their prompts, how many tokens after them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from msport.architectures import ModelConfig
from msport.errors import UsageError


@dataclass(frozen=True, slots=True)
class Workload:
    """`batch` prompts of `prompt_tokens` each, then `new_tokens` greedy ones, whatever they are: no stop id ends it.

    The prompts are random tokens, or, of a workload with a `name`, the token ids in `ids`, the same for each sequence.
    """

    prompt_tokens: int = 128
    new_tokens: int = 64
    batch: int = 1
    name: str = ""
    ids: tuple[int, ...] | None = None

    @property
    def length(self) -> int:
        """Positions that prompt and new tokens take."""
        return self.prompt_tokens + self.new_tokens

    @property
    def title(self) -> str:
        sizes = f"prompt {self.prompt_tokens}, new tokens {self.new_tokens}, batch {self.batch}"
        return f"{self.name}: {sizes}" if self.name else sizes

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Workload:
        ids = document.get("ids")
        return cls(**{**document, "ids": None if ids is None else tuple(ids)})


def check_workload(workload: Workload, config: ModelConfig) -> None:
    """Raises `UsageError` if there is nothing to measure, or more than the model can hold."""
    for name in ("prompt_tokens", "new_tokens", "batch"):
        if getattr(workload, name) < 1:
            raise UsageError(f"{name} must be at least 1, not {getattr(workload, name)}")
    if workload.length > config.max_position_embeddings:
        raise UsageError(
            f"prompt and new tokens ({workload.length}) exceed the model's max_position_embeddings"
            f" ({config.max_position_embeddings}); ask for fewer"
        )


def make_prompts(workload: Workload, vocab_size: int, seed: int) -> np.ndarray[Any, Any]:
    """Token ids ``[batch, prompt_tokens]``: those of the workload, else uniform over the vocabulary.

    The same for the same arguments.
    """
    if workload.ids is not None:
        return np.tile(np.array(workload.ids, np.int32), (workload.batch, 1))
    generator = np.random.default_rng(seed)
    return generator.integers(0, vocab_size, (workload.batch, workload.prompt_tokens), dtype=np.int32)
