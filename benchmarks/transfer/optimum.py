"""The optimum of a sweep by a fit: how far it moved, what that costs, and how sure both are.

A sweep maps octaves (the learning rate is ``2 ** octave``) to the losses of its seeds, as in
``figures.py``; octaves need not be integers. ``curves.py`` has the fit and the bootstrap over seeds
that intervals come from. All functions are pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from benchmarks.transfer.curves import (
    Curve,
    Interval,
    Losses,
    interval_of,
    seed_weights,
    seeds_of,
)

WIDEST_KNOWN: Final = 1.0  # octaves; a shift with a wider interval is not known
NEAR: Final = 1.0  # octaves; the aim for a shift


class Verdict(StrEnum):
    """Whether the optimum moved by at most an octave."""

    WITHIN = "within"
    BEYOND = "beyond"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Transfer:
    """How well a base's best learning rate does on a big model.

    Attributes:
        base_octave: log2 of the base's best learning rate; None if the base diverged everywhere.
        base_interval: 90% interval of it; None with a single seed.
        shift: Octaves from there to the big model's best learning rate; None if the base or the big
            model diverged everywhere.
        shift_interval: 90% interval of the shift; None with a single seed.
        regret: Loss of the big model at the base's best learning rate minus the reference's best
            loss, in nats; None if the big model diverges there.
        regret_interval: 90% interval of the regret; None with a single seed.
        verdict: Whether the shift is at most an octave.
    """

    base_octave: float | None = None
    base_interval: Interval | None = None
    shift: float | None = None
    shift_interval: Interval | None = None
    regret: float | None = None
    regret_interval: Interval | None = None
    verdict: Verdict = Verdict.CANNOT_TELL


def optimum(sweep: Losses) -> float | None:
    """Return the best octave of a sweep by the fit; None if each learning rate diverged.

    Args:
        sweep: The losses.
    """
    curve = Curve.of(sweep)
    return None if curve is None else curve.optimum


def compare(base: Losses, big: Losses, reference: Losses) -> Transfer:
    """Return how well the base's best learning rate does on a big model.

    Args:
        base: Sweep of the base.
        big: Sweep of the big model with a method, with the seeds of the base's sweep.
        reference: Sweep of the plain big model with the same seeds; its best loss is what a search
            finds.

    Raises:
        ValueError: The sweeps have different numbers of seeds, or none.
    """
    seeds = seeds_of(base, big, reference)
    weights = seed_weights(seeds)
    base_curve, big_curve = Curve.of(base), Curve.of(big)
    if base_curve is None:
        return Transfer()
    bases = base_curve.resampled(weights).optima
    found = Transfer(float(bases[0]), interval_of(bases, seeds, base_curve.resolution))
    if big_curve is None:
        return replace(found, verdict=Verdict.BEYOND)
    fits = big_curve.resampled(weights)
    shifts = fits.optima - bases
    shift = float(shifts[0])
    interval = interval_of(shifts, seeds, base_curve.resolution + big_curve.resolution)
    is_bound = base_curve.is_at_edge or big_curve.is_at_edge
    found = replace(
        found,
        shift=shift,
        shift_interval=interval,
        verdict=_verdict(shift, interval, is_bound=is_bound),
    )
    reference_curve = Curve.of(reference)
    if reference_curve is None or not big_curve.reaches(float(bases[0])):
        return found
    best = reference_curve.resampled(weights)
    regrets = fits.losses_at(bases) - best.losses_at(best.optima)
    return replace(found, regret=float(regrets[0]), regret_interval=interval_of(regrets, seeds))


def _verdict(shift: float, interval: Interval | None, *, is_bound: bool) -> Verdict:
    """Return the verdict on a shift.

    A shift with a wide interval is a miss if all of the interval is beyond an octave. A shift that
    is only a bound, since an optimum is at the edge of its sweep, is a miss or not known.
    """
    verdict = Verdict.WITHIN if abs(shift) <= NEAR else Verdict.BEYOND
    if is_bound:
        return Verdict.CANNOT_TELL if verdict is Verdict.WITHIN else verdict
    if interval is not None:
        low, high = interval
        if high - low > WIDEST_KNOWN and low <= NEAR and high >= -NEAR:
            return Verdict.CANNOT_TELL
    return verdict
