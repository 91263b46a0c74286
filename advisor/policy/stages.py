r"""The stages between measured rates and multipliers, of one function type.

The stages work on multipliers :math:`m`, which start as the ratios reference / measured, and on the
multipliers :math:`m_0` that were in force during the measurement. A stage that doubts the
measurement moves :math:`\log m` towards :math:`\log m_0`; a stage that cannot use it holds
:math:`m_0`, or the prior of a group that has never been advised.

All arrays have a row for each run, and each row is independent of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.policy.arrays import Floats
from advisor.policy.measurement import Measurements
from advisor.policy.recommendation import OUTCOMES, Codes
from advisor.policy.rules import Limit, Outcome, Policy

_START_STEPS = 25  # for how many steps of measurements the start counts in averages
_NEGLIGIBLE = 1e-3  # a weight this close to 1 leaves the move unchanged

# Outcome codes and rules as module constants: members of an enum are slow to look up.
MATCHED = OUTCOMES.index(Outcome.MATCHED)
_CLAMPED = OUTCOMES.index(Outcome.CLAMPED)
_LOW_CONFIDENCE = OUTCOMES.index(Outcome.HELD_LOW_CONFIDENCE)
ZERO_RATE = OUTCOMES.index(Outcome.HELD_ZERO_RATE)
UNMATCHED = OUTCOMES.index(Outcome.UNMATCHED)
FROZEN = OUTCOMES.index(Outcome.HELD_FROZEN)
_LIMITED = OUTCOMES.index(Outcome.LIMITED)
_BY_MIN, _BY_MAX = int(Limit.MIN_MULTIPLIER), int(Limit.MAX_MULTIPLIER)
_BY_SLEW, _BY_DAMPING = int(Limit.SLEW), int(Limit.DAMPING)
_BY_CONFIDENCE, _BY_AVERAGING = int(Limit.CONFIDENCE), int(Limit.AVERAGING)
_BY_CORRECTION, _BY_RELATIVE_UPDATE = int(Limit.CORRECTION), int(Limit.RELATIVE_UPDATE)
_BY_ROUNDING = int(Limit.ROUNDING)


@dataclass(slots=True, eq=False)
class Draft:
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
        free: NDArray[np.bool_] = self.outcomes == MATCHED
        return free

    def hold(self, where: NDArray[np.bool_], outcome: int) -> None:
        """Keep the multipliers from before where ``where`` is true and the group is still free."""
        if not any_true(where):
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


def any_true(values: NDArray[np.generic]) -> bool:
    """Return whether any value is true; faster than ``np.any`` for small arrays."""
    return bool(np.count_nonzero(values))


_Stage = Callable[[Draft, Policy], None]


def _hold_unmatched(draft: Draft, _policy: Policy) -> None:
    draft.hold(~draft.matched, UNMATCHED)


def _hold_frozen(draft: Draft, policy: Policy) -> None:
    after = policy.freeze_after_step
    if after is None and not policy.first_step_only:
        return
    late = [[after is not None and step >= after] for step in draft.measured.steps]
    again = draft.measured.moves & policy.first_step_only
    draft.hold(again | np.array(late), FROZEN)


def _hold_zero_rates(draft: Draft, policy: Policy) -> None:
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
        draft.hold(zero, ZERO_RATE)


def _hold_low_confidence(draft: Draft, policy: Policy) -> None:
    """Hold where the relative error of the ratio, from both rates, is above the limit."""
    errors = np.hypot(draft.measured.relative_errors, draft.reference_errors)
    draft.hold(errors > policy.max_relative_error, _LOW_CONFIDENCE)


def _weigh(draft: Draft, policy: Policy) -> None:
    r"""Make :math:`d^2 / (d^2 + e^2)` of a move d, where e is the relative error.

    A move far above the noise is made almost whole, one inside the noise hardly at all. This is
    Wiener's filter for a signal of size d in noise of size e; to first order, e is the error of the
    logarithm.
    """
    errors = draft.measured.relative_errors
    if not policy.weigh_by_confidence or not any_true(errors):
        return
    moves = draft.moves()
    weights = 1 / (1 + np.square(errors / moves))
    np.copyto(weights, 0.0, where=moves == 0)
    np.copyto(weights, 1.0, where=errors == 0)
    noticed = draft.free & draft.has_before & (weights < 1 - _NEGLIGIBLE)
    if any_true(noticed):
        draft.replace(noticed, draft.moved(weights, moves), _BY_CONFIDENCE)


def _average(draft: Draft, policy: Policy) -> None:
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
    if any_true(averaged):
        draft.replace(averaged, draft.moved(parts, draft.moves()), _BY_AVERAGING)


def _round(draft: Draft, policy: Policy) -> None:
    """Round to few values where that is inside the noise, up or down at random.

    The nearer value is more likely, so that the logarithm keeps its expectation. Rounding to the
    nearest value would lose every move that averaging makes shorter than half the distance of two
    values, and so hold a multiplier for good.
    """
    values = policy.multiplier_values_per_octave
    if values == 0:
        return
    errors = np.hypot(draft.measured.relative_errors, draft.reference_errors)
    noisy = draft.free & (errors > np.log(2) / (2 * values)) & np.isfinite(draft.multipliers)
    noisy &= draft.multipliers > 0
    if any_true(noisy):
        places = np.log2(draft.multipliers) * values
        chances = _random(draft.measured.steps, draft.measured.unit_rates)
        rounded = np.exp2(np.floor(places + chances) / values)
        draft.replace(noisy, rounded, _BY_ROUNDING)


def _random(steps: Sequence[int], unit_rates: Floats) -> Floats:
    """Return a number in [0, 1) for each unit rate that looks random.

    It depends on the step and on the rate alone, so that an answer can be repeated, in any order of
    groups. The finalizer of splitmix64 mixes their bits (Steele, Lea and Flood, Fast splittable
    pseudorandom number generators, OOPSLA 2014).
    """
    mixed = np.array(steps, dtype=np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15)
    mixed = mixed + np.ascontiguousarray(unit_rates, dtype=np.float64).view(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _damp(draft: Draft, policy: Policy) -> None:
    """Shrink increases while steps are too large for first-order rates; decreases are safe."""
    limit = policy.max_linearity_error
    if limit is None:
        return
    parts = np.array([[limit / (error or limit)] for error in draft.measured.linearity_errors])
    if not any_true(parts < 1):
        return
    raised = draft.free & (draft.multipliers > draft.before) & (parts < 1)
    draft.replace(raised, draft.moved(parts, draft.moves()), _BY_DAMPING)


def _slew(draft: Draft, policy: Policy) -> None:
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


def _correct(draft: Draft, policy: Policy) -> None:
    """Keep what is measured within a factor of what the shapes say.

    Rates follow the weights, and the weights follow the multipliers. Behind a norm, a multiplier
    that is too high lowers the rate, which asks for a higher multiplier still. The bound opens the
    loop: however the rates react, a multiplier stays near one that is right for the shapes.

    It comes first, so that a single wild measurement moves an average no more than one at the bound
    does, and again after the other limits.
    """
    has_prior = draft.priors > 0
    if not any_true(has_prior):
        return
    corrected = near_priors(draft.multipliers, draft.priors, policy)
    draft.replace(draft.free & has_prior, corrected, _BY_CORRECTION)


def near_priors(multipliers: Floats, priors: Floats, policy: Policy) -> Floats:
    """Return multipliers near their priors, unchanged where there is no prior."""
    lowest = priors / policy.lower_correction_bound
    with np.errstate(over="ignore"):
        near = np.clip(multipliers, lowest, priors * policy.correction_bound)
    return np.where(priors > 0, near, multipliers)


def _limit_relative_updates(draft: Draft, policy: Policy) -> None:
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


def _bound(draft: Draft, policy: Policy) -> None:
    without_prior = draft.free & (draft.priors == 0)
    lowest, highest = policy.min_multiplier_without_prior, policy.max_multiplier_without_prior
    _clip(draft, lowest, highest, without_prior)
    _clip(draft, policy.min_multiplier, policy.max_multiplier, True)


def _clip(draft: Draft, lowest: float, highest: float, where: NDArray[np.bool_] | bool) -> None:
    low = (draft.multipliers < lowest) & where
    if any_true(low):
        draft.replace(low, lowest, _BY_MIN)
    high = (draft.multipliers > highest) & where
    if any_true(high):
        draft.replace(high, highest, _BY_MAX)


def _name_limits(draft: Draft, _policy: Policy) -> None:
    """Set the outcome of groups that slew, damping, the correction bound or bounds limited.

    Moves that confidence or averaging shrank keep the outcome ``MATCHED``.
    """
    slowed = draft.limits & _LIMITING
    bounded = draft.limits & (_BY_MIN | _BY_MAX)
    if any_true(slowed | bounded):
        free = draft.free
        draft.outcomes[free & (slowed != 0)] = _LIMITED
        draft.outcomes[free & (bounded != 0)] = _CLAMPED


_LIMITING = _BY_SLEW | _BY_DAMPING | _BY_CORRECTION | _BY_RELATIVE_UPDATE
STAGES: tuple[_Stage, ...] = (
    _hold_unmatched,
    _hold_frozen,
    _hold_zero_rates,
    _hold_low_confidence,
    _correct,
    _weigh,
    _average,
    _round,
    _damp,
    _slew,
    _limit_relative_updates,
    _correct,  # the bound around the prior has the last word
    _bound,
    _name_limits,
)
