"""What runs: the number of sequences, the length of their prompts, the number of new tokens, how often, and in
which process.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from msport.architectures import ModelConfig
from msport.arguments import require_counts
from msport.bench.measure.machine import choose_cores
from msport.errors import UsageError


@dataclass(frozen=True, slots=True)
class Workload:
    """`batch` prompts of `prompt_tokens` tokens each, then `new_tokens` greedy tokens; stop ids do not end it.

    The prompts are random tokens or, in a workload with a `name`, the token ids in `ids` for every sequence.
    """

    prompt_tokens: int = 128
    new_tokens: int = 64
    batch: int = 1
    name: str = ""
    ids: tuple[int, ...] | None = None

    @property
    def length(self) -> int:
        """Number of positions of prompt and new tokens."""
        return self.prompt_tokens + self.new_tokens

    @property
    def title(self) -> str:
        """A title for tables and messages."""
        sizes = f"prompt {self.prompt_tokens}, new tokens {self.new_tokens}, batch {self.batch}"
        return f"{self.name}: {sizes}" if self.name else sizes


@dataclass(frozen=True, slots=True)
class Job:
    """What one process measures: `workloads`, all of one batch size, with caches of `max_length` positions.

    `folder` holds the checkpoint; `dtype` None means the device's best. Each workload runs `warmup` times, then
    `repeats` measured times. The process may use the processors `cores`, by default those of this process.
    """

    folder: str
    workloads: tuple[Workload, ...]
    max_length: int
    dtype: str | None = None
    warmup: int = 2
    repeats: int = 5
    seed: int = 0
    cores: tuple[int, ...] = field(default_factory=choose_cores)


def check_workload(workload: Workload, config: ModelConfig) -> None:
    """Raises `UsageError` if there is nothing to measure, or if it exceeds the model's context."""
    require_counts(prompt_tokens=workload.prompt_tokens, new_tokens=workload.new_tokens, batch=workload.batch)
    if workload.length > config.max_position_embeddings:
        raise UsageError(
            f"prompt and new tokens ({workload.length}) exceed the model's max_position_embeddings"
            f" ({config.max_position_embeddings}); ask for fewer"
        )


def make_prompts(workload: Workload, vocab_size: int, seed: int) -> np.ndarray[Any, Any]:
    """Int32 token ids ``[batch, prompt_tokens]``: those of the workload, else uniform over the vocabulary.

    Equal arguments give equal ids.
    """
    if workload.ids is not None:
        return np.tile(np.array(workload.ids, np.int32), (workload.batch, 1))
    generator = np.random.default_rng(seed)
    return generator.integers(0, vocab_size, (workload.batch, workload.prompt_tokens), dtype=np.int32)


def shortened(workload: Workload) -> Workload:
    """`workload` with only two new tokens, which run each graph once."""
    return replace(workload, new_tokens=min(workload.new_tokens, 2))
