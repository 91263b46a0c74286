"""Keeps what measuring costs below a part of the training's time."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass

from fslr.errors import AttachError
from fslr.training.measurement_cost import MeasurementCost, Size
from fslr.training.stopwatch import Stopwatch

DEFAULT_MAX_OVERHEAD = 0.01
"""Time of all measurements and hooks per time of training, at most."""

_MIN_EXAMPLES = 8  # with fewer, little is saved and the relative error grows
_MAX_REPEATS = 4
# Variances relative to the mean square of an example's rate, as measured on transformers: between
# examples, and of one probe.
_VARIANCE_OF_EXAMPLES = 0.25
_VARIANCE_OF_PROBES = 2.0
_UNPLANNED_STEPS = 500  # a training of unknown length is taken to go on for a quarter of what it
_UNPLANNED_PART = 0.25  # has behind it, and these steps
_SETTLED_STEPS = 1_000  # before, the first measurement has not paid off
_EARLY = 1.5  # how much more than an even share an early measurement gets, if the length is known
# A measurement also empties caches, which is not timed. What measuring really added was 0.92 to
# 1.13 times what was counted, in five runs of ``python -m benchmarks overhead``.
_WITH_RESERVE = 1.09
_SHOWN = 0.001  # of the training's time, from which the hooks are named
_URGENT_PART = 0.25  # of what is left, for a small measurement that is asked for early


def check_max_overhead(max_overhead: float) -> None:
    """Check a limit on what measuring may cost.

    Args:
        max_overhead: As in :class:`Budget`.

    Raises:
        AttachError: It is not a finite number above 0.
    """
    is_number = isinstance(max_overhead, numbers.Real)
    if not (is_number and math.isfinite(max_overhead) and max_overhead > 0):
        raise AttachError(
            f"max_overhead is {max_overhead!r}; it is a part of the training's time above 0, such "
            "as 0.01 for 1%, or None for no limit"
        )


@dataclass(frozen=True, slots=True)
class Intervals:
    """The range of steps between measurements that the policy allows; 0: not known."""

    min_steps: int = 0
    max_steps: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """When to measure next, and how.

    Attributes:
        step: The step, at least the present one.
        examples: Maximum number of examples, if it is the present one; 0: not known, as many as
            make no more projections with the repeats than all examples would without.
        repeats: How many times as many probes as otherwise. More probes on the same examples cost
            less than more examples do, and reduce the relative error nearly as much.
    """

    step: int
    examples: int = 0
    repeats: int = 1


class Budget:
    """Chooses how many examples are measured, and how often inside the policy's range.

    The time of all measurements, with a reserve, and of the hooks in each step, stays below
    ``max_overhead`` of the training's time, unless the smallest measurements, of 8 examples every
    ``max_steps`` steps, cost more than what the hooks leave. The first measurement is not limited,
    except that it takes few examples with more probes each; what it costs is saved later.

    Args:
        max_overhead: Largest time of all measurements and hooks per time of training, above 0.
        stopwatch: Times them.
        total_steps: Planned number of steps; 0: unknown.
    """

    def __init__(self, max_overhead: float, stopwatch: Stopwatch, total_steps: int = 0) -> None:
        self._max_overhead = max_overhead
        self._stopwatch = stopwatch
        self._total_steps = total_steps
        self._cost = MeasurementCost()
        self._measurements = 0
        self._all_examples = 0  # the largest number of projections per probe without repeats

    def first(self, step: int) -> Plan:
        """Return how the first measurement is made.

        Args:
            step: The present step.
        """
        return Plan(step, repeats=_MAX_REPEATS)

    def measured(self, size: Size, seconds: float) -> None:
        """Take note of a measurement.

        Args:
            size: What was measured.
            seconds: How long it took.
        """
        self._measurements += 1
        self._all_examples = max(self._all_examples, size.examples * size.repeats)
        if self._measurements <= 2:
            self._cost.clear()  # the first one also finds out how to measure
        self._cost.add(size, _WITH_RESERVE * seconds)

    def plan(self, step: int, *, measured_step: int, asked_step: int, allowed: Intervals) -> Plan:
        """Return whether a step that is due is measured, with how many examples, or when.

        Args:
            step: The present step, at least ``asked_step``.
            measured_step: The step that was measured last, below ``step``.
            asked_step: The step that the advisor asked for.
            allowed: The policy's range of intervals.
        """
        step_seconds = self._stopwatch.step_seconds
        if step_seconds is None or not self._cost.is_known:
            return self.first(step)
        least = self._least
        least_seconds = self._cost.seconds(least)
        remaining = self._remaining_steps(step)
        stopwatch = self._stopwatch
        trained = stopwatch.training_seconds + remaining * step_seconds
        hooks = stopwatch.hook_seconds + remaining * stopwatch.hook_step_seconds
        measured = _WITH_RESERVE * stopwatch.measuring_seconds
        left = self._max_overhead * (trained - hooks) - hooks - measured
        per_step = self._seconds_per_step(left / remaining, least_seconds, allowed)
        steps = min(step - measured_step, remaining)  # near the end little is left
        if (seconds := per_step * steps) >= least_seconds:
            # An early measurement gets more than an even share to be precise, but not to be larger
            # than that needs.
            precise = Size(max(1, self._all_examples // _MAX_REPEATS), _MAX_REPEATS)
            even = left / remaining * steps
            best = self._best(min(seconds, max(even, self._cost.seconds(precise))))
            return Plan(step, best.examples, best.repeats)
        is_urgent = asked_step - measured_step < allowed.min_steps
        if is_urgent and least_seconds <= _URGENT_PART * left:
            return Plan(step, least.examples)
        latest = measured_step + max(allowed.max_steps, asked_step - measured_step)
        if per_step > 0:
            latest = min(latest, measured_step + math.ceil(least_seconds / per_step))
        return Plan(max(latest, step), least.examples)

    def _seconds_per_step(self, share: float, least_seconds: float, allowed: Intervals) -> float:
        """Return the time that measuring may take for each step since the last measurement.

        Args:
            share: What is left for each remaining step.
            least_seconds: Time of the smallest measurement.
            allowed: The policy's range of intervals.
        """
        if not self._total_steps or not allowed.max_steps:
            return share
        rarest = least_seconds / allowed.max_steps  # is needed to the end
        return share if share <= rarest else rarest + _EARLY * (share - rarest)

    def hint(self, step: int) -> str:
        """Return that measuring costs too much and cannot cost less; empty if that is not so.

        Args:
            step: The present step.
        """
        overhead = self._stopwatch.overhead
        least = self._least.examples
        is_reduced = self._cost.is_known and self._cost.newest.examples <= least
        if step < _SETTLED_STEPS or overhead is None or not is_reduced:
            return ""
        if overhead <= self._max_overhead:
            return ""
        trained = self._stopwatch.training_seconds - self._stopwatch.hook_seconds
        hooks = self._stopwatch.hook_seconds / trained
        parts = f", of which the hooks of each step take {hooks:.1%}" if hooks >= _SHOWN else ""
        return (
            f"measuring takes {overhead:.1%} of the training's time, more than max_overhead "
            f"({self._max_overhead:.1%}){parts}, although {least} examples are measured as rarely "
            "as the policy allows; raise max_interval_steps in the policy, or max_overhead"
        )

    def _remaining_steps(self, step: int) -> float:
        unplanned = _UNPLANNED_STEPS + _UNPLANNED_PART * step
        return max(self._total_steps - step, 1) if self._total_steps > step else unplanned

    @property
    def _least(self) -> Size:
        return Size(max(1, min(_MIN_EXAMPLES, self._all_examples)))

    def _best(self, seconds: float) -> Size:
        """Return the size with the smallest expected error that takes no longer.

        Args:
            seconds: The time, at least that of the smallest measurement.
        """
        best = self._least
        for repeats in range(1, _MAX_REPEATS + 1):
            most = self._fitting(seconds, repeats)
            if most >= self._least.examples and _variance(most, repeats) < _variance(
                best.examples, best.repeats
            ):
                best = Size(most, repeats)
        return best

    def _fitting(self, seconds: float, repeats: int) -> int:
        """Return the largest useful number of examples for some repeats; 0: none fits.

        Args:
            seconds: How long the measurement may take.
            repeats: How many times as many probes as otherwise.
        """
        none = self._cost.seconds(Size(0, repeats))
        each = self._cost.seconds(Size(1, repeats)) - none
        most = self._all_examples // repeats
        if seconds < none:
            return 0
        return most if each * most <= seconds - none else int((seconds - none) / each)


def _variance(examples: int, repeats: int) -> float:
    """Return the expected variance of an estimate, relative to the mean square."""
    return (_VARIANCE_OF_EXAMPLES + _VARIANCE_OF_PROBES / repeats) / examples
