"""The pass rule. `passes` decides: the logits, the weights and, at level ``layers``, every operation must pass.

`judge` decides which errors of the logits rounding explains:

1. *Within rounding*: three errors are compared with the reference's own noise (see ``noise``): relative L2, the square
   root of KL, and the largest difference of a logit. For each, the median over all tokens, the largest, and the median
   of each prompt are at most a small multiple of the noise.
2. *Top-1*: if another token ranks first, the reference's lead is within the change of leads by rounding.
3. *Tolerance*: relative L2 is at most the tolerance at every token.
4. Every logit of either side is finite.

The rule ``tolerance`` checks only 3 and 4. Excused from 1 to 3: a token whose experts nearly tie. Also the later tokens
of its prompt, because they see its keys. The median over all tokens counts these later ones, as the noise
does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from msport.validate.compare.cost import Cost
from msport.validate.compare.layers import LayerError
from msport.validate.compare.logits import BATCHED
from msport.validate.compare.metrics import Bools, Floats
from msport.validate.compare.results import PromptResult
from msport.validate.compare.tensor_check import TensorCheck
from msport.validate.precision import unit
from msport.validate.reference.noise import Noise

RULES = ("rounding", "tolerance")
METRICS = {"relative L2": "relative_l2", "sqrt KL": "root_kl", "largest difference": "max_abs"}
LEAD = "lead of top-1"

# The largest multiples of the noise that pass. ``benchmarks/verdict.py`` measured the largest ratio of correct ports.
LARGEST_FACTOR = 10.0


@dataclass(frozen=True, slots=True)
class Factors:
    """The largest multiple of the noise for the median error: over all tokens, and of each prompt."""

    median: float
    prompt: float


# A wide model reaches 3 times its noise in float32, because each side sums in a different order.
FLOAT32 = Factors(median=4.0, prompt=6.0)
# In half precision the rounding of every value hides the order of the sums.
HALF = Factors(median=2.0, prompt=3.0)
# There rounding routes some tokens of a mixture to other experts, and their number varies between prompts.
HALF_MIXTURE = Factors(median=2.0, prompt=6.0)


def factors_for(noise: Noise) -> Factors:
    """The factors for the dtype in which `noise` was measured."""
    if noise.dtype == "float32":
        return FLOAT32
    return HALF_MIXTURE if any(noise.router) else HALF


# The error of a RoPE angle is its position times the error of its frequency. So beyond the positions with measured
# noise, and beyond this one, errors may grow with the position.
_DISTANCE = 1024
# Stands for a noise of zero.
_TINY = 1e-300
# The median of fewer tokens of a prompt is not judged.
_FEWEST = 8


@dataclass(frozen=True, slots=True)
class Check:
    """One statistic of our errors and the same of the noise; it passes up to `factor` times the noise."""

    metric: str
    statistic: str
    error: float
    noise: float
    factor: float

    @property
    def ratio(self) -> float:
        """The error divided by the noise."""
        return self.error / self.noise if self.error > 0.0 else 0.0

    @property
    def passed(self) -> bool:
        """Whether the ratio is within the factor."""
        return self.ratio <= self.factor


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result of a rule for the errors.

    `failing` marks the failing tokens of each result, bool ``[tokens]``. `excused` counts the tokens whose experts
    nearly tie and that would fail otherwise, `following` the later tokens that only the median over all tokens counts,
    and `swapped` the tokens that rank another token first although the reference's lead is clear.
    """

    rule: str
    tolerance: float
    checks: tuple[Check, ...]
    failing: tuple[Bools, ...]
    excused: int
    following: int
    swapped: int

    @property
    def within_rounding(self) -> bool:
        """Whether all checks against the noise pass."""
        return all(check.passed for check in self.checks)

    @property
    def worst(self) -> Check | None:
        """The check with the largest ratio to its factor."""
        return max(self.checks, key=lambda check: check.ratio / check.factor, default=None)

    def ratio_of(self, title: str) -> float | None:
        """The median relative L2 error of the results called `title`, as a multiple of the noise."""
        wanted = ("relative L2", median_of(title))
        return next((check.ratio for check in self.checks if (check.metric, check.statistic) == wanted), None)

    @property
    def passed(self) -> bool:
        """Whether there are tokens, none fails, and all checks pass."""
        return (
            any(len(tokens) for tokens in self.failing)
            and not any(tokens.any() for tokens in self.failing)
            and self.within_rounding
        )


def passes(
    level: str,
    judgement: Judgement | None,
    layers: Sequence[LayerError],
    weights: Sequence[TensorCheck],
    cost: Cost | None = None,
) -> bool:
    """Whether everything that was judged passes: the logits, the weights, the `cost` of quantisation if it has a bound,
    and, at level ``layers``, every operation.

    A run that compared neither logits nor weights fails, and so does level ``layers`` without layers.
    """
    if judgement is None and not weights:
        return False
    if level == "layers" and (not layers or departs(layers)):
        return False
    if cost is not None and not cost.within:
        return False
    logits = judgement is None or judgement.passed
    return logits and all(check.passed for check in weights)


def departs(layers: Sequence[LayerError]) -> bool:
    """Whether an isolated operation of a layer departs."""
    return any(error.first_operation for error in layers)


def judge(
    results: Sequence[PromptResult],
    noise: Noise | None,
    tolerance: float,
    undecided: Mapping[int, Bools] | None = None,
) -> Judgement:
    """Judges the errors of `results` by `noise` and the tolerance, or only by the tolerance if `noise` is None.

    `noise` was measured on the beginnings of the prompts, in the order of their numbers. `undecided` maps the number of
    a prompt to bool ``[tokens]``, which marks the tokens whose experts nearly tie in some layer.
    """
    entries = [_Entry(result, undecided or {}) for result in results]
    bounds = None if noise is None else _Bounds(noise)
    failing, excused, swapped = [], 0, 0
    for entry in entries:
        beyond = ~(entry.errors.relative_l2 <= tolerance)
        if bounds is None:
            unexplained = lost = np.zeros(len(beyond), bool)
        else:
            unexplained, lost = bounds.unexplained(entry), bounds.lost(entry)
        finite, judged = entry.errors.finite, ~entry.undecided if bounds is None else entry.judged
        failing.append(~finite | ((beyond | unexplained | lost) & judged))
        excused += int((finite & entry.undecided & (beyond | unexplained | lost)).sum())
        swapped += int((finite & lost & entry.judged).sum())
    following = sum(int(entry.following.sum()) for entry in entries)
    checks = () if bounds is None else tuple(bounds.checks(entries))
    return Judgement(
        rule="tolerance" if bounds is None else "rounding",
        tolerance=tolerance,
        checks=checks,
        failing=tuple(failing),
        excused=excused,
        following=0 if bounds is None else following,
        swapped=swapped,
    )


class _Entry:
    """One result, and the tokens that near ties excuse."""

    def __init__(self, result: PromptResult, undecided: Mapping[int, Bools]) -> None:
        tokens = slice(result.start, result.start + len(result.errors))
        marked = undecided.get(result.prompt.number)
        empty = np.zeros(len(result.errors), bool)
        self.result = result
        self.title = BATCHED if result.path == BATCHED else result.title  # a batch is judged as a whole
        self.number = result.prompt.number
        self.errors = result.errors
        self.positions = np.arange(tokens.start, tokens.stop)
        self.undecided = empty if marked is None else marked[tokens]
        self.following = empty if marked is None else _after_first(marked)[tokens] & ~self.undecided
        self.judged = ~self.undecided & ~self.following

    def field(self, name: str) -> Floats:
        return np.asarray(getattr(self.errors, name))


class _Bounds:
    """The limits that follow from the noise."""

    def __init__(self, noise: Noise) -> None:
        self._noise = noise
        self._factors = factors_for(noise)
        self._measured = [len(tokens) for tokens in noise.tokens]
        # Rounding changes a logit by some units in its last place, even if a small sample showed no change.
        size = float(np.median(noise.of("size"))) if sum(self._measured) else 0.0
        least = unit("float32")
        self._floors = {"relative_l2": least} | dict.fromkeys(("root_kl", "max_abs", "margin_error"), least * size)

    def unexplained(self, entry: _Entry) -> Bools:
        """The tokens whose error rounding does not explain, bool ``[tokens]``."""
        found = np.zeros(len(entry.errors), bool)
        for field in METRICS.values():
            found |= ~(self._scaled(entry, field) <= LARGEST_FACTOR * self._largest(field))
        return found

    def lost(self, entry: _Entry) -> Bools:
        """The tokens that lost a top-1 with a lead too large for rounding, bool ``[tokens]``."""
        return np.asarray(~(self._scaled(entry, "regret") <= LARGEST_FACTOR * self._largest("margin_error")))

    def checks(self, entries: Sequence[_Entry]) -> Iterator[Check]:
        titles = dict.fromkeys(entry.title for entry in entries)
        for metric, field in METRICS.items():
            same = [self._scaled(entry, field)[self._measured_too(entry)] for entry in entries]
            yield Check(metric, "median", _median(np.concatenate(same)), self._median(field), self._factors.median)
            judged = [self._scaled(entry, field)[entry.judged] for entry in entries]
            yield Check(metric, "largest", _largest(judged), self._largest(field), LARGEST_FACTOR)
            for title in titles:
                own = [number for number, entry in enumerate(entries) if entry.title == title]
                errors = np.concatenate([judged[number] for number in own])
                if len(errors) >= min(_FEWEST, sum(len(entries[number].errors) for number in own)):
                    noise = self._median(field, None if title == BATCHED else entries[own[0]].number)
                    yield Check(metric, median_of(title), _median(errors), noise, self._factors.prompt)
        regrets = [self._scaled(entry, "regret")[entry.judged] for entry in entries]
        yield Check(LEAD, "largest", _largest(regrets), self._largest("margin_error"), LARGEST_FACTOR)

    def _scaled(self, entry: _Entry, field: str) -> Floats:
        """Errors scaled to the positions where noise was measured."""
        reach = max(_DISTANCE, self._measured[entry.number])
        return np.asarray(entry.field(field) / np.maximum(1.0, (entry.positions + 1) / reach))

    def _measured_too(self, entry: _Entry) -> Bools:
        """The tokens of the prefill whose noise was measured, without excused ones."""
        if entry.result.path != "prefill":
            return np.zeros(len(entry.errors), bool)
        return np.asarray((entry.positions < self._measured[entry.number]) & ~entry.undecided)

    def _largest(self, field: str) -> float:
        return self._floored(field, float(self._noise.of(field).max(initial=0.0)))

    def _median(self, field: str, number: int | None = None) -> float:
        return self._floored(field, _median(self._noise.of(field, number)))

    def _floored(self, field: str, measured: float) -> float:
        return max(measured, self._floors[field], _TINY)


def median_of(title: str) -> str:
    """The statistic of one result."""
    return f"median of '{title}'"


def _after_first(marked: Bools) -> Bools:
    """The tokens after the first marked one."""
    return np.asarray(np.cumsum(marked) > 0)


def _largest(pieces: Sequence[Floats]) -> float:
    return float(np.concatenate(pieces).max(initial=0.0))


def _median(values: Floats) -> float:
    return float(np.median(values)) if len(values) else 0.0
