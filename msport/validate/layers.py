"""Where two trajectories part: the residual stream after each layer, ours against the reference's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from msport.validate.metrics import relative_l2
from msport.validate.prompts import Prompt
from msport.validate.recording import Recording

# Above what rounding explains after a few dozen layers in the dtype we compute in, below what any fault does.
ROUNDING = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 1e-1}


class TracksStates(Protocol):
    """What `compare_layers` asks of a model."""

    def hidden_states(self, ids: Any) -> npt.NDArray[np.float32]:
        """Int ``[1, seq]`` to ``[layers + 1, 1, seq, hidden]``."""


@dataclass(frozen=True, slots=True)
class LayerError:
    """Relative L2 error of the residual stream after `layer` layers (0: after the embedding), over all tokens compared.

    `prompt` and `position` are those of the largest error.
    """

    layer: int
    largest: float
    mean: float
    prompt: str
    position: int


def compare_layers(
    model: TracksStates,
    recording: Recording,
    prompts: Sequence[tuple[int, Prompt]],
    advance: Callable[[int], None] = lambda tokens: None,
) -> tuple[LayerError, ...]:
    """The error after each layer of our own trajectory over `prompts`, given with their numbers in the recording."""
    per_prompt = []
    for number, prompt in prompts:
        states = model.hidden_states([list(prompt.ids)])[:, 0]
        per_prompt.append([relative_l2(recording.hidden_states(number, i), ours) for i, ours in enumerate(states)])
        advance(len(prompt.ids))
    names = [prompt.name for _, prompt in prompts]
    return tuple(_worst(layer, names, errors) for layer, errors in enumerate(zip(*per_prompt, strict=True)))


def first_departure(layers: Sequence[LayerError], dtype: str, tolerance: float) -> int | None:
    """The first layer whose error is beyond the rounding of `dtype`, or beyond `tolerance`; None if there is none."""
    threshold = min(ROUNDING.get(dtype, tolerance), tolerance)
    return next((error.layer for error in layers if not error.largest <= threshold), None)


def _worst(layer: int, names: Sequence[str], errors: Sequence[npt.NDArray[np.float64]]) -> LayerError:
    worst = max(range(len(errors)), key=lambda index: errors[index].max())
    return LayerError(
        layer=layer,
        largest=float(errors[worst].max()),
        mean=float(np.concatenate(errors).mean()),
        prompt=names[worst],
        position=int(errors[worst].argmax()),
    )
