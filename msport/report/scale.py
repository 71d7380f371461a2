"""Scales: the place of a value on an axis, and the ticks of the axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from msport.report.formatting import number, power_of_ten

# Writes a value beside a tick or a mark.
Format = Callable[[float], str]

_TICKS = 5
_MOST_TICKS = 12
_MOST_DECADES = 8


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high`; `ticks` are values with their labels."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """The place of a value: 0 at `low`, 1 at `high`; values outside are moved to the edge."""
        low, high, at = (self._measure(each) for each in (self.low, self.high, value))
        return (min(max(at, low), high) - low) / (high - low)

    def _measure(self, value: float) -> float:
        if not self.logarithmic:
            return value
        return math.log10(value) if value > 0.0 else -math.inf


def linear(low: float, high: float, show: Format = number) -> Scale:
    """A linear scale with ticks at multiples of 1, 2 or 5 times a power of ten; the outer ticks enclose `low` and
    `high`.
    """
    step = _round_step((high - low) / _TICKS)
    first, last = math.floor(low / step + 1e-9), max(math.ceil(high / step - 1e-9), math.floor(low / step) + 1)
    ticks = tuple((step * count, show(step * count)) for count in range(first, last + 1))
    return Scale(ticks[0][0], ticks[-1][0], ticks)


def decades(values: Iterable[float]) -> Scale:
    """A logarithmic scale of powers of ten around all positive `values`."""
    exponents = [math.log10(value) for value in values if 0.0 < value < math.inf] or [0.0]
    low = math.floor(min(exponents))
    high = max(low + 1, math.ceil(max(exponents) + 0.01))
    step = -(-(high - low) // _MOST_DECADES)
    ticks = tuple((10.0**exponent, power_of_ten(exponent)) for exponent in range(low, high + 1, step))
    return Scale(10.0**low, 10.0**high, ticks, logarithmic=True)


def places(last: int, names: Sequence[str] = ()) -> Scale:
    """A scale of the whole numbers from 0 to `last`, or of `names`. If there are many, only some have ticks."""
    steps = (step * 10**power for power in range(9) for step in (1, 2, 5))
    step = next(step for step in steps if last <= step * _MOST_TICKS)
    ticks = ((float(at), names[at] if at < len(names) else f"{at:,}") for at in range(0, last + 1, step))
    return Scale(0.0, max(1.0, last), tuple(ticks))


def measured(names: Iterable[tuple[float, str]]) -> Scale:
    """A logarithmic scale with a named tick for each measured value."""
    ticks = tuple(dict.fromkeys(names))
    low, high = min(value for value, _ in ticks), max(value for value, _ in ticks)
    room = (high / low) ** 0.06 if high > low else 2.0
    return Scale(low / room, high * room, ticks, logarithmic=True)


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `least`."""
    if not least > 0.0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * 0.999)
