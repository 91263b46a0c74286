"""Checks of a parametrization: whether runs scale as they should, as a pass/fail sheet.

The sheet replaces coordinate checks by hand: plots of how far outputs move in models of different
width. Every threshold is a constant with its reason. A check without enough data says so and is
neither passed nor failed. Rows have numbers and names; :mod:`advisor.report.check_sentences` writes
the sentences.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from advisor.policy import GroupKind
from advisor.policy.arrays import Floats
from advisor.report.checked_run import CheckedRun
from advisor.report.words import format_number, format_percent

MIN_MEASUREMENTS = 3
"""A check needs at least this many measurements: one or two may be of an unusual step."""
MAX_RATE_FACTOR = 2.0
"""Largest factor between a role's rate and the profile's. Sweeps of learning rates usually step by
a factor of 2, so a smaller difference cannot be told from tuning."""
MAX_WIDTH_POWER = 0.25
"""Largest power of the width by which rates may change: 19% per doubling. Without a
parametrization the rates of hidden matrices under Adam grow with the power 1, under muP with 0."""
MAX_WIDTH_FACTOR = 1.5
"""Change over the whole range of widths that is tolerated: over a small range of widths, the noise
of seeds and probes looks like a power."""
MIN_WIDTH_RATIO = 1.5
"""The widest run is at least this much wider than the narrowest one."""
MAX_SHARE = 0.8
"""Largest share of one group: above it, all others together make less than a fifth of the squared
change of the outputs, so the model learns almost only there."""
MIN_GROUPS = 4
"""In a model of fewer groups, one group may well make most of the change."""
MIN_RELATIVE_UPDATE = 1e-6
"""Smallest update of a matrix relative to its weights: below it, a million steps replace them once,
and in 16 bits such an update is rounded away."""
MAX_RELATIVE_UPDATE = 0.1
"""Largest update of a matrix relative to its weights: above it, ten steps replace them."""
MIN_DECAY_TIME_SCALE = 0.01
"""Shortest time scale of weight decay, as a part of the training. Decay makes the weights an
average over their newest updates, about as many as the time scale says (Wang and Aitchison, arXiv
2405.13698); below a hundredth of the training they forget all but its very end."""
MIN_LEARNING_RATE_FACTOR = 2.0
"""The schedule changes by at least this factor, or nothing can be said about it."""
MIN_SCHEDULE_MEASUREMENTS = 10
MAX_STEP_CHANGE = 1.05
"""If the size of steps changes by less than this factor while the schedule changes by 2 or more,
something normalizes the step after the learning rate."""
_BILLION = 1e9


Value = str | int | tuple[str, ...]
"""A value in a sentence: a number in words, a name, or a list of names."""


class Status(enum.Enum):
    """What a check found."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    NOT_ENOUGH_DATA = "not enough data"


@dataclass(frozen=True, slots=True)
class CheckRow:
    """The result of one check.

    Attributes:
        check: The check's name, which never changes.
        run: The run that was checked; empty: all runs together.
        status: The result.
        values: What was found, by the names of the placeholders in the check's sentences.
    """

    check: str
    run: str
    status: Status
    values: Mapping[str, Value] = field(default_factory=dict)


def check_rows(runs: Sequence[CheckedRun]) -> list[CheckRow]:
    """Return the sheet: a row for each check of each run, then those of all runs together.

    Args:
        runs: The runs, at least one.
    """
    rows = [check(run) for run in runs for check in _CHECKS]
    return [*rows, rates_across_widths(runs)]


def rates_follow_profile(run: CheckedRun) -> CheckRow:
    """Check that no role's rate is far from the profile's, after multipliers."""
    check = "rates-follow-profile"
    matched = (run.references > 0) & (run.unit_rates > 0)
    if len(run.steps) < MIN_MEASUREMENTS or not matched.any():
        return _short(check, run, least=MIN_MEASUREMENTS)
    factors = np.full(run.unit_rates.shape, np.nan)
    in_force = run.unit_rates * run.multipliers
    factors[matched] = np.log2(in_force[matched] / run.references[matched])
    medians = {
        role: float(np.nanmedian(factors[:, members]))
        for role, members in run.roles.items()
        if matched[:, members].any()
    }
    worst = max(medians, key=lambda role: abs(medians[role]))
    off = [role for role, value in medians.items() if abs(value) > math.log2(MAX_RATE_FACTOR)]
    return _result(
        check,
        run,
        off,
        role=worst,
        factor=format_number(2 ** medians[worst]),
        roles=len(medians),
        limit=f"{MAX_RATE_FACTOR:g}",
    )


def no_group_dominates(run: CheckedRun) -> CheckRow:
    """Check that no group makes almost all of the output change."""
    check = "no-group-dominates"
    if run.shares is None or len(run.steps) < MIN_MEASUREMENTS or len(run.layout) < MIN_GROUPS:
        return _short(check, run, least=MIN_MEASUREMENTS, groups=MIN_GROUPS)
    medians = np.median(run.shares, axis=0)
    largest = int(medians.argmax())
    group = run.layout.groups[largest].name
    return _result(
        check,
        run,
        [group] if medians[largest] > MAX_SHARE else [],
        group=group,
        share=format_percent(medians[largest]),
        limit=format_percent(MAX_SHARE),
    )


def no_group_is_dead(run: CheckedRun) -> CheckRow:
    """Check that every group moves the outputs."""
    check = "no-group-is-dead"
    if len(run.steps) < MIN_MEASUREMENTS:
        return _short(check, run, least=MIN_MEASUREMENTS)
    dead = np.flatnonzero(np.median(run.unit_rates, axis=0) == 0)
    names = [run.layout.groups[position].name for position in dead]
    groups = len(run.layout)
    return _result(check, run, names, groups=groups, moving=groups - len(names))


def learning_rates_are_usual(run: CheckedRun) -> CheckRow:
    """Check the effective learning rates of matrices, as updates relative to the weights."""
    check = "learning-rates-are-usual"
    updates = _relative_updates(run)
    matrices = [
        position
        for position, group in enumerate(run.layout.groups)
        if group.kind is not GroupKind.VECTOR and len(group.shape) != 1
    ]
    if updates is None or len(run.steps) < MIN_MEASUREMENTS:
        return _short(check, run, least=MIN_MEASUREMENTS)
    medians = {
        run.layout.groups[position].name: float(np.nanmedian(updates[:, position]))
        for position in matrices
        if not np.isnan(updates[:, position]).all()
    }
    if not medians:
        return _short(check, run, least=MIN_MEASUREMENTS)
    low, high = min(medians, key=lambda n: medians[n]), max(medians, key=lambda n: medians[n])
    off = [
        name
        for name, value in medians.items()
        if not MIN_RELATIVE_UPDATE <= value <= MAX_RELATIVE_UPDATE
    ]
    return _result(
        check,
        run,
        off,
        low=format_number(medians[low]),
        low_group=low,
        high=format_number(medians[high]),
        high_group=high,
        matrices=len(medians),
        min_update=f"{MIN_RELATIVE_UPDATE:g}",
        max_update=f"{MAX_RELATIVE_UPDATE:g}",
    )


def _whole(steps: float) -> str:
    """Return a number of steps without a fraction; one beyond a billion is rounded."""
    return f"{steps:,.0f}" if steps < _BILLION else format_number(steps)


def decay_time_scales_are_usual(run: CheckedRun) -> CheckRow:
    """Check that weight decay does not forget most of the training.

    The time scale of a group is one divided by the part of its weights that a step takes away.
    """
    check = "decay-time-scales-are-usual"
    if run.weight_decays is None or not run.total_steps or len(run.steps) < MIN_MEASUREMENTS:
        return _short(check, run, least=MIN_MEASUREMENTS)
    factors = 1.0 if run.keeps_decay else run.multipliers
    decays = np.median(run.weight_decays * factors, axis=0)
    if not decays.any():
        return _short(check, run, least=MIN_MEASUREMENTS)
    largest = int(decays.argmax())
    scale = 1 / decays[largest]
    off = np.flatnonzero(decays * run.total_steps * MIN_DECAY_TIME_SCALE > 1)
    return _result(
        check,
        run,
        [run.layout.groups[position].name for position in off],
        steps=_whole(scale),
        group=run.layout.groups[largest].name,
        part=format_number(scale / run.total_steps),
        limit=f"{MIN_DECAY_TIME_SCALE:g}",
    )


def schedule_takes_effect(run: CheckedRun) -> CheckRow:
    """Check that steps become smaller when the learning rate does.

    Clipping or normalizing the update after the learning rate (rather than the gradient before it)
    makes all steps equally large, whatever the schedule says.
    """
    check = "schedule-takes-effect"
    learning_rates, updates = run.learning_rates, run.update_rms
    least, factor = MIN_SCHEDULE_MEASUREMENTS, f"{MIN_LEARNING_RATE_FACTOR:g}"
    short = _short(check, run, least=least, factor=factor)
    if learning_rates is None or updates is None:
        return short
    sizes = np.array([group.parameter_count or 1 for group in run.layout.groups], np.float64)
    scheduled = learning_rates.max(axis=1)
    steps = np.sqrt(((learning_rates * run.multipliers * updates) ** 2 * sizes).sum(axis=1))
    moving = (scheduled > 0) & (steps > 0)
    if np.count_nonzero(moving) < least:
        return short
    changed, followed = _spread(scheduled[moving]), _spread(steps[moving])
    if changed < MIN_LEARNING_RATE_FACTOR:
        return short
    return _result(
        check,
        run,
        ["all"] if followed <= MAX_STEP_CHANGE else [],
        changed=format_number(changed),
        followed=format_number(followed),
    )


_CHECKS: tuple[Callable[[CheckedRun], CheckRow], ...] = (
    rates_follow_profile,
    no_group_dominates,
    no_group_is_dead,
    learning_rates_are_usual,
    decay_time_scales_are_usual,
    schedule_takes_effect,
)


def rates_across_widths(runs: Sequence[CheckedRun]) -> CheckRow:
    """Check that rates do not change with the width, by a power law fitted to each role."""
    check = "rates-flat-across-widths"
    short = _short(check, None, least=MIN_MEASUREMENTS, ratio=f"{MIN_WIDTH_RATIO:g}")
    measured = [(width_of(run), run) for run in runs if len(run.steps) >= MIN_MEASUREMENTS]
    known = [(width, run) for width, run in measured if width is not None]
    if len(known) < 2:
        return short
    widths = np.array([width for width, _ in known])
    rates = _common_rates([run for _, run in known])
    ratio = widths.max() / widths.min()
    if ratio < MIN_WIDTH_RATIO or not rates:
        return short
    powers = {
        role: float(np.polyfit(np.log(widths), logarithms, 1)[0])
        for role, logarithms in rates.items()
    }
    worst = max(powers, key=lambda role: abs(powers[role]))
    off = [
        role
        for role, power in powers.items()
        if abs(power) > MAX_WIDTH_POWER and ratio ** abs(power) > MAX_WIDTH_FACTOR
    ]
    return _result(
        check,
        None,
        off,
        runs=len(known),
        ratio=format_number(ratio),
        role=worst,
        power=f"{powers[worst]:+.2f}",
        roles=len(powers),
        limit=f"{MAX_WIDTH_POWER:g}",
    )


def width_of(run: CheckedRun) -> float | None:
    """Return a run's width: the geometric mean fan-in of its hidden matrices; None: not known."""
    fans = [g.fan_in for g in run.layout.groups if g.kind is GroupKind.HIDDEN and g.fan_in > 0]
    return math.exp(sum(map(math.log, fans)) / len(fans)) if fans else None


def _common_rates(runs: Sequence[CheckedRun]) -> dict[str, Floats]:
    """Return the mean logarithm of each common role's rate over the steps that all runs have."""
    first = max(run.steps.min() for run in runs)
    last = min(run.steps.max() for run in runs)
    if first > last:
        return {}
    steps = np.linspace(first, last, 20)
    common = set.intersection(*(set(run.roles) for run in runs))
    # A run without learning rates has only unit rates, so unit rates are compared for all of them.
    uses_unit_rates = any(run.learning_rates is None for run in runs)
    found: dict[str, Floats] = {}
    for role in (role for role in runs[0].roles if role in common):
        means = [
            _mean_logarithm(run, run.roles[role], steps, uses_unit_rates=uses_unit_rates)
            for run in runs
        ]
        known = [mean for mean in means if mean is not None]
        if len(known) == len(runs):
            found[role] = np.array(known)
    return found


def _mean_logarithm(
    run: CheckedRun, members: list[int], steps: Floats, *, uses_unit_rates: bool
) -> float | None:
    """Return the mean log of the summed rate of some groups; None if it is always zero."""
    rates = run.unit_rates * run.multipliers
    if run.learning_rates is not None and not uses_unit_rates:
        rates = rates * run.learning_rates
    summed = rates[:, members].sum(axis=1)
    moving = summed > 0
    if not moving.any():
        return None
    return float(np.interp(steps, run.steps[moving], np.log(summed[moving])).mean())


def _relative_updates(run: CheckedRun) -> Floats | None:
    """Return the update of each step relative to the weights; NaN where it is not known."""
    if run.learning_rates is None or run.weight_rms is None or run.update_rms is None:
        return None
    updates = run.learning_rates * run.multipliers * run.update_rms
    known = (run.weight_rms > 0) & (updates > 0)
    relative: Floats = np.divide(
        updates, run.weight_rms, out=np.full(updates.shape, np.nan), where=known
    )
    return relative


def _spread(values: Floats) -> float:
    """Return the factor between large and small values, without the extremes."""
    low, high = np.quantile(values, [0.05, 0.95])
    return float(high / low)


def _result(check: str, run: CheckedRun | None, off: Sequence[str], **values: Value) -> CheckRow:
    """Return the row of a check that could be made; it failed if something is off."""
    status = Status.FAIL if off else Status.PASS
    return CheckRow(check, _name(run), status, {**values, "off": len(off), "names": tuple(off)})


def _short(check: str, run: CheckedRun | None, **needed: Value) -> CheckRow:
    """Return the row of a check without enough data."""
    return CheckRow(check, _name(run), Status.NOT_ENOUGH_DATA, needed)


def _name(run: CheckedRun | None) -> str:
    return "" if run is None else run.name
