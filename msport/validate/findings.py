"""The results of a validation as data, which the views show."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from msport import __version__
from msport.validate.compare.cost import Cost
from msport.validate.compare.layers import LayerError, OperationError, stands_out
from msport.validate.compare.results import PromptResult
from msport.validate.compare.tensor_check import TensorCheck
from msport.validate.reference.noise import Noise
from msport.validate.verdict.rules import Judgement, passes


@dataclass(frozen=True, slots=True)
class Setup:
    """What was judged, against what, and on which machine: enough to repeat the run.

    `date` is the beginning of the run, in UTC. `checkpoint` is the SHA-256 over the tensors' hashes in the manifest.
    `device`, `dtype` and `operators` are those of our side; `packed`: some of its weights stayed packed; `storage`
    names the encodings of its matrices. The reference computed in `reference_dtype` on a CPU. `streamed`: both sides
    ran one layer at a time. `encodings` counts the weights of the folder in each encoding that is not plain.
    `own_weights`: the reference had the quantised weights of the folder.
    """

    folder: str
    architecture: str
    source: str
    revision: str | None
    checkpoint: str
    reference: str
    level: str
    rule: str
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
    storage: tuple[str, ...] = ()
    encodings: dict[str, int] = field(default_factory=dict)
    own_weights: bool = False


def own_versions() -> dict[str, str]:
    """Versions of the packages on our side, for every level."""
    return {"msport": __version__, "python": platform.python_version(), "numpy": version("numpy")}


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything on which a verdict is based.

    `judgement` compares the errors of the logits with the `noise` of the reference; None if no logits were compared.
    `first_departure`: number of the station to blame (0: embedding, i: layer i-1); None: none. An isolated operation
    departs if its error exceeds `threshold`. `rounding` holds sentences on where values were rounded, `notes` the
    faults that this run cannot show. `seconds` holds the time of each phase, `peak_bytes` the peak memory of the
    process. `cost` is that of quantisation; None if it was not measured.
    """

    setup: Setup
    results: tuple[PromptResult, ...] = ()
    judgement: Judgement | None = None
    noise: Noise | None = None
    layers: tuple[LayerError, ...] = ()
    first_departure: int | None = None
    threshold: float | None = None
    weights: tuple[TensorCheck, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] | None = None
    rounding: tuple[str, ...] = ()
    peak_bytes: int | None = None
    cost: Cost | None = None

    @property
    def passed(self) -> bool:
        """Whether everything that the level judges passes; see `rules.passes`."""
        return passes(self.setup.level, self.judgement, self.layers, self.weights, self.cost)

    @property
    def departure(self) -> LayerError | None:
        """The station `first_departure`."""
        return next((error for error in self.layers if error.layer == self.first_departure), None)

    @property
    def worst(self) -> PromptResult | None:
        """The result with the largest relative L2 error."""
        return max(self.results, key=lambda result: result.largest, default=None)

    @property
    def tokens(self) -> int:
        """Number of compared tokens."""
        return sum(len(result.errors) for result in self.results)

    @property
    def not_finite(self) -> int:
        """Number of tokens whose logits are not finite."""
        return sum(int((~result.errors.finite).sum()) for result in self.results)

    @property
    def fault(self) -> OperationError | None:
        """The operation to blame at `departure`: the first that departs, else one whose error stands out from other
        layers.
        """
        if self.departure is None:
            return None
        found = stands_out(self.layers, self.departure)
        return self.departure.first_operation or (found and found[0])
