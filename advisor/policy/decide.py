r"""From one measurement to multipliers: a short pipeline of stages, each of one function shape.

Stages work on multipliers :math:`m` that begin as the ratios reference / measured. Beside them lie
the multipliers :math:`m_0` that were in force during the measurement, and a stage that doubts the
measurement moves :math:`\log m` towards :math:`\log m_0`; a stage that cannot use it holds
:math:`m_0`. Nothing is remembered from one measurement to the next: what a stage needs of the past
comes with the measurement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.policy.errors import InvalidValueError
from advisor.policy.mapping import LayoutMapping
from advisor.policy.measurement import Measurement
from advisor.policy.reference import Profile, Reference
from advisor.policy.rules import Alignment, Limit, Outcome, Policy

Floats = NDArray[np.float64]

# A move of multipliers below this (RMS of the logarithms) is rest: measure half as often; above
# twice this it is motion: measure twice as often.
_REST = 0.1
_LARGEST = float(np.finfo(np.float64).max)
_WHOLE = 1e-3  # a move made whole but for this part is left alone


@dataclass(frozen=True, slots=True, eq=False)
class Recommendation:
    """The answer to one measurement, in layout order.

    Attributes:
        multipliers: Finite and inside the policy's bounds, shape [groups].
        outcomes: Why each is what it is.
        references: Reference unit rates after depth, 0 where unmatched, shape [groups].
        depth_factors: Reference over the mean base rate of what a group stands for, 0 where there
            is none, shape [groups].
        ratios: Reference over measured unit rate before any safeguard, 0 where one of them is
            missing or zero, shape [groups].
        limits: The safeguards that changed each multiplier, :class:`Limit` as integers, [groups].
        next_measurement_step: The step at which to measure next.
        probes: With how many probes; 0: as the client likes.
        profile_step: The step of the profile's training that was compared with.
    """

    multipliers: Floats
    outcomes: tuple[Outcome, ...]
    references: Floats
    depth_factors: Floats
    ratios: Floats
    limits: NDArray[np.int64]
    next_measurement_step: int
    probes: int
    profile_step: float


@dataclass(slots=True, eq=False)
class _Draft:
    """What the stages work on: multipliers so far, and for settled groups the outcome's reason."""

    measurement: Measurement
    matched: NDArray[np.bool_]
    references: Floats
    reference_errors: Floats
    multipliers: Floats
    outcomes: NDArray[np.object_]
    limits: NDArray[np.int64]

    @property
    def free(self) -> NDArray[np.bool_]:
        """Where nothing holds the multiplier in force."""
        return np.array(self.outcomes == Outcome.MATCHED, dtype=np.bool_)

    def hold(self, where: NDArray[np.bool_], outcome: Outcome) -> None:
        """Keep the multipliers in force where ``where`` holds and nothing was settled before."""
        where = where & self.free
        self.multipliers[where] = self.measurement.multipliers[where]
        self.outcomes[where] = outcome

    def replace(self, where: NDArray[np.bool_], multipliers: Floats, limit: Limit) -> None:
        """Put other multipliers where ``where`` holds, and note what acted."""
        where = where & (multipliers != self.multipliers)
        self.multipliers[where] = multipliers[where]
        self.limits[where] |= limit

    def moved(self, parts: Floats | float) -> Floats:
        """Return multipliers moved by parts of the way, in logarithms, from those in force."""
        before = self.measurement.multipliers
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            moves = np.log(self.multipliers) - np.log(before)
            return np.where(parts == 1.0, self.multipliers, before * np.exp(parts * moves))


_Stage = Callable[[_Draft, Policy], None]


def _hold_unmatched(draft: _Draft, _policy: Policy) -> None:
    draft.hold(~draft.matched, Outcome.UNMATCHED)


def _hold_frozen(draft: _Draft, policy: Policy) -> None:
    after = policy.freeze_after_step
    late = after is not None and draft.measurement.step >= after
    again = draft.measurement.moves & policy.first_step_only
    draft.hold(again | late, Outcome.HELD_FROZEN)


def _hold_zero_rates(draft: _Draft, policy: Policy) -> None:
    """Hold where a rate is zero or, beside the median of the model, but for rounding.

    The median, because one group that explodes must not make all others look like nothing.
    """
    zero = np.zeros(len(draft.matched), dtype=np.bool_)
    for rates in (draft.measurement.unit_rates, draft.references):
        usual = float(np.median(rates[rates > 0])) if rates.any() else 0.0
        zero |= (rates == 0) | (rates < policy.min_rate_ratio * usual)
    draft.hold(zero, Outcome.HELD_ZERO_RATE)


def _hold_low_confidence(draft: _Draft, policy: Policy) -> None:
    """Hold where the ratio's relative error, of both its parts, is above the limit."""
    errors = np.hypot(draft.measurement.relative_errors, draft.reference_errors)
    draft.hold(errors > policy.max_relative_error, Outcome.HELD_LOW_CONFIDENCE)


def _weigh(draft: _Draft, policy: Policy) -> None:
    r"""Go :math:`d^2 / (d^2 + e^2)` of the way d, where e is the relative error.

    A move that stands far out of the noise is made whole, one inside it hardly at all (Wiener's
    filter for a signal of size d in noise of size e; e is the error of a logarithm to first order).
    A first recommendation has nothing yet to be weighed against.
    """
    errors = draft.measurement.relative_errors
    if not policy.weigh_by_confidence or not errors.any():
        return
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        moves = np.log(draft.multipliers) - np.log(draft.measurement.multipliers)
        weights = 1 / (1 + np.square(errors / moves))
    weights = np.where(errors == 0, 1.0, np.where(moves == 0, 0.0, weights))
    noticed = draft.free & draft.measurement.moves & (weights < 1 - _WHOLE)
    draft.replace(noticed, draft.moved(weights), Limit.CONFIDENCE)


def _damp(draft: _Draft, policy: Policy) -> None:
    """Raise less while steps are too large for first-order rates; lowering is always safe."""
    limit, error = policy.max_linearity_error, draft.measurement.linearity_error
    if limit is None or error is None or error <= limit:
        return
    raised = draft.free & (draft.multipliers > draft.measurement.multipliers)
    draft.replace(raised, draft.moved(limit / error), Limit.DAMPING)


def _slew(draft: _Draft, policy: Policy) -> None:
    """Bound each step; a first recommendation is free: there is nothing yet that could jump."""
    if policy.slew_limit is None:
        return
    before = draft.measurement.multipliers
    with np.errstate(over="ignore"):  # what leaves the range of numbers is no bound
        slower = np.clip(draft.multipliers, before / policy.slew_limit, before * policy.slew_limit)
    draft.replace(draft.free & draft.measurement.moves, slower, Limit.SLEW)


def _bound(draft: _Draft, policy: Policy) -> None:
    raised = np.maximum(draft.multipliers, policy.min_multiplier)
    draft.replace(raised > draft.multipliers, raised, Limit.MIN_MULTIPLIER)
    lowered = np.minimum(draft.multipliers, policy.max_multiplier)
    draft.replace(lowered < draft.multipliers, lowered, Limit.MAX_MULTIPLIER)


def _name_limits(draft: _Draft, _policy: Policy) -> None:
    """Say in the outcome that a limit acted; a shrunk move is still the measurement's own."""
    free = draft.free
    bounds = (draft.limits & (Limit.MIN_MULTIPLIER | Limit.MAX_MULTIPLIER)) != 0
    slowed = (draft.limits & (Limit.SLEW | Limit.DAMPING)) != 0
    draft.outcomes[free & slowed] = Outcome.LIMITED
    draft.outcomes[free & bounds] = Outcome.CLAMPED


_STAGES: tuple[_Stage, ...] = (
    _hold_unmatched,
    _hold_frozen,
    _hold_zero_rates,
    _hold_low_confidence,
    _weigh,
    _damp,
    _slew,
    _bound,
    _name_limits,
)


def recommend(
    profile: Profile,
    reference: Reference,
    mapping: LayoutMapping,
    policy: Policy,
    measurement: Measurement,
) -> Recommendation:
    """Return the multipliers for one measurement.

    Args:
        profile: The profile.
        reference: ``Reference(profile)``, built once.
        mapping: The run's layout mapped onto the profile's, built once.
        policy: The rules, the profile's own or the run's.
        measurement: What the run measured.

    Raises:
        InvalidValueError: The measurement is out of range, or alignment by progress lacks the run's
            planned steps.
    """
    measurement.check(len(mapping.matches))
    profile_step = aligned_step(
        profile, policy, measurement.step, total_steps=measurement.total_steps
    )
    base_rates = reference.at(profile_step)
    references = mapping.references(base_rates, reference.coherences_at(profile_step))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratios = references / measurement.unit_rates
    draft = _Draft(
        measurement,
        mapping.matched,
        references,
        mapping.combined(reference.errors_at(profile_step)),
        ratios.copy(),
        np.full(len(ratios), Outcome.MATCHED, dtype=np.object_),
        np.zeros(len(ratios), dtype=np.int64),
    )
    for stage in _STAGES:
        stage(draft, policy)
    return Recommendation(
        multipliers=draft.multipliers,
        outcomes=tuple(draft.outcomes),
        references=references,
        depth_factors=mapping.depth_factors(references, base_rates),
        ratios=np.where(measurement.unit_rates > 0, np.minimum(ratios, _LARGEST), 0.0),
        limits=draft.limits,
        next_measurement_step=measurement.step
        + _interval(policy, measurement, draft.multipliers, draft.outcomes),
        probes=_probes(policy, measurement, draft.outcomes),
        profile_step=profile_step,
    )


def aligned_step(profile: Profile, policy: Policy, step: int, *, total_steps: int) -> float:
    """Return the step of the profile's training that a step of a run is compared with.

    Args:
        profile: The profile.
        policy: The rules.
        step: The run's step.
        total_steps: Planned steps of the run; 0: unknown.

    Raises:
        InvalidValueError: Alignment by progress, and the planned steps are unknown.
    """
    if policy.alignment is Alignment.STEP:
        return float(step)
    if total_steps < 1:
        raise InvalidValueError(
            "total_steps",
            "alignment by progress needs the run's planned number of steps; give total_steps",
        )
    return step / total_steps * profile.total_steps


def _interval(
    policy: Policy,
    measurement: Measurement,
    multipliers: Floats,
    outcomes: NDArray[np.object_],
) -> int:
    """Return after how many steps to measure next: sooner while multipliers move."""
    resting = (outcomes == Outcome.HELD_FROZEN) | (outcomes == Outcome.UNMATCHED)
    if resting.all():
        return policy.max_interval_steps  # nothing depends on it but what people look at
    if measurement.interval_steps == 0:
        return policy.min_interval_steps
    moves = np.log(multipliers) - np.log(measurement.multipliers)
    move = float(np.sqrt(np.mean(np.square(moves))))
    factor = min(max(_REST / move, 0.5), 2.0) if move > 0 else 2.0
    wanted = round(measurement.interval_steps * factor)
    return min(max(wanted, policy.min_interval_steps), policy.max_interval_steps)


def _probes(policy: Policy, measurement: Measurement, outcomes: NDArray[np.object_]) -> int:
    """Return how many probes bring nine groups of ten to the wanted relative error.

    The error falls with the square root of the number of probes. Groups that no number of probes
    would help (zero rates, no counterpart) do not count.
    """
    if policy.target_relative_error is None or measurement.probes == 0:
        return 0
    useful = np.array([o not in {Outcome.HELD_ZERO_RATE, Outcome.UNMATCHED} for o in outcomes])
    errors = measurement.relative_errors[useful]
    if not errors.any():
        return min(measurement.probes, policy.max_probes)  # errors unknown: nothing to go by
    error = float(np.quantile(errors, 0.9, method="inverted_cdf"))
    ratio = min(error / policy.target_relative_error, float(policy.max_probes))
    wanted = measurement.probes * ratio**2
    return int(min(max(np.ceil(wanted * (1 - 1e-9)), 1), policy.max_probes))
