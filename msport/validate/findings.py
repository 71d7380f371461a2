"""What a validation measured, on what, and what follows from it: data that the renderings read."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from msport import __version__
from msport.validate.layers import LayerError
from msport.validate.metrics import TokenErrors
from msport.validate.prompts import Prompt
from msport.validate.weights import TensorCheck


@dataclass(frozen=True, slots=True)
class Setup:
    """What was judged, with what, on what: enough to repeat it.

    `date` is when the run began, in UTC; `checkpoint` the SHA-256 over the tensors' hashes in the manifest. `device`,
    `dtype` and `operators` are those of our side, whose experts stayed `packed` as MXFP4 or not; the reference computed
    in `reference_dtype` on a CPU. `streamed`: one layer at a time, on either side.
    """

    folder: str
    architecture: str
    source: str
    revision: str | None
    checkpoint: str
    reference: str
    level: str
    tolerance: float
    seed: int
    date: str
    versions: dict[str, str]
    device: str | None = None
    dtype: str | None = None
    packed: bool = False
    operators: str | None = None
    max_length: int | None = None
    prefill_chunk: int | None = None
    reference_dtype: str | None = None
    streamed: bool = False


def own_versions() -> dict[str, str]:
    """Versions of what runs on our side, whatever the level."""
    return {"msport": __version__, "python": platform.python_version(), "numpy": version("numpy")}


@dataclass(frozen=True, slots=True)
class PromptResult:
    """The errors of one prompt along one path: ``prefill`` in chunks, ``decode`` one token at a time, ``batch`` beside
    prompts of other lengths.

    `start` is the position of the first token measured.
    """

    prompt: Prompt
    path: str
    start: int
    errors: TokenErrors

    @property
    def title(self) -> str:
        return self.prompt.name if self.path == "prefill" else f"{self.prompt.name}, {self.path}"

    @property
    def worst(self) -> int:
        """The index of the token with the largest relative L2 error."""
        return int(self.errors.relative_l2.argmax())

    def failed(self, tolerance: float) -> int:
        """How many tokens do not pass."""
        return int((~self.errors.passed(tolerance)).sum())


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything a verdict rests on.

    `first_departure` is the first station (0: the embedding, i: after i layers) that departs by more than rounding
    explains; None if none does, or none was compared. `rounding` says which rounding explains what, `notes` what this
    run could not have shown. `seconds` is the time each phase took, `peak_bytes` the most that the process held.
    """

    setup: Setup
    results: tuple[PromptResult, ...] = ()
    layers: tuple[LayerError, ...] = ()
    first_departure: int | None = None
    weights: tuple[TensorCheck, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] | None = None
    rounding: tuple[str, ...] = ()
    peak_bytes: int | None = None

    @property
    def passed(self) -> bool:
        """Whether everything that the level judges passes; a report of nothing does not."""
        tolerance = self.setup.tolerance
        if not any(len(result.errors) for result in self.results) and not self.weights:
            return False
        if self.setup.level == "layers" and not self._layers_pass(tolerance):
            return False
        return not any(result.failed(tolerance) for result in self.results) and all(c.passed for c in self.weights)

    def _layers_pass(self, tolerance: float) -> bool:
        within = all(error.largest <= tolerance and error.first_operation is None for error in self.layers)
        return bool(self.layers) and within

    @property
    def departure(self) -> LayerError | None:
        """The station `first_departure`."""
        return next((error for error in self.layers if error.layer == self.first_departure), None)

    @property
    def worst(self) -> PromptResult | None:
        """The result with the largest relative L2 error."""
        return max(self.results, key=lambda result: result.errors.relative_l2.max(initial=-1.0), default=None)
