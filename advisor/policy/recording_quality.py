"""Finds what makes a recorded profile a doubtful reference, from its points alone.

A flaw never prevents a recommendation. It says what to look at, and how to record again.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.policy.arrays import Floats
from advisor.policy.counts import count_of
from advisor.policy.reference import Profile, informative_points

# A unit rate spikes if it is 3 times as large as its neighbors, and the difference of logarithms
# is 2 standard deviations of the changes between points in its group. A point spikes if half of its
# groups do.
_SPIKE_FACTOR = 3.0
_SPIKE_DEVIATIONS = 2.0
_SPIKE_SHARE = 0.5
_UNSTEADY_FACTOR = 3.0
_MIN_DIFFERENCES = 5  # fewer differences do not tell what is usual in a group
_NORMAL = 1.4826  # standard deviation over median absolute deviation, of a normal distribution
_NOISY_SHARE = 1 / 4
_COVERED = 0.5
_PEAK_LOW, _PEAK_HIGH = 0.5, 1.01
_MAX_NAMES = 5


class FlawKind(enum.Enum):
    """What is doubtful about a recording."""

    SPIKES = "spikes"
    UNSTEADY = "unsteady"
    ONE_POINT = "one point"
    PART_OF_THE_TRAINING = "part of the training"
    LEARNING_RATE = "learning rate"
    NOISE = "noise"
    ZERO_RATES = "zero rates"


@dataclass(frozen=True, slots=True)
class RecordingFlaw:
    """What is doubtful about a recording.

    Attributes:
        kind: Its kind.
        message: The values in question, and what to do.
    """

    kind: FlawKind
    message: str


def recording_flaws(profile: Profile) -> list[RecordingFlaw]:
    """Return what is doubtful about a profile's recording; empty if nothing is."""
    found = ((kind, message(profile)) for kind, message in _CHECKS)
    return [RecordingFlaw(kind, words) for kind, words in found if words]


def _spikes(profile: Profile) -> str:
    steps, logs = _recorded(profile)
    excess = _excess(steps, logs)
    if excess.size == 0:
        return ""
    usual = _deviations(np.diff(logs[1:], axis=0))
    with np.errstate(invalid="ignore"):
        spiking = excess > np.maximum(np.log(_SPIKE_FACTOR), _SPIKE_DEVIATIONS * usual)
    known = np.count_nonzero(~np.isnan(excess), axis=1)
    counts = np.count_nonzero(spiking, axis=1)
    places = np.flatnonzero(counts > _SPIKE_SHARE * np.maximum(known, 1))
    if not places.size:
        return ""
    worst = int(places[np.argmax(counts[places] / known[places])])
    factor = float(np.exp(np.median(excess[worst][spiking[worst]])))
    return (
        f"the unit rates spike at {_steps(steps[1:][places])}: "
        f"{counts[worst]} of {count_of(known[worst], 'group')} "
        f"{'is' if counts[worst] == 1 else 'are'} {factor:.3g} times as large as the points around "
        "it; multipliers would jump there; record again at a lower learning rate or with a longer "
        "warm-up, or merge recordings of several seeds"
    )


def _unsteady(profile: Profile) -> str:
    deviations = _deviations(_excess(*_recorded(profile)))
    # A difference has the errors of a point and of a line between two others.
    noise = 1.5 * np.square(np.median(profile.relative_errors, axis=0))
    spread = float(np.sqrt(np.median(np.maximum(np.square(deviations) - noise, 0.0))))
    if spread <= np.log(_UNSTEADY_FACTOR):
        return ""
    return (
        "the unit rates of a point usually differ from those around it by a factor of "
        f"{np.exp(spread):.2g}, more than the noise of the measurement explains: the learning rate "
        "is probably too high for a steady training; record again at a lower learning rate, or "
        "merge recordings of several seeds"
    )


def _recorded(profile: Profile) -> tuple[NDArray[np.int64], Floats]:
    """Return the steps of the informative points, and the logarithms there; NaN for zeros."""
    points = informative_points(profile)
    rates = profile.unit_rates[points].astype(np.float64)
    return profile.steps[points], np.log(np.where(rates > 0, rates, np.nan))


def _excess(steps: NDArray[np.int64], logs: Floats) -> Floats:
    """Return how far logarithms are above those around them, shape [points - 1, groups].

    The first point is left out, as rates change fastest there. The last one is compared with the
    mean of the two before it. Others are compared with the lines between one of the two points
    before and one of the two points after them, over the logarithm of the step; the highest line
    counts, so that a dip beside a point does not make it a spike. NaN: unknown.
    """
    count = len(steps)
    if count < 3:
        return np.zeros((0, logs.shape[1]))
    places = np.log1p(steps.astype(np.float64))
    excess = np.full((count - 1, logs.shape[1]), np.nan)
    for before, after in itertools.product((1, 2), (1, 2)):
        at = np.arange(before, count - after)
        part = (places[at] - places[at - before]) / (places[at + after] - places[at - before])
        line = (1 - part)[:, None] * logs[at - before] + part[:, None] * logs[at + after]
        excess[at - 1] = np.fmin(excess[at - 1], logs[at] - line)
    excess[-1] = logs[-1] - logs[-3:-1].mean(axis=0)
    return excess


def _deviations(differences: Floats) -> Floats:
    """Return robust standard deviations over the points, shape [groups]; 0: too few are known."""
    deviations = np.zeros(differences.shape[1])
    known = np.count_nonzero(~np.isnan(differences), axis=0)
    whole, some = known == len(differences), known >= _MIN_DIFFERENCES
    for groups, median in ((whole & some, np.median), (~whole & some, np.nanmedian)):
        if groups.any():  # the median without NaN is much faster
            deviations[groups] = _NORMAL * median(np.abs(differences[:, groups]), axis=0)
    return deviations


def _one_point(profile: Profile) -> str:
    if np.count_nonzero(informative_points(profile)) > 1 or profile.total_steps == 1:
        return ""
    return (
        f"only step {profile.steps[-1]} of {profile.total_steps} is recorded: its unit rates serve "
        "as the reference of the whole training, and rates change most at its start; record more "
        "steps"
    )


def _part(profile: Profile) -> str:
    last = int(profile.steps[-1])
    if len(profile.steps) == 1 or last >= _COVERED * (profile.total_steps - 1):
        return ""
    return (
        f"the last recorded step is {last} of {profile.total_steps} planned ones: later steps have "
        "its unit rates as their reference; record the training to its end"
    )


def _learning_rate(profile: Profile) -> str:
    rates, base = profile.learning_rates, profile.base_learning_rate
    if rates is None:
        return ""
    peak = float(rates.max())
    if peak > _PEAK_HIGH * base:
        return (
            f"learning rates of up to {peak:g} are recorded, but the base learning rate is "
            f"{base:g}: runs at {base:g} are compared with rates of a different schedule; set the "
            f"base learning rate to {peak:g}, or record at {base:g}"
        )
    if peak < _PEAK_LOW * base:
        return (
            f"the largest recorded learning rate is {peak:g}, but the base learning rate is "
            f"{base:g}: no point was recorded near the schedule's peak; record more steps, or "
            "correct the base learning rate"
        )
    return ""


def _noise(profile: Profile) -> str:
    errors = np.median(profile.relative_errors, axis=0)
    limit = profile.policy.max_relative_error
    noisy = np.count_nonzero(errors > limit)
    if noisy < _NOISY_SHARE * len(errors):
        return ""
    return (
        f"{noisy} of {count_of(len(errors), 'group')} {'has' if noisy == 1 else 'have'} relative "
        f"errors above the policy's "
        f"max_relative_error {limit:g} at most points (the median one is {np.median(errors):.2g}): "
        "runs hold their multipliers; record with more probes or more examples, or merge "
        "recordings of several seeds"
    )


def _zero_rates(profile: Profile) -> str:
    groups = np.flatnonzero(~profile.unit_rates.any(axis=0))
    if not groups.size:
        return ""
    names = [profile.layout.groups[i].name for i in groups[:_MAX_NAMES]]
    more = f" and {groups.size - _MAX_NAMES} more" if groups.size > _MAX_NAMES else ""
    is_one = groups.size == 1
    return (
        f"{groups.size} of {count_of(profile.unit_rates.shape[1], 'group')} never moved, so runs "
        f"hold {'its multiplier' if is_one else 'their multipliers'}: {', '.join(names)}{more}; "
        f"record until {'it moves, or freeze it' if is_one else 'they move, or freeze them'}"
    )


_CHECKS: Sequence[tuple[FlawKind, Callable[[Profile], str]]] = (
    (FlawKind.SPIKES, _spikes),
    (FlawKind.UNSTEADY, _unsteady),
    (FlawKind.ONE_POINT, _one_point),
    (FlawKind.PART_OF_THE_TRAINING, _part),
    (FlawKind.LEARNING_RATE, _learning_rate),
    (FlawKind.NOISE, _noise),
    (FlawKind.ZERO_RATES, _zero_rates),
)


def _steps(steps: NDArray[np.int64]) -> str:
    listed = ", ".join(map(str, steps[:_MAX_NAMES]))
    more = f" and {len(steps) - _MAX_NAMES} more" if len(steps) > _MAX_NAMES else ""
    return f"step{'s' if len(steps) > 1 else ''} {listed}{more}"
