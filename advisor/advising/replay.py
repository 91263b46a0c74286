"""Stored runs under another policy: what would have been recommended.

The measured unit rates are taken as they were; that the run would have trained a little
differently under other multipliers, and measured a little differently, is left out. Where a
measurement was made under multipliers that an earlier answer gave, the replay's own answer to that
one takes their place; where not (a run that only observes), they stay as they were.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.advising.advice import Advice, LoadedProfile, Opening, ResolvedProfile
from advisor.policy import Measurement, Policy, Recommendation


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """One measurement of a stored run, and what it was told.

    Attributes:
        measurement: What was measured.
        multipliers: What was recommended, shape [groups].
        next_measurement_step: When to measure next.
    """

    measurement: Measurement
    multipliers: NDArray[np.float64]
    next_measurement_step: int


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """One measurement under both policies.

    Attributes:
        before: What was recommended.
        after: What would have been.
    """

    before: Answered
    after: Recommendation

    @property
    def largest_factor(self) -> float:
        """The largest factor, up or down, between the multipliers of the two, at least 1."""
        return float(np.exp(self._moves().max(initial=0.0)))

    @property
    def changed(self) -> int:
        """Number of groups whose multiplier would have been another by more than 1 %."""
        return int((self._moves() > 0.01).sum())

    def _moves(self) -> NDArray[np.float64]:
        moves = np.abs(np.log(self.after.multipliers) - np.log(self.before.multipliers))
        return np.asarray(moves, dtype=np.float64)


def replay(
    loaded: LoadedProfile, opening: Opening, history: Iterable[Answered], policy: Policy
) -> list[Replayed]:
    """Return what each measurement was answered, and what it would have been.

    Args:
        loaded: The profile.
        opening: The run's.
        history: The run's measurements, in order.
        policy: The policy to try.

    Raises:
        LayoutMismatchError: The policy refuses the layout.
        InvalidValueError: It needs what profile or run do not have.
    """
    advice = Advice(ResolvedProfile(loaded), dataclasses.replace(opening, policy=policy))
    replayed: list[Replayed] = []
    advised = np.zeros(len(opening.layout), dtype=np.bool_)
    for answered in history:
        measurement = answered.measurement
        earlier = None if opening.observe_only else _that_led_to(measurement, replayed)
        if earlier is not None:
            measurement = dataclasses.replace(
                measurement, multipliers=earlier.after.multipliers, advised=advised
            )
        after = advice.recommend(measurement)
        advised = advised | np.array([outcome.is_recommended for outcome in after.outcomes])
        replayed.append(Replayed(answered, after))
    return replayed


def _that_led_to(measurement: Measurement, replayed: Sequence[Replayed]) -> Replayed | None:
    """Return the newest answer that a measurement was made under, if there is one."""
    return next(
        (
            one
            for one in reversed(replayed)
            if np.array_equal(one.before.multipliers, measurement.multipliers)
        ),
        None,
    )
