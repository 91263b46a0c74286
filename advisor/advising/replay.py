"""Replays stored runs under a different policy: what would have been recommended.

The recorded unit rates are used unchanged. The replay ignores that different multipliers would have
changed the training, and so the measurements, a little. If a measurement was made under multipliers
of an earlier answer, the replay's own answer to that measurement replaces them. Otherwise, as for a
run that only observes, they are used unchanged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.advising.advice import Advice
from advisor.advising.opening import Opening
from advisor.advising.recipes import ResolvedRecipe
from advisor.advising.resolved_profile import LoadedProfile, ResolvedProfile
from advisor.policy import Measurement, Policy, Recommendation


@dataclass(frozen=True, slots=True, eq=False)
class AnsweredMeasurement:
    """A measurement of a stored run, and its answer.

    Attributes:
        measurement: The measurement.
        multipliers: The recommended multipliers, shape [groups].
        next_measurement_step: The step at which to measure next.
    """

    measurement: Measurement
    multipliers: NDArray[np.float64]
    next_measurement_step: int


@dataclass(frozen=True, slots=True, eq=False)
class ReplayedMeasurement:
    """A measurement under both policies.

    Attributes:
        before: The recorded measurement and answer.
        after: The answer under the new policy.
    """

    before: AnsweredMeasurement
    after: Recommendation

    @property
    def largest_factor(self) -> float:
        """Largest factor, up or down, between the multipliers of both answers, at least 1."""
        return float(np.exp(self._moves().max(initial=0.0)))

    @property
    def changed(self) -> int:
        """Number of groups whose multiplier differs by more than 1%."""
        return int((self._moves() > 0.01).sum())

    def _moves(self) -> NDArray[np.float64]:
        moves = np.abs(np.log(self.after.multipliers) - np.log(self.before.multipliers))
        return np.asarray(moves, dtype=np.float64)


def replay(
    loaded: LoadedProfile,
    opening: Opening,
    history: Iterable[AnsweredMeasurement],
    policy: Policy,
    *,
    recipe: ResolvedRecipe | None = None,
) -> list[ReplayedMeasurement]:
    """Return each measurement with its recorded answer and the one under a different policy.

    Args:
        loaded: The profile.
        opening: The run's opening.
        history: The run's measurements, in order.
        policy: The policy to try.
        recipe: The recipe of the opening, else of the policy; None: they name none, or one that
            comes with the service.

    Raises:
        LayoutMismatchError: The policy refuses the layout.
        InvalidValueError: The policy needs coherences or planned steps that the profile or the run
            does not have.
    """
    advice = Advice(
        ResolvedProfile(loaded), dataclasses.replace(opening, policy=policy), recipe=recipe
    )
    replayed: list[ReplayedMeasurement] = []
    advised = np.zeros(len(opening.layout), dtype=np.bool_)
    for answered in history:
        measurement = answered.measurement
        earlier = None if opening.observe_only else _answer_in_force(measurement, replayed)
        if earlier is not None:
            measurement = dataclasses.replace(
                measurement, multipliers=earlier.after.multipliers, advised=advised
            )
        after = advice.recommend(measurement)
        advised = advised | np.array([outcome.is_recommended for outcome in after.outcomes])
        replayed.append(ReplayedMeasurement(answered, after))
    return replayed


def _answer_in_force(
    measurement: Measurement, replayed: Sequence[ReplayedMeasurement]
) -> ReplayedMeasurement | None:
    """Return the newest answer whose multipliers were in force during a measurement, if any."""
    return next(
        (
            one
            for one in reversed(replayed)
            if np.array_equal(one.before.multipliers, measurement.multipliers)
        ),
        None,
    )
