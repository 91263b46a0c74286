"""Warnings about differences between a run and the profile that it uses.

A difference never prevents a recommendation: a profile recorded at a different batch size may serve
well. But it may explain a disappointing transfer, so the run is warned.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from advisor.policy import (
    Layout,
    LayoutMapping,
    Match,
    Measurement,
    Profile,
    RecordingFlaw,
    shown,
)
from advisor.policy.counts import count_of
from advisor.policy.optimizer_families import optimizer_family, plain_name
from advisor.registry.profiles import Provenance


class DifferenceKind(enum.Enum):
    """What differs."""

    BASE_LEARNING_RATE = "base learning rate"
    OPTIMIZER = "optimizer"
    BATCH_SIZE = "batch size"
    LOSS = "loss"
    WARMUP = "warm-up"
    NEAREST_ROLE = "nearest role"
    WEIGHT_DECAY = "weight decay"
    RECORDING = "recording"
    INITIAL_WEIGHTS = "initial weights"
    SCHEDULE = "schedule"
    MASK = "mask"
    RECIPE = "recipe"
    RECIPE_DISAGREES = "recipe disagrees"


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference between a run and its profile.

    Attributes:
        kind: What differs.
        message: Both values, and what to do.
    """

    kind: DifferenceKind
    message: str


@dataclass(frozen=True, slots=True)
class Training:
    """Properties of a run's training.

    Attributes:
        base_learning_rate: The learning rate that its schedule scales; 0: unknown.
        optimizer: The optimizer's name; empty: unknown.
        batch_size: Examples per step; 0: unknown.
        loss_name: Name of the loss; empty: unknown.
    """

    base_learning_rate: float = 0.0
    optimizer: str = ""
    batch_size: int = 0
    loss_name: str = ""


_SAME_LEARNING_RATE = 0.01  # relative difference up to which learning rates count as equal
_WARMING = 0.5  # below this fraction of its peak, and before it, a schedule is warming up
_FULL = 0.9  # above this fraction it is not
_DECAYS_APART = 2.0  # factor up to which decaying learning rates count as alike
_EARLY = 0.1  # after this fraction of a training a low learning rate is decay, not warm-up


def opening_differences(
    base_learning_rate: float, provenance: Provenance, training: Training
) -> list[Difference]:
    """Return the differences that a run's opening shows; unknown values are not compared.

    Args:
        base_learning_rate: The profile's.
        provenance: The profile's.
        training: The run's properties.
    """
    found = (
        _base_learning_rate_difference(base_learning_rate, training.base_learning_rate),
        _optimizer_difference(provenance.optimizer, training.optimizer),
        _batch_size_difference(provenance.batch_size, training.batch_size),
        _loss_difference(provenance.loss_name, training.loss_name),
    )
    return [difference for difference in found if difference is not None]


def _base_learning_rate_difference(recorded: float, own: float) -> Difference | None:
    if not own or abs(own - recorded) <= _SAME_LEARNING_RATE * recorded:
        return None
    return Difference(
        DifferenceKind.BASE_LEARNING_RATE,
        f"the run's base learning rate is {own:g}, the profile's {recorded:g}: the profile's is "
        f"the one that transfers, so outputs will move {own / recorded:.3g} times as far; use "
        f"{recorded:g} unless the difference is intended",
    )


def _optimizer_difference(recorded: str, own: str) -> Difference | None:
    if not own or not recorded or optimizer_family(own) == optimizer_family(recorded):
        return None
    return Difference(
        DifferenceKind.OPTIMIZER,
        f"the run's optimizer is {own}, the profile was recorded with {recorded}: updates of "
        "different optimizer families have different shapes; record a profile with this optimizer",
    )


def _batch_size_difference(recorded: int, own: int) -> Difference | None:
    if not own or not recorded or own == recorded:
        return None
    return Difference(
        DifferenceKind.BATCH_SIZE,
        f"the run's batch size is {own}, the profile's {recorded}: rates match, but the best "
        "learning rate may depend on the batch size",
    )


def _loss_difference(recorded: str, own: str) -> Difference | None:
    if not own or not recorded or plain_name(own) == plain_name(recorded):
        return None
    return Difference(
        DifferenceKind.LOSS,
        f"the run's loss is {own}, the profile's {recorded}: outputs with a different meaning need "
        "not move by the same amount; record a profile with this loss",
    )


def warmup_difference(
    profile: Profile, profile_step: float, training: Training, measurement: Measurement
) -> list[Difference]:
    """Return a difference if only one of profile and run is warming up its learning rate.

    Args:
        profile: The profile.
        profile_step: The step of the profile that the run's step is compared with.
        training: The run's properties.
        measurement: The run's measurement, with its step and its scheduled learning rate.

    Returns:
        One difference, or none. Nothing is compared if a schedule is unknown.
    """
    rates, now = profile.learning_rates, measurement.learning_rate
    if rates is None or now is None or not training.base_learning_rate or not rates.any():
        return []
    own = now / training.base_learning_rate
    before_peak = profile_step < profile.steps[int(rates.argmax())]
    early = measurement.step < _EARLY * max(measurement.total_steps, profile.total_steps)
    recorded = float(np.interp(profile_step, profile.steps, rates) / rates.max())
    if before_peak and recorded < _WARMING and own > _FULL:
        words = "the profile was recorded with warm-up and the run has none, or a shorter one"
    elif early and recorded > _FULL and own < _WARMING:
        words = "the run warms up and the profile was recorded without warm-up, or a shorter one"
    else:
        return []
    return [
        Difference(
            DifferenceKind.WARMUP,
            f"{words}: at step {measurement.step} the profile's learning rate is {recorded:.0%} of "
            f"its peak, the run's {own:.0%} of its base; unit rates early in training depend on "
            "warm-up; record a profile with the run's schedule",
        )
    ]


def schedule_difference(
    profile: Profile, profile_step: float, training: Training, measurement: Measurement
) -> list[Difference]:
    """Return a difference if the learning rates of profile and run decay differently.

    The message is the same at each step, so that clients show it once.

    Args:
        profile: The profile.
        profile_step: The step of the profile that the run's step is compared with.
        training: The run's properties.
        measurement: The run's measurement, with its step and its scheduled learning rate.

    Returns:
        One difference, or none. Nothing is compared at the start, or if a schedule is unknown.
    """
    rates, now = profile.learning_rates, measurement.learning_rate
    if rates is None or not now or not training.base_learning_rate or not rates.any():
        return []
    start = _EARLY * max(measurement.total_steps, profile.total_steps)
    if measurement.step < start or profile_step < profile.steps[int(rates.argmax())]:
        return []
    own = now / training.base_learning_rate
    recorded = float(np.interp(profile_step, profile.steps, rates) / rates.max())
    if own <= _DECAYS_APART * recorded and recorded <= _DECAYS_APART * own:
        return []
    last = float(rates[-1] / rates.max())
    return [
        Difference(
            DifferenceKind.SCHEDULE,
            f"the profile's learning rate is {last:.0%} of its peak at its last point, step "
            f"{profile.steps[-1]}, and the run's is more than {_DECAYS_APART:g} times as "
            f"{'high' if own > recorded else 'low'} at the same time: unit rates depend on the "
            "schedule; record a profile with the run's schedule, or set alignment=progress if only "
            "the numbers of steps differ",
        )
    ]


def weight_decay_difference(profile: Profile, measurement: Measurement) -> list[Difference]:
    """Return a difference if only one of the two measured without weight decay, or none.

    Args:
        profile: The run's profile.
        measurement: The run's measurement.
    """
    if measurement.excludes_weight_decay == profile.excludes_weight_decay:
        return []
    own, recorded = (
        "without" if excludes else "with"
        for excludes in (measurement.excludes_weight_decay, profile.excludes_weight_decay)
    )
    return [
        Difference(
            DifferenceKind.WEIGHT_DECAY,
            f"the run measures unit rates {own} weight decay, and the profile's are {recorded} it, "
            "so groups that decay more than they learn get wrong multipliers; measure both with "
            f"exclude_weight_decay={profile.excludes_weight_decay}, or record the profile again",
        )
    ]


def mask_difference(profile: Profile, measurement: Measurement) -> list[Difference]:
    """Return a difference if the two average over output elements that differ, or none.

    Args:
        profile: The run's profile.
        measurement: The run's measurement.
    """
    if measurement.mask == profile.mask:
        return []
    own, recorded = (
        f"those that {shown(mask)} weighs" if mask else "all of them"
        for mask in (measurement.mask, profile.mask)
    )
    option = f"mask={shown(profile.mask)}" if profile.mask else "no mask"
    return [
        Difference(
            DifferenceKind.MASK,
            f"the run's unit rates are averages over output elements, {own}, and the profile's "
            f"over {recorded}: padding that only one of the two counts changes multipliers; "
            f"measure both with {option}, or record the profile again",
        )
    ]


def recording_differences(flaws: Iterable[RecordingFlaw]) -> list[Difference]:
    """Return a warning for each flaw of the profile's recording."""
    return [
        Difference(DifferenceKind.RECORDING, f"the profile is a doubtful reference: {flaw.message}")
        for flaw in flaws
    ]


def nearest_roles_used(layout: Layout, base: Layout, mapping: LayoutMapping) -> list[Difference]:
    """Return a difference if groups of the run use the reference of the nearest role, or none."""
    used = {
        layout.groups[i].role: base.roles[int(mapping.base_roles[mapping.families[i]])]
        for i, match in enumerate(mapping.matches)
        if match is Match.NEAREST_ROLE
    }
    if not used:
        return []
    listed = ", ".join(f"{role} -> {other}" for role, other in list(used.items())[:10])
    more = f" and {len(used) - 10} more" if len(used) > 10 else ""
    return [
        Difference(
            DifferenceKind.NEAREST_ROLE,
            f"the profile lacks {count_of(len(used), 'role')} of the run, and the nearest "
            f"{'one stands' if len(used) == 1 else 'ones stand'} in: {listed}{more}; if they are "
            "the same layers, add them to the profile's alias table",
        )
    ]
