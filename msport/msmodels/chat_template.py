"""Chat templates. They are programs from a checkpoint, so each rendering runs in its own process with limits.

A process costs about a tenth of a second per prompt. A permanent process would save this, but one rendering could then
affect the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msport.child import ChildError, call_in_child
from msport.errors import CheckpointError

# Default limits of rendering. Real templates need milliseconds and a few megabytes.
SECONDS = 20.0
MEMORY = 1 << 30  # bytes of address space; Python itself needs about fifty megabytes
# In characters; gpt-oss's has 16,000.
_LONGEST_TEMPLATE = 1_000_000


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The template `source` read from the file `where`.

    `special_tokens` are the variables that a template may use besides the messages: ``bos_token``, ``eos_token``, ...
    """

    source: str
    where: Path
    special_tokens: Mapping[str, Any]

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool,
        seconds: float = SECONDS,
        memory: int = MEMORY,
    ) -> str:
        """The prompt for `messages`, rendered in at most `seconds` and `memory` bytes.

        Raises `CheckpointError` for a template that is invalid or exceeds a limit, and `UsageError` with its message if
        it refuses the messages.
        """
        names = {**self.special_tokens, "add_generation_prompt": add_generation_prompt}
        try:
            text: str = call_in_child(
                "msport.msmodels.chat_rendering:render",
                {"source": self._bounded_source(), "where": str(self.where), "messages": messages, "names": names},
                task="rendering the chat template",
                timeout=seconds,
                memory=memory,
            )
        except ChildError as error:
            raise CheckpointError(f"{self.where}: {error}; use --raw, or repair it") from error
        return text

    def _bounded_source(self) -> str:
        if len(self.source) > _LONGEST_TEMPLATE:
            raise CheckpointError(
                f"{self.where}: the chat template has {len(self.source)} characters, more than {_LONGEST_TEMPLATE};"
                " use --raw, or repair it"
            )
        return self.source
