"""Recommendations: multipliers with the reason for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.policy.arrays import Floats
from advisor.policy.rules import Outcome

Codes = NDArray[np.uint8]

OUTCOMES = tuple(Outcome)
"""The outcomes by code."""


@dataclass(frozen=True, slots=True, eq=False)
class Recommendation:
    """The answer to one measurement, in layout order.

    Attributes:
        multipliers: Finite and inside the policy's bounds, shape [groups].
        outcome_codes: Reason for each multiplier, as an index of ``OUTCOMES``, shape [groups].
        references: Reference unit rates after the depth rule, 0 where unmatched, shape [groups].
        depth_factors: Reference over the mean base rate of a group's counterparts, 0 where there
            are none, shape [groups].
        ratios: Reference over measured unit rate before any safeguard, 0 where one of them is
            missing or zero, shape [groups].
        limits: Safeguards that changed each multiplier, :class:`Limit` as integers, shape [groups].
        next_measurement_step: The step at which to measure next.
        probes: Number of probes to measure with next; 0: the client chooses.
        profile_step: The step of the profile's training that was compared with.
        priors: Multipliers from shapes alone, 0 where there is none, shape [groups].
    """

    multipliers: Floats
    outcome_codes: Codes
    references: Floats
    depth_factors: Floats
    ratios: Floats
    limits: NDArray[np.int64]
    next_measurement_step: int
    probes: int
    profile_step: float
    priors: Floats

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The reason for each multiplier."""
        return tuple(OUTCOMES[code] for code in self.outcome_codes.tolist())


@dataclass(frozen=True, slots=True, eq=False)
class Recommendations:
    """The answers to measurements of several runs, one row each; see :class:`Recommendation`.

    Attributes:
        multipliers: Shape [runs, groups].
        outcome_codes: Shape [runs, groups].
        references: Shape [runs, groups].
        depth_factors: Shape [runs, groups].
        ratios: Shape [runs, groups].
        limits: Shape [runs, groups].
        next_measurement_steps: Shape [runs].
        probes: Shape [runs].
        profile_steps: Shape [runs].
        priors: Shape [groups], the same for all runs.
    """

    multipliers: Floats
    outcome_codes: Codes
    references: Floats
    depth_factors: Floats
    ratios: Floats
    limits: NDArray[np.int64]
    next_measurement_steps: Sequence[int]
    probes: Sequence[int]
    profile_steps: Sequence[float]
    priors: Floats

    def row(self, run: int) -> Recommendation:
        """Return the answer to one run."""
        return Recommendation(
            multipliers=self.multipliers[run],
            outcome_codes=self.outcome_codes[run],
            references=self.references[run],
            depth_factors=self.depth_factors[run],
            ratios=self.ratios[run],
            limits=self.limits[run],
            next_measurement_step=self.next_measurement_steps[run],
            probes=self.probes[run],
            profile_step=self.profile_steps[run],
            priors=self.priors,
        )
