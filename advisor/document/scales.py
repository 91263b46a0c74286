"""Axes: where values lie in a picture, and which values are labeled."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_LOG_RATIO = 10.0  # between the largest and the smallest value, from which an axis is logarithmic
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_LOG_STEPS = (1.0, 2.0, 5.0)
_MAX_LOG_TICKS = 7
_THOUSAND, _BILLION = 1_000, 1e9
_TINY = 1e-9  # of rounding


@dataclass(frozen=True, slots=True)
class Tick:
    """A labeled value of an axis.

    Attributes:
        at: Its place, in units of the picture.
        label: The value in words.
    """

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to places in a picture.

    Attributes:
        low: The smallest value.
        high: The largest value.
        start: The place of ``low``, in units of the picture.
        end: The place of ``high``.
        is_log: Whether equal distances are equal ratios.
        values: The labeled values.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool
    values: tuple[float, ...]

    def at(self, value: float) -> float:
        """Return the place of a value; values outside of the range are moved to its ends."""
        low, high, inner = self.low, self.high, min(max(value, self.low), self.high)
        if self.is_log:
            low, high, inner = math.log(low), math.log(high), math.log(inner)
        return round(self.start + (inner - low) / (high - low) * (self.end - self.start), 2)

    @property
    def ticks(self) -> list[Tick]:
        """The labeled values with their places."""
        return [Tick(self.at(value), format_tick(value)) for value in self.values]


def linear_scale(values: Iterable[float], start: float, end: float, *, most: int = 6) -> Scale:
    """Return a linear scale with round ends around some values.

    Args:
        values: Finite values; empty: a scale from 0 to 1.
        start: The place of the smallest one.
        end: The place of the largest one.
        most: Maximum number of intervals between labels, at least 2.
    """
    found = list(values) or [0.0, 1.0]
    low, high = min(found), max(found)
    if low == high:
        low, high = low - abs(low) / 2, high + abs(high) / 2
    if low == high:
        high = low + 1.0
    step = _round_step((high - low) / most)
    first, last = math.floor(low / step + _TINY), math.ceil(high / step - _TINY)
    labels = tuple(step * i for i in range(first, last + 1))
    return Scale(labels[0], labels[-1], start, end, False, labels)


def exact_scale(values: Iterable[float], start: float, end: float) -> Scale:
    """Return a linear scale that spans some values exactly, with labels at round whole numbers.

    Args:
        values: The values, such as steps or percents; empty: a scale from 0 to 1.
        start: The place of the smallest one.
        end: The place of the largest one.
    """
    found = list(values) or [0.0, 1.0]
    low, high = min(found), max(found)
    if low == high:
        high = low + 1
    step = max(_round_step((high - low) / 6), 1.0)
    labels = [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return Scale(low, high, start, end, False, tuple(labels))


def value_scale(values: Iterable[float], start: float, end: float) -> Scale:
    """Return a scale for positive values: logarithmic if they differ by more than a factor of 10.

    Args:
        values: The values; those that are not above 0 are left out. A linear scale starts at 0.
        start: The place of the smallest one.
        end: The place of the largest one.
    """
    found = [value for value in values if value > 0]
    if not found or max(found) / min(found) <= _LOG_RATIO:
        return linear_scale([0.0, *found], start, end)
    return log_scale(found, start, end)


def log_scale(values: Iterable[float], start: float, end: float) -> Scale:
    """Return a logarithmic scale around some values above 0, with labels at 1, 2 and 5 times 10^n.

    Args:
        values: The values, at least one.
        start: The place of the smallest one.
        end: The place of the largest one.
    """
    found = list(values)
    low, high = min(found), max(found)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [m * 10.0**e for e in decades for m in _LOG_STEPS]
    first = [value for value in every if value <= low * (1 + _TINY)][-1]
    last = next(value for value in every if value >= high * (1 - _TINY) and value > first)
    labels = [value for value in every if first <= value <= last]
    if len(labels) > _MAX_LOG_TICKS:
        labels = [10.0**e for e in decades if first <= 10.0**e <= last]
        labels = labels[:: math.ceil(len(labels) / _MAX_LOG_TICKS)]
    return Scale(first, last, start, end, True, tuple(labels))


def format_tick(value: float) -> str:
    """Return a value as on an axis: ``0.05``, ``1,500``, ``2e-06``."""
    if value == int(value) and _THOUSAND <= abs(value) < _BILLION:
        return f"{int(value):,}"
    return f"{value:.4g}"


def _round_step(width: float) -> float:
    """Return the smallest round number that is at least as large as a width above 0."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(step * power for step in _STEPS if step * power >= width * (1 - _TINY))
