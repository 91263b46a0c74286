r"""Turns measurements into multipliers: a short pipeline of stages of one function type.

The stages work on multipliers :math:`m`, which start as the ratios reference / measured, and on the
multipliers :math:`m_0` that were in force during the measurement. A stage that doubts the
measurement moves :math:`\log m` towards :math:`\log m_0`; a stage that cannot use it holds
:math:`m_0`, or the prior of a group that has never been advised. There is no state between
measurements: what a stage needs of the past comes with the measurement.

All arrays have a row for each run. Runs of one layout on one profile that measure at the same time
are computed together, and each row is independent of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.policy.arrays import Floats
from advisor.policy.errors import InvalidValueError
from advisor.policy.layout_mapping import LayoutMapping
from advisor.policy.measurement import Measurement, Measurements
from advisor.policy.recommendation import OUTCOMES, Codes, Recommendation, Recommendations
from advisor.policy.reference import Profile, Reference
from advisor.policy.rules import Alignment, Limit, Outcome, Policy, PriorRule

# A move of multipliers by this much (RMS of the logarithms) keeps the interval. A smaller move
# lengthens it in proportion, at most to twice; a larger one shortens it, at most to half.
_STEADY_MOVE = 0.1
_LARGEST = float(np.finfo(np.float64).max)
_START_STEPS = 25  # for how many steps of measurements the start counts in averages
_NEGLIGIBLE = 1e-3  # a weight this close to 1 leaves the move unchanged

# Outcome codes and rules as module constants: members of an enum are slow to look up.
_MATCHED = OUTCOMES.index(Outcome.MATCHED)
_CLAMPED = OUTCOMES.index(Outcome.CLAMPED)
_LOW_CONFIDENCE = OUTCOMES.index(Outcome.HELD_LOW_CONFIDENCE)
_ZERO_RATE = OUTCOMES.index(Outcome.HELD_ZERO_RATE)
_UNMATCHED = OUTCOMES.index(Outcome.UNMATCHED)
_FROZEN = OUTCOMES.index(Outcome.HELD_FROZEN)
_LIMITED = OUTCOMES.index(Outcome.LIMITED)
_BY_MIN, _BY_MAX = int(Limit.MIN_MULTIPLIER), int(Limit.MAX_MULTIPLIER)
_BY_SLEW, _BY_DAMPING = int(Limit.SLEW), int(Limit.DAMPING)
_BY_CONFIDENCE, _BY_AVERAGING = int(Limit.CONFIDENCE), int(Limit.AVERAGING)
_BY_CORRECTION, _BY_RELATIVE_UPDATE = int(Limit.CORRECTION), int(Limit.RELATIVE_UPDATE)
_BY_STEP = Alignment.STEP


@dataclass(slots=True, eq=False)
class _Draft:
    """What the stages work on: the multipliers so far, and the outcomes of settled groups.

    Attributes:
        measured: The measurements.
        matched: Whether each group has a counterpart, shape [groups].
        references: As in the recommendations.
        reference_errors: Their relative errors, shape [runs, groups].
        multipliers: So far.
        outcomes: Codes so far; that of ``MATCHED`` for groups that are not settled.
        limits: As in the recommendations, so far.
        before: The multipliers that moves start from, shape [runs, groups]: those in force, or the
            priors of groups that were never advised, both within the correction bound.
        has_before: Whether a group has such a multiplier, shape [runs, groups]. A first
            recommendation without a prior has none: there is nothing to weigh it against.
        priors: Multipliers from shapes alone, 0 where there is none, shape [groups].
        base_relative_updates: Logarithms of the relative updates of each group's counterparts,
            shape [runs, groups], NaN: unknown; None: all are unknown.
    """

    measured: Measurements
    matched: NDArray[np.bool_]
    references: Floats
    reference_errors: Floats
    multipliers: Floats
    outcomes: Codes
    limits: NDArray[np.int64]
    before: Floats
    has_before: NDArray[np.bool_]
    priors: Floats
    base_relative_updates: Floats | None

    @property
    def free(self) -> NDArray[np.bool_]:
        """Whether each multiplier is free to change, shape [runs, groups]."""
        free: NDArray[np.bool_] = self.outcomes == _MATCHED
        return free

    def hold(self, where: NDArray[np.bool_], outcome: int) -> None:
        """Keep the multipliers from before where ``where`` is true and the group is still free."""
        if not _any(where):
            return
        where = where & self.free
        np.copyto(self.multipliers, self.before, where=where)
        self.outcomes[where] = outcome

    def replace(self, where: NDArray[np.bool_], multipliers: Floats | float, limit: int) -> None:
        """Replace the multipliers where ``where`` is true, and record the limit that did it."""
        where = where & (multipliers != self.multipliers)
        np.copyto(self.multipliers, multipliers, where=where)
        np.bitwise_or(self.limits, limit, out=self.limits, where=where)

    def moves(self) -> Floats:
        """Return the logarithms of the multipliers over those from before."""
        return np.log(self.multipliers) - np.log(self.before)

    def moved(self, parts: Floats | float, moves: Floats) -> Floats:
        """Return the multipliers from before, moved by fractions of :meth:`moves`."""
        moved = self.before * np.exp(parts * moves)
        return np.where(parts == 1.0, self.multipliers, moved)


def _any(values: NDArray[np.generic]) -> bool:
    """Return whether any value is true; faster than ``np.any`` for small arrays."""
    return bool(np.count_nonzero(values))


_Stage = Callable[[_Draft, Policy], None]


def _hold_unmatched(draft: _Draft, _policy: Policy) -> None:
    draft.hold(~draft.matched, _UNMATCHED)


def _hold_frozen(draft: _Draft, policy: Policy) -> None:
    after = policy.freeze_after_step
    if after is None and not policy.first_step_only:
        return
    late = [[after is not None and step >= after] for step in draft.measured.steps]
    again = draft.measured.moves & policy.first_step_only
    draft.hold(again | np.array(late), _FROZEN)


def _hold_zero_rates(draft: _Draft, policy: Policy) -> None:
    """Hold where a rate is zero, or so small beside the model's median that it is rounding only.

    The median is used because one exploding group must not make all other rates look like zero.
    """
    for rates in (draft.measured.unit_rates, draft.references):
        # If the smallest rate is not zero beside the largest, no rate is zero beside the median.
        smallest, largest = np.minimum.reduce(rates, axis=1), np.maximum.reduce(rates, axis=1)
        usual = np.zeros(len(rates))
        for run in np.flatnonzero(
            (smallest == 0) | (smallest < policy.min_rate_ratio * largest)
        ).tolist():
            if largest[run] > 0:
                usual[run] = np.median(rates[run][rates[run] > 0])
        zero = (rates == 0) | (rates < policy.min_rate_ratio * usual[:, None])
        draft.hold(zero, _ZERO_RATE)


def _hold_low_confidence(draft: _Draft, policy: Policy) -> None:
    """Hold where the relative error of the ratio, from both rates, is above the limit."""
    errors = np.hypot(draft.measured.relative_errors, draft.reference_errors)
    draft.hold(errors > policy.max_relative_error, _LOW_CONFIDENCE)


def _weigh(draft: _Draft, policy: Policy) -> None:
    r"""Make :math:`d^2 / (d^2 + e^2)` of a move d, where e is the relative error.

    A move far above the noise is made almost whole, one inside the noise hardly at all. This is
    Wiener's filter for a signal of size d in noise of size e; to first order, e is the error of the
    logarithm.
    """
    errors = draft.measured.relative_errors
    if not policy.weigh_by_confidence or not _any(errors):
        return
    moves = draft.moves()
    weights = 1 / (1 + np.square(errors / moves))
    np.copyto(weights, 0.0, where=moves == 0)
    np.copyto(weights, 1.0, where=errors == 0)
    noticed = draft.free & draft.has_before & (weights < 1 - _NEGLIGIBLE)
    if _any(noticed):
        draft.replace(noticed, draft.moved(weights, moves), _BY_CONFIDENCE)


def _average(draft: _Draft, policy: Policy) -> None:
    r"""Make :math:`i / (w s + f)` of a move, at step s, i steps after the previous measurement.

    With a window w of 1, the multiplier is then the mean (of logarithms) of all multipliers that
    were measured, each weighted by the interval that it ends. What the run started from (a prior,
    or the first recommendation) counts like f = 25 steps. With a smaller window, step t has about
    the weight :math:`(t / s)^{1 / w - 1}`.

    Rates of both models vary with the batches they are measured on by more than the noise of the
    probes, and a learning rate that jumps costs more than one that lags. The window is a fraction
    of the training, not a number of steps, so that trainings of all lengths are treated alike. A
    recommendation whose interval is unknown is not averaged, but a first one moves a prior as a
    measurement of one step does.
    """
    window = policy.averaging_window
    if window == 0:
        return
    intervals = np.array(draft.measured.interval_steps, dtype=np.float64)[:, None]
    steps = np.array(draft.measured.steps, dtype=np.float64)[:, None]
    first = (intervals == 0) & ~draft.measured.moves
    parts = np.where(first, 1.0, intervals) / (window * steps + _START_STEPS)
    parts = np.where((parts > 0) & draft.has_before, np.minimum(parts, 1.0), 1.0)
    averaged = draft.free & (parts < 1)
    if _any(averaged):
        draft.replace(averaged, draft.moved(parts, draft.moves()), _BY_AVERAGING)


def _damp(draft: _Draft, policy: Policy) -> None:
    """Shrink increases while steps are too large for first-order rates; decreases are safe."""
    limit = policy.max_linearity_error
    if limit is None:
        return
    parts = np.array([[limit / (error or limit)] for error in draft.measured.linearity_errors])
    if not _any(parts < 1):
        return
    raised = draft.free & (draft.multipliers > draft.before) & (parts < 1)
    draft.replace(raised, draft.moved(parts, draft.moves()), _BY_DAMPING)


def _slew(draft: _Draft, policy: Policy) -> None:
    """Limit the factor of each move."""
    up, down = policy.rise_limit, None
    if policy.slew_limit is not None:
        up, down = min(up or policy.slew_limit, policy.slew_limit), policy.slew_limit
    if up is None:
        return
    with np.errstate(over="ignore"):  # an infinite bound does not limit
        slower = np.minimum(draft.multipliers, draft.before * up)
        if down is not None:
            slower = np.maximum(slower, draft.before / down)
    draft.replace(draft.free & draft.has_before, slower, _BY_SLEW)


def _correct(draft: _Draft, policy: Policy) -> None:
    """Keep what is measured within a factor of what the shapes say.

    Rates follow the weights, and the weights follow the multipliers. Behind a norm, a multiplier
    that is too high lowers the rate, which asks for a higher multiplier still. The bound opens the
    loop: however the rates react, a multiplier stays near one that is right for the shapes.

    It comes first, so that a single wild measurement moves an average no more than one at the bound
    does, and again after the other limits.
    """
    has_prior = draft.priors > 0
    if not _any(has_prior):
        return
    corrected = _near_priors(draft.multipliers, draft.priors, policy)
    draft.replace(draft.free & has_prior, corrected, _BY_CORRECTION)


def _near_priors(multipliers: Floats, priors: Floats, policy: Policy) -> Floats:
    """Return multipliers near their priors, unchanged where there is no prior."""
    lowest = priors / policy.lower_correction_bound
    with np.errstate(over="ignore"):
        near = np.clip(multipliers, lowest, priors * policy.correction_bound)
    return np.where(priors > 0, near, multipliers)


def _limit_relative_updates(draft: _Draft, policy: Policy) -> None:
    """Keep each group's relative update below a multiple of the base's at the same learning rate.

    It needs no shapes. It holds back what runs away through the norm of the weights: a group whose
    weights grow, or whose rate vanishes, does not get updates that are large beside its weights.
    """
    limit, base = policy.max_relative_update, draft.base_relative_updates
    weights, updates = draft.measured.weight_rms, draft.measured.update_rms
    if limit is None or base is None or weights is None or updates is None:
        return
    own = np.log(updates) - np.log(weights)
    highest = limit * np.exp(base - own)
    known = np.isfinite(base) & np.isfinite(own)
    lower = np.minimum(draft.multipliers, highest, where=known, out=draft.multipliers.copy())
    draft.replace(draft.free & known, lower, _BY_RELATIVE_UPDATE)


def _bound(draft: _Draft, policy: Policy) -> None:
    without_prior = draft.free & (draft.priors == 0)
    lowest, highest = policy.min_multiplier_without_prior, policy.max_multiplier_without_prior
    _clip(draft, lowest, highest, without_prior)
    _clip(draft, policy.min_multiplier, policy.max_multiplier, True)


def _clip(draft: _Draft, lowest: float, highest: float, where: NDArray[np.bool_] | bool) -> None:
    low = (draft.multipliers < lowest) & where
    if _any(low):
        draft.replace(low, lowest, _BY_MIN)
    high = (draft.multipliers > highest) & where
    if _any(high):
        draft.replace(high, highest, _BY_MAX)


def _name_limits(draft: _Draft, _policy: Policy) -> None:
    """Set the outcome of groups that slew, damping, the correction bound or bounds limited.

    Moves that confidence or averaging shrank keep the outcome ``MATCHED``.
    """
    slowed = draft.limits & _LIMITING
    bounded = draft.limits & (_BY_MIN | _BY_MAX)
    if _any(slowed | bounded):
        free = draft.free
        draft.outcomes[free & (slowed != 0)] = _LIMITED
        draft.outcomes[free & (bounded != 0)] = _CLAMPED


_LIMITING = _BY_SLEW | _BY_DAMPING | _BY_CORRECTION | _BY_RELATIVE_UPDATE
_STAGES: tuple[_Stage, ...] = (
    _hold_unmatched,
    _hold_frozen,
    _hold_zero_rates,
    _hold_low_confidence,
    _correct,
    _weigh,
    _average,
    _damp,
    _slew,
    _limit_relative_updates,
    _correct,  # the bound around the prior has the last word
    _bound,
    _name_limits,
)


def recommend(
    profile: Profile,
    reference: Reference,
    mapping: LayoutMapping,
    policy: Policy,
    measurement: Measurement,
    *,
    priors: Floats | None = None,
) -> Recommendation:
    """Return the multipliers for one measurement.

    Args:
        profile: The profile.
        reference: ``Reference(profile)``, built once.
        mapping: The run's layout mapped onto the profile's, built once.
        policy: The rules, the profile's own or the run's.
        measurement: What the run measured.
        priors: As :func:`.priors` returned them; None: no group has one.

    Raises:
        InvalidValueError: The measurement is out of range, or alignment by progress lacks the run's
            planned steps.
    """
    measurement.check(len(mapping.matches))
    measured = Measurements.of([measurement])
    return recommend_all(profile, reference, mapping, policy, measured, priors=priors).row(0)


def recommend_all(
    profile: Profile,
    reference: Reference,
    mapping: LayoutMapping,
    policy: Policy,
    measured: Measurements,
    *,
    priors: Floats | None = None,
) -> Recommendations:
    """Return the multipliers for measurements of several runs, equal to those of each run alone.

    Args:
        profile: The profile that all runs use.
        reference: ``Reference(profile)``, built once.
        mapping: Their layout mapped onto the profile's, built once.
        policy: Their rules.
        measured: What they measured, checked.
        priors: As :func:`.priors` returned them, shape [groups]; None: no group has one.

    Raises:
        InvalidValueError: Alignment by progress lacks a run's planned steps.
    """
    profile_steps = [
        aligned_step(profile, policy, step, total_steps=total_steps)
        for step, total_steps in zip(measured.steps, measured.total_steps, strict=True)
    ]
    moments = reference.moments(profile_steps)
    base_rates = reference.rates(moments)
    relative_updates = (
        None if policy.max_relative_update is None else reference.relative_updates(moments)
    )
    if priors is None or policy.prior is PriorRule.NONE:
        priors = np.zeros(len(mapping.matches))
    references = mapping.references(base_rates, reference.coherences(moments))
    # Zero and extreme rates are handled by the stages.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratios = references / measured.unit_rates
        draft = _Draft(
            measured,
            mapping.matched,
            references,
            mapping.combined(reference.errors(moments)),
            ratios.copy(),
            np.full(ratios.shape, _MATCHED, dtype=np.uint8),
            np.zeros(ratios.shape, dtype=np.int64),
            _near_priors(
                np.where(measured.moves | (priors == 0), measured.multipliers, priors),
                priors,
                policy,
            ),
            measured.moves | (priors > 0),
            priors,
            None if relative_updates is None else mapping.combined(relative_updates),
        )
        for stage in _STAGES:
            stage(draft, policy)
    known_ratios = np.minimum(ratios, _LARGEST)
    np.copyto(known_ratios, 0.0, where=measured.unit_rates == 0)
    return Recommendations(
        multipliers=draft.multipliers,
        outcome_codes=draft.outcomes,
        references=references,
        depth_factors=mapping.depth_factors(references, base_rates),
        ratios=known_ratios,
        limits=draft.limits,
        next_measurement_steps=_next_steps(policy, draft),
        probes=_probes(policy, draft),
        profile_steps=profile_steps,
        priors=priors,
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
    if policy.alignment is _BY_STEP:
        return float(step)
    if total_steps < 1:
        raise InvalidValueError(
            "total_steps",
            "alignment by progress needs the run's planned number of steps; give total_steps",
        )
    return step * profile.total_steps / total_steps  # this order keeps whole numbers whole


def _next_steps(policy: Policy, draft: _Draft) -> list[int]:
    """Return when each run should measure next: sooner while its multipliers move."""
    changeable = (draft.outcomes != _FROZEN) & (draft.outcomes != _UNMATCHED)
    waiting = (draft.outcomes == _ZERO_RATE) & ~draft.measured.moves
    moves = np.sqrt(np.add.reduce(np.square(draft.moves()), axis=1) / changeable.shape[1])
    found = []
    for run, move in enumerate(moves.tolist()):
        before = draft.measured.interval_steps[run]
        if not _any(changeable[run]):  # measurements only serve those who look at the run
            interval = policy.max_interval_steps
        elif before == 0:
            interval = policy.min_interval_steps
        else:
            factor = min(max(_STEADY_MOVE / move, 0.5), 2.0) if move > 0 else 2.0
            wanted = round(before * factor)
            interval = min(max(wanted, policy.min_interval_steps), policy.max_interval_steps)
        step = draft.measured.steps[run]
        if step < policy.dense_start_steps or _any(waiting[run]):
            # Doubling: 0, 1, 2, 4, 8, ... A group that waits for its first rate gets advice soon
            # after it moves, and one that never moves costs only a few measurements.
            interval = min(interval, max(step, 1))
        found.append(draft.measured.steps[run] + interval)
    return found


def _probes(policy: Policy, draft: _Draft) -> list[int]:
    """Return how many probes bring nine of ten groups to the target relative error.

    The error falls with the square root of the number of probes. Groups that more probes cannot
    help (zero rates, no counterpart) do not count.
    """
    target = policy.target_relative_error
    if target is None:
        return [0] * len(draft.outcomes)
    useful = (draft.outcomes != _ZERO_RATE) & (draft.outcomes != _UNMATCHED)
    found = []
    for run, probes in enumerate(draft.measured.probes):
        errors = draft.measured.relative_errors[run][useful[run]]
        if probes == 0 or not _any(errors):  # errors unknown: keep the number
            found.append(min(probes, policy.max_probes))
            continue
        error = float(np.quantile(errors, 0.9, method="inverted_cdf"))
        ratio = min(error / target, float(policy.max_probes))
        wanted = probes * ratio**2
        found.append(int(min(max(np.ceil(wanted * (1 - 1e-9)), 1), policy.max_probes)))
    return found
