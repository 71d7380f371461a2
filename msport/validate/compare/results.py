"""The errors of one prompt, run in one way."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from msport.validate.compare.metrics import Bools, TokenErrors
from msport.validate.prompts import Prompt


@dataclass(frozen=True, slots=True)
class PromptResult:
    """The errors of one prompt, run in one way (`path`): ``prefill`` in chunks, ``decode`` one token at a time, or
    ``batch`` together with prompts of other lengths.

    `start` is the position of the first measured token. `failing` marks the tokens that fail, after judging.
    """

    prompt: Prompt
    path: str
    start: int
    errors: TokenErrors
    failing: Bools = field(default_factory=lambda: np.zeros(0, bool))

    @property
    def title(self) -> str:
        """A title for tables and messages."""
        return self.prompt.name if self.path == "prefill" else f"{self.prompt.name}, {self.path}"

    @property
    def largest(self) -> float:
        """The largest relative L2 error of a token; 0 if there are no tokens."""
        return float(self.errors.relative_l2.max(initial=0.0))

    @property
    def worst(self) -> int:
        """The index of the token with the largest relative L2 error."""
        return int(self.errors.relative_l2.argmax())

    @property
    def failed(self) -> int:
        """Number of tokens that fail."""
        return int(self.failing.sum())
