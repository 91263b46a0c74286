"""Turns measurements into multipliers, and says when to measure next.

Multipliers start as the ratios reference / measured and go through :mod:`.stages`. There is no
state between measurements: what is needed of the past comes with the measurement.

All arrays have a row for each run. Runs of one layout on one profile that measure at the same time
are computed together, and each row is independent of the others.
"""

from __future__ import annotations

import numpy as np

from advisor.policy.arrays import Floats
from advisor.policy.errors import InvalidValueError
from advisor.policy.layout_mapping import LayoutMapping
from advisor.policy.measurement import Measurement, Measurements
from advisor.policy.recommendation import Recommendation, Recommendations
from advisor.policy.reference import Profile, Reference
from advisor.policy.rules import Alignment, Policy, PriorRule
from advisor.policy.stages import (
    FROZEN,
    MATCHED,
    STAGES,
    UNMATCHED,
    ZERO_RATE,
    Draft,
    any_true,
    near_priors,
)

# A move of multipliers by this much (RMS of the logarithms) keeps the interval. A smaller move
# lengthens it in proportion, at most to twice; a larger one shortens it, at most to half.
_STEADY_MOVE = 0.1
_LARGEST = float(np.finfo(np.float64).max)
_BY_STEP = Alignment.STEP  # members of an enum are slow to look up


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
    if priors is None or (policy.prior is PriorRule.NONE and not policy.recipe):
        priors = np.zeros(len(mapping.matches))
    references = mapping.references(base_rates, reference.coherences(moments))
    # Zero and extreme rates are handled by the stages.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratios = references / measured.unit_rates
        draft = Draft(
            measured,
            mapping.matched,
            references,
            mapping.combined(reference.errors(moments)),
            ratios.copy(),
            np.full(ratios.shape, MATCHED, dtype=np.uint8),
            np.zeros(ratios.shape, dtype=np.int64),
            near_priors(
                np.where(measured.moves | (priors == 0), measured.multipliers, priors),
                priors,
                policy,
            ),
            measured.moves | (priors > 0),
            priors,
            None if relative_updates is None else mapping.combined(relative_updates),
        )
        for stage in STAGES:
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
    check_total_steps(policy, total_steps)
    return step * profile.total_steps / total_steps  # this order keeps whole numbers whole


def check_total_steps(policy: Policy, total_steps: int) -> None:
    """Refuse a run that cannot be aligned with the profile's training.

    Args:
        policy: The rules.
        total_steps: Planned steps of the run; 0: unknown.

    Raises:
        InvalidValueError: Alignment by progress, and the planned steps are unknown.
    """
    if policy.alignment is not _BY_STEP and total_steps < 1:
        raise InvalidValueError(
            "total_steps",
            "alignment by progress needs the run's planned number of steps; give total_steps",
        )


def _next_steps(policy: Policy, draft: Draft) -> list[int]:
    """Return when each run should measure next: sooner while its multipliers move."""
    changeable = (draft.outcomes != FROZEN) & (draft.outcomes != UNMATCHED)
    waiting = (draft.outcomes == ZERO_RATE) & ~draft.measured.moves
    moves = np.sqrt(np.add.reduce(np.square(draft.moves()), axis=1) / changeable.shape[1])
    found = []
    for run, move in enumerate(moves.tolist()):
        before = draft.measured.interval_steps[run]
        if not any_true(changeable[run]):  # measurements only serve those who look at the run
            interval = policy.max_interval_steps
        elif before == 0:
            interval = policy.min_interval_steps
        else:
            factor = min(max(_STEADY_MOVE / move, 0.5), 2.0) if move > 0 else 2.0
            wanted = round(before * factor)
            interval = min(max(wanted, policy.min_interval_steps), policy.max_interval_steps)
        step = draft.measured.steps[run]
        if step < policy.dense_start_steps or any_true(waiting[run]):
            # Doubling: 0, 1, 2, 4, 8, ... A group that waits for its first rate gets advice soon
            # after it moves, and one that never moves costs only a few measurements.
            interval = min(interval, max(step, 1))
        found.append(draft.measured.steps[run] + interval)
    return found


def _probes(policy: Policy, draft: Draft) -> list[int]:
    """Return how many probes bring nine of ten groups to the target relative error.

    The error falls with the square root of the number of probes. Groups that more probes cannot
    help (zero rates, no counterpart) do not count.
    """
    target = policy.target_relative_error
    if target is None:
        return [0] * len(draft.outcomes)
    useful = (draft.outcomes != ZERO_RATE) & (draft.outcomes != UNMATCHED)
    found = []
    for run, probes in enumerate(draft.measured.probes):
        errors = draft.measured.relative_errors[run][useful[run]]
        if probes == 0 or not any_true(errors):  # errors unknown: keep the number
            found.append(min(probes, policy.max_probes))
            continue
        error = float(np.quantile(errors, 0.9, method="inverted_cdf"))
        ratio = min(error / target, float(policy.max_probes))
        wanted = probes * ratio**2
        found.append(int(min(max(np.ceil(wanted * (1 - 1e-9)), 1), policy.max_probes)))
    return found
