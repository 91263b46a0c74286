"""A profile's unit rates at any step: interpolated in log space, constant beyond the ends."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.policy.aliases import GroupAlias, check_aliases
from advisor.policy.counts import count_of
from advisor.policy.errors import InvalidValueError
from advisor.policy.layout import Layout
from advisor.policy.ranges import MAX_STEP, POSITIVE, STEP
from advisor.policy.rules import DepthRule, Policy
from advisor.policy.smoothing import smooth

MAX_POINTS = 100_000
MAX_RATE = 1e30  # references are sums of rates, and travel as float32


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """Unit rates of a base model over its training.

    Attributes:
        layout: The base model's groups.
        steps: Step of each recorded point, strictly rising, shape [points], int64.
        unit_rates: Recorded unit rates, finite, at least 0, shape [points, groups], float32.
        relative_errors: Relative errors of the unit rates, of the same shape; 0 where unknown.
        base_learning_rate: The learning rate that is transferred, above 0.
        total_steps: Planned optimizer steps of the recorded training, above the last point's step.
        policy: The rules for runs on this profile.
        aliases: Alternative spellings of the groups.
        coherences: Mean correlation of the output changes of the blocks of each role, in [-1, 1],
            shape [points, roles] in the order of ``layout.roles``; None: not measured.
        learning_rates: Scheduled learning rate at each point, absolute, at least 0, shape [points];
            None: unknown.
        weight_rms: RMS of each group's weights at each point, finite, at least 0, shape [points,
            groups], float32; None: unknown.
        update_rms: RMS of each group's update of an lr = 1 step, likewise.
        excludes_weight_decay: Whether the unit rates are those of the update without its weight
            decay.
        mask: What weighs the output elements that the unit rates are averages over; empty: all
            count the same.

    Raises:
        InvalidValueError: A value is out of its range or of the wrong shape.
    """

    layout: Layout
    steps: NDArray[np.int64]
    unit_rates: NDArray[np.float32]
    relative_errors: NDArray[np.float32]
    base_learning_rate: float
    total_steps: int
    policy: Policy
    aliases: tuple[GroupAlias, ...] = ()
    coherences: NDArray[np.float32] | None = None
    learning_rates: NDArray[np.float64] | None = None
    weight_rms: NDArray[np.float32] | None = None
    update_rms: NDArray[np.float32] | None = None
    excludes_weight_decay: bool = False
    mask: str = ""

    def __post_init__(self) -> None:
        """Check ranges and shapes."""
        if not 1 <= len(self.steps) <= MAX_POINTS:
            raise InvalidValueError(
                "points", f"{count_of(len(self.steps), 'point')}, but 1 to {MAX_POINTS} are needed"
            )
        self._check_shapes()
        outside = np.flatnonzero(~STEP.contains_each(self.steps))
        if outside.size:
            i = int(outside[0])
            STEP.check(f"points[{i}].step", int(self.steps[i]))
        falling = np.flatnonzero(self.steps[1:] <= self.steps[:-1])
        if falling.size:
            i = int(falling[0]) + 1
            raise InvalidValueError(
                f"points[{i}].step",
                f"{self.steps[i]} is not above {self.steps[i - 1]}, the step of the previous point",
            )
        for field, values in (
            ("unit_rates", self.unit_rates),
            ("relative_errors", self.relative_errors),
            ("weight_rms", self.weight_rms),
            ("update_rms", self.update_rms),
        ):
            if values is None:
                continue
            bad = np.argwhere(~((values >= 0) & (values <= MAX_RATE)))
            if bad.size:
                point, group = (int(v) for v in bad[0])
                raise InvalidValueError(
                    f"points[{point}].{field}[{group}]",
                    f"{values[point, group]} of group {self.layout.groups[group].name!r} is not a "
                    f"number in [0, {MAX_RATE:g}]",
                )
        self._check_optional()
        POSITIVE.check("base_learning_rate", self.base_learning_rate)
        if not self.steps[-1] < self.total_steps <= MAX_STEP + 1:
            raise InvalidValueError(
                "total_steps",
                f"{self.total_steps} is not above the last point's step {self.steps[-1]}, "
                f"or above {MAX_STEP + 1}",
            )

    def _check_shapes(self) -> None:
        points, groups = len(self.steps), len(self.layout)
        for field, shape in (
            ("steps", (points,)),
            ("unit_rates", (points, groups)),
            ("relative_errors", (points, groups)),
            ("coherences", (points, len(self.layout.roles))),
            ("learning_rates", (points,)),
            ("weight_rms", (points, groups)),
            ("update_rms", (points, groups)),
        ):
            values = getattr(self, field)
            if values is not None and values.shape != shape:
                raise InvalidValueError(
                    field,
                    f"the shape is {values.shape}, but it must be {shape}, for "
                    f"{count_of(points, 'point')} of a layout of {count_of(groups, 'group')}",
                )

    def _check_optional(self) -> None:
        for field, values, low, high in (
            ("coherences", self.coherences, -1.0, 1.0),
            ("learning_rates", self.learning_rates, 0.0, MAX_RATE),
        ):
            if values is None:
                continue
            bad = np.argwhere(~((values >= low) & (values <= high)))
            if bad.size:
                place = tuple(int(v) for v in bad[0])
                name = f"coherences[{place[1]}]" if field == "coherences" else "learning_rate"
                raise InvalidValueError(
                    f"points[{place[0]}].{name}",
                    f"{values[place]} is not a number in [{low:g}, {high:g}]",
                )
        check_coherences(self.policy, self.coherences)
        check_aliases("aliases", self.aliases)


def check_coherences(policy: Policy, coherences: NDArray[np.float32] | None) -> None:
    """Refuse the depth rule ``measured`` for a profile without coherences.

    Raises:
        InvalidValueError: The policy's depth rule needs coherences, and the profile has none.
    """
    if policy.depth_rule is DepthRule.MEASURED and coherences is None:
        raise InvalidValueError(
            "policy.depth_rule",
            "measured needs the coherences of the profile's roles, and it has none; record the "
            "profile with them, or choose sum, sqrt or copy",
        )


def informative_points(profile: Profile) -> NDArray[np.bool_]:
    """Return which points were not recorded at learning rate 0, shape [points]; all if all were."""
    if profile.learning_rates is None or not profile.learning_rates.any():
        return np.ones(len(profile.steps), dtype=np.bool_)
    return profile.learning_rates > 0


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Moments of a profile's training, between its points.

    Attributes:
        left: Index of the point before each moment, shape [moments].
        right: Index of the point after it, shape [moments].
        part: Position between the left point (0) and the right one (1), in [0, 1), shape
            [moments, 1].
    """

    left: NDArray[np.intp]
    right: NDArray[np.intp]
    part: NDArray[np.float64]


class Reference:
    """Reads a profile's unit rates at any step.

    A zero between positive rates of a group counts as not recorded, as it has no logarithm, and is
    interpolated. Zeros before the first positive rate and after the last one are kept: between such
    a zero and the neighboring positive point the rate is 0. (A layer before a zero-initialized one
    has no rate until that has moved.) A point at learning rate 0, such as the first of a warm-up,
    carries no information and is left out.

    Args:
        profile: The profile.
        smoothing: Half the width of the window over which logarithms are smoothed, in logarithms of
            the step, at least 0; see :mod:`advisor.policy.smoothing`. 0: the recorded rates are
            used unchanged.
    """

    def __init__(self, profile: Profile, *, smoothing: float = 0.0) -> None:
        kept = informative_points(profile)
        self._steps = profile.steps[kept].astype(np.float64)
        rates = profile.unit_rates[kept].astype(np.float64)
        positive = rates > 0
        self._zero = ~(
            np.logical_or.accumulate(positive) & np.logical_or.accumulate(positive[::-1])[::-1]
        )
        with np.errstate(divide="ignore"):
            logs = np.log(rates)
        self._errors = profile.relative_errors[kept].astype(np.float64)
        if smoothing > 0:
            smoothed = smooth(self._steps, logs, positive, self._errors, smoothing)
            logs, self._errors = smoothed.logs, smoothed.errors
            rates = np.where(positive, np.exp(logs), rates)
        for group in np.flatnonzero((~positive & ~self._zero).any(axis=0)):
            some = positive[:, group]
            inside = ~self._zero[:, group]
            filled = np.interp(self._steps, self._steps[some], logs[some, group])
            logs[inside, group] = np.where(some, logs[:, group], filled)[inside]
        self._logs = logs
        self._has_zeros = bool(self._zero.any())
        self._places: list[float] = self._steps.tolist()
        self._rates = np.where(positive, rates, np.where(self._zero, 0.0, np.exp(logs)))
        self._coherences = (
            None if profile.coherences is None else profile.coherences[kept].astype(np.float64)
        )

        self._relative_updates = _relative_update_logs(profile, kept)

    def at(self, step: float) -> NDArray[np.float64]:
        """Return the unit rates at a step of the profile's training, shape [groups], each >= 0."""
        rates: NDArray[np.float64] = self.rates(self.moments([step]))[0]
        return rates

    def coherences_at(self, step: float) -> NDArray[np.float64] | None:
        """Return the coherences at a step, interpolated linearly, shape [roles]; None: unknown."""
        found = self.coherences(self.moments([step]))
        return None if found is None else found[0]

    def errors_at(self, step: float) -> NDArray[np.float64]:
        """Return the unit rates' relative errors at a step, interpolated linearly, [groups]."""
        errors: NDArray[np.float64] = self.errors(self.moments([step]))[0]
        return errors

    def moments(self, steps: Sequence[float]) -> Moments:
        """Return the positions of steps of the profile's training between its points."""
        left, right, parts = zip(*map(self._place, steps), strict=True)
        return Moments(np.array(left), np.array(right), np.array(parts)[:, None])

    def rates(self, moments: Moments) -> NDArray[np.float64]:
        """Return the unit rates at some moments, shape [moments, groups], each >= 0."""
        left, right, part = moments.left, moments.right, moments.part
        with np.errstate(invalid="ignore"):  # zeros, replaced below
            logs = (1 - part) * self._logs[left] + part * self._logs[right]
            rates: NDArray[np.float64] = np.exp(logs)
        if self._has_zeros:
            np.copyto(rates, 0.0, where=self._zero[left] | self._zero[right])
        if np.count_nonzero(part) < len(part):  # at a point, or beyond the ends
            np.copyto(rates, self._rates[left], where=part == 0)
        return rates

    def coherences(self, moments: Moments) -> NDArray[np.float64] | None:
        """Return the coherences at some moments, shape [moments, roles]; None: unknown."""
        return None if self._coherences is None else _between(self._coherences, moments)

    def errors(self, moments: Moments) -> NDArray[np.float64]:
        """Return the unit rates' relative errors at some moments, shape [moments, groups]."""
        return _between(self._errors, moments)

    def relative_updates(self, moments: Moments) -> NDArray[np.float64] | None:
        """Return the logarithms of relative updates at some moments, shape [moments, groups].

        A relative update is the RMS of an lr = 1 update over the RMS of the weights. It is NaN
        where one of them is unknown or zero; None: all are unknown.
        """
        logs = self._relative_updates
        return None if logs is None else _between(logs, moments)

    def _place(self, step: float) -> tuple[int, int, float]:
        """Return the points around a step, and its position between them in [0, 1)."""
        steps = self._places
        right = bisect_right(steps, step)
        left = max(right - 1, 0)
        if right in (0, len(steps)) or step == steps[left]:
            return left, left, 0.0
        return left, right, (step - steps[left]) / (steps[right] - steps[left])


def _relative_update_logs(profile: Profile, kept: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """Return the logarithms of the relative updates at the kept points; NaN: unknown or zero."""
    if profile.weight_rms is None or profile.update_rms is None:
        return None
    weights = profile.weight_rms[kept].astype(np.float64)
    updates = profile.update_rms[kept].astype(np.float64)
    known = (weights > 0) & (updates > 0)
    logs = np.full(known.shape, np.nan)
    logs[known] = np.log(updates[known]) - np.log(weights[known])
    return logs


def _between(known: NDArray[np.float64], moments: Moments) -> NDArray[np.float64]:
    """Return values at the points, interpolated linearly."""
    left, right, part = moments.left, moments.right, moments.part
    between: NDArray[np.float64] = (1 - part) * known[left] + part * known[right]
    return between
