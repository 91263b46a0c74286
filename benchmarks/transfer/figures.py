"""The figures of sweeps: the best learning rate, and the regret of using a different one.

A sweep maps octaves (the learning rate is ``2 ** octave``) to the losses of its seeds. The loss of
a training that diverged is infinite, and so is its mean over seeds. All functions are pure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Losses = Mapping[int, Sequence[float]]


def mean_loss(losses: Sequence[float]) -> float:
    """Return the mean loss over seeds; infinite if a training diverged."""
    return sum(losses) / len(losses)


def best_octave(sweep: Losses) -> int | None:
    """Return the octave of the lowest mean loss, or None if all octaves diverged.

    Of equal losses, that of the lower learning rate counts as the best.

    Args:
        sweep: The losses.
    """
    finite = {o: mean_loss(losses) for o, losses in sweep.items()}
    finite = {o: loss for o, loss in finite.items() if math.isfinite(loss)}
    return min(finite, key=lambda o: (finite[o], o)) if finite else None


def missing_octave(sweep: Losses, floor: int, ceiling: int) -> int | None:
    """Return the next octave to try if the best one is at an edge of the sweep, else None.

    A loss at the edge of a sweep is not a measured optimum. If all trainings diverged, only lower
    octaves are tried.

    Args:
        sweep: The losses so far.
        floor: The lowest octave that may be tried.
        ceiling: The highest octave that may be tried.
    """
    best = best_octave(sweep)
    low, high = min(sweep), max(sweep)
    if (best is None or best == low) and low > floor:
        return low - 1
    if best == high and high < ceiling:
        return high + 1
    return None


def at_edge(sweep: Losses) -> bool:
    """Return whether the best octave is at an edge of the sweep, so not a measured optimum."""
    return best_octave(sweep) in {None, min(sweep), max(sweep)}


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a case. Losses are in nats, means over seeds; None if all trainings diverged.

    Attributes:
        base_octave: Octave of the base's best learning rate, which is transferred.
        shift_plain: Octaves from there to the plain big model's best learning rate.
        shift_advised: Octaves from there to the advised big model's best learning rate.
        regret: ``loss_advised`` minus ``loss_best_plain``.
        loss_plain: Loss of the plain big model at the transferred learning rate.
        loss_advised: Loss of the advised big model at the transferred learning rate.
        loss_best_plain: Loss of the plain big model at its own best learning rate.
        spread: Sample standard deviations over seeds of the regret and of the three losses, and
            the shifts of each seed.
    """

    base_octave: int | None
    shift_plain: int | None
    shift_advised: int | None
    regret: float | None
    loss_plain: float | None
    loss_advised: float | None
    loss_best_plain: float | None
    spread: dict[str, float | list[int | None] | None]


def figures(base: Losses, plain: Losses, advised: Losses) -> Figures:
    """Return the figures of a case.

    Args:
        base: Sweep of the base.
        plain: Sweep of the plain big model.
        advised: Sweep of the advised big model, which includes the base's best octave.
    """
    transferred = best_octave(base)
    own = best_octave(plain)
    none: Sequence[float] = ()
    at_plain = none if transferred is None else plain.get(transferred, none)
    at_advised = none if transferred is None else advised.get(transferred, none)
    at_own = none if own is None else plain[own]
    regrets = [a - b for a, b in zip(at_advised, at_own, strict=False)]
    seeds = len(next(iter(base.values())))
    return Figures(
        base_octave=transferred,
        shift_plain=_shift(own, transferred),
        shift_advised=_shift(best_octave(advised), transferred),
        regret=_finite_mean(regrets),
        loss_plain=_finite_mean(at_plain),
        loss_advised=_finite_mean(at_advised),
        loss_best_plain=_finite_mean(at_own),
        spread={
            "regret": _deviation(regrets),
            "loss_plain": _deviation(at_plain),
            "loss_advised": _deviation(at_advised),
            "loss_best_plain": _deviation(at_own),
            "shift_plain": [_seed_shift(base, plain, i) for i in range(seeds)],
            "shift_advised": [_seed_shift(base, advised, i) for i in range(seeds)],
        },
    )


def search_saved(search_s: float, run_s: float, base_search_s: float = 0.0) -> float:
    """Return the part of a search's time that transfer saves; negative if it costs more.

    Args:
        search_s: Time of the sweep on the plain big model.
        run_s: Time of the advised run of the big model that replaces it.
        base_search_s: Time of the sweep on the base. It can be left out, since one sweep serves big
            models of any size.
    """
    return 1 - (base_search_s + run_s) / search_s


def summary(cases: Sequence[Mapping[str, object]]) -> dict[str, float | None]:
    """Return the figures over all cases; a case without a figure counts as missing the aim.

    Args:
        cases: Records with ``shift_advised`` and ``regret``.
    """
    shifts = [case["shift_advised"] for case in cases]
    near = [isinstance(shift, int) and abs(shift) <= 1 for shift in shifts]
    regrets = [
        float(regret) if isinstance(regret, int | float) else math.inf
        for regret in (case["regret"] for case in cases)
    ]
    median = statistics.median(regrets) if regrets else math.inf
    return {
        "within_one_octave": sum(near) / len(near) if near else None,
        "median_regret": median if math.isfinite(median) else None,
    }


def _shift(octave: int | None, transferred: int | None) -> int | None:
    return None if octave is None or transferred is None else octave - transferred


def _seed_shift(base: Losses, big: Losses, seed: int) -> int | None:
    """Return the shift of a single seed."""
    own = best_octave({octave: [losses[seed]] for octave, losses in big.items()})
    return _shift(own, best_octave({o: [losses[seed]] for o, losses in base.items()}))


def _finite_mean(losses: Sequence[float]) -> float | None:
    mean = mean_loss(losses) if losses else math.inf
    return mean if math.isfinite(mean) else None


def _deviation(losses: Sequence[float]) -> float | None:
    if len(losses) < 2 or not all(map(math.isfinite, losses)):
        return None
    return statistics.stdev(losses)
