"""Stored runs under another policy: what would have been recommended.

The measured unit rates are taken as they were; that the run would have trained a little differently
under other multipliers, and measured a little differently, is left out. Multipliers in force are
those of the replay itself: each measurement finds the ones that the replay answered before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from advisor.advice import Advice, LoadedProfile, Opening, Resolved
from advisor.policy import Measurement, Policy, Recommendation


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """One measurement under both policies.

    Attributes:
        step: The measurement's step.
        before: What was recommended.
        after: What would have been.
    """

    step: int
    before: Recommendation
    after: Recommendation

    @property
    def largest_factor(self) -> float:
        """The largest factor, up or down, between the multipliers of the two, at least 1."""
        logs = np.abs(np.log(self.after.multipliers) - np.log(self.before.multipliers))
        return float(np.exp(logs.max(initial=0.0)))

    @property
    def changed(self) -> int:
        """Number of groups whose multiplier would have been another by more than 1 %."""
        logs = np.abs(np.log(self.after.multipliers) - np.log(self.before.multipliers))
        return int((logs > 0.01).sum())


def replay(
    loaded: LoadedProfile,
    opening: Opening,
    measurements: Iterable[Measurement],
    policy: Policy,
    before: Policy,
) -> list[Replayed]:
    """Return what each measurement was answered, and what it would have been.

    Args:
        loaded: The profile.
        opening: The run's.
        measurements: The run's, in order.
        policy: The policy to try.
        before: The policy that the run had.

    Raises:
        LayoutMismatchError: The policy to try refuses the layout.
        InvalidValueError: It needs what profile or run do not have.
    """
    told = Advice(Resolved(loaded), dataclasses.replace(opening, policy=before))
    tried = Advice(Resolved(loaded), dataclasses.replace(opening, policy=policy))
    replayed: list[Replayed] = []
    for measurement in measurements:
        own = measurement
        if replayed and measurement.interval_steps:
            own = dataclasses.replace(measurement, multipliers=replayed[-1].after.multipliers)
        replayed.append(
            Replayed(measurement.step, told.recommend(measurement), tried.recommend(own))
        )
    return replayed
