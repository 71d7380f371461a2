"""The check of one converted tensor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TensorCheck:
    """One converted tensor. `transform` describes the conversion. The tensor passes if no element differs.

    Elements of a tensor of codes are weights: one differs if its code is not the nearest to its source. `clipped`
    counts those beyond the last code, which have it. `fault` is a sentence if the whole tensor is wrong (missing,
    unexpected, another shape or dtype).
    """

    name: str
    transform: str
    elements: int
    different: int = 0
    max_abs: float = 0.0
    fault: str | None = None
    clipped: int = 0

    @property
    def passed(self) -> bool:
        """Whether the tensor matches its source."""
        return self.fault is None and self.different == 0
