"""From sweeps to figures: where the best learning rate lies, and what using another costs. Pure.

A sweep maps octaves (the learning rate is ``2 ** octave``) to the losses of its seeds. A training
that diverged has an infinite loss, and so has the mean over seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Losses = Mapping[int, Sequence[float]]


def mean_loss(losses: Sequence[float]) -> float:
    """Return the mean over seeds; infinite if one diverged."""
    return sum(losses) / len(losses)


def best_octave(sweep: Losses) -> int | None:
    """Return the octave of the lowest mean loss; None if every one diverged.

    Args:
        sweep: The losses. Of equal ones the lower learning rate is the best.
    """
    finite = {o: mean_loss(losses) for o, losses in sweep.items()}
    finite = {o: loss for o, loss in finite.items() if math.isfinite(loss)}
    return min(finite, key=lambda o: (finite[o], o)) if finite else None


def missing_octave(sweep: Losses, floor: int, ceiling: int) -> int | None:
    """Return the octave that a sweep lacks on the edge where its best one lies, or None.

    An optimum at an edge of what was tried is none. Above an edge where trainings diverge there is
    nothing to look for, below one there is.

    Args:
        sweep: The losses so far.
        floor: The lowest octave that may be tried.
        ceiling: The highest.
    """
    best = best_octave(sweep)
    low, high = min(sweep), max(sweep)
    if (best is None or best == low) and low > floor:
        return low - 1
    if best == high and high < ceiling:
        return high + 1
    return None


def at_edge(sweep: Losses) -> bool:
    """Return whether the best octave is the sweep's lowest or highest, so no measured optimum."""
    return best_octave(sweep) in {None, min(sweep), max(sweep)}


@dataclass(frozen=True, slots=True)
class Figures:
    """What a case shows. Losses in nats, means over seeds; None: cannot be told, all diverged.

    Attributes:
        base_octave: Of the base's best learning rate, the one that is transferred.
        shift_plain: Octaves from there to the plain big model's best.
        shift_advised: The same, advised.
        regret: ``loss_advised`` minus ``loss_best_plain``.
        loss_plain: Of the plain big model at the transferred learning rate.
        loss_advised: Of the advised one.
        loss_best_plain: Of the plain big model at its own best learning rate.
        spread: Sample standard deviation over seeds of ``regret`` (the seeds' own differences) and
            the three losses, and the shifts seed by seed.
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
    """Return what the sweeps of a case show.

    Args:
        base: Sweep of the base.
        plain: Sweep of the big model.
        advised: Sweep of the big model with advice; has the base's best octave, if there is one.
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
        shift_plain=_difference(own, transferred),
        shift_advised=_difference(best_octave(advised), transferred),
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
    """Return the part of a search's time that transfer saves; below 0 it costs more.

    Args:
        search_s: The sweep on the plain big model.
        run_s: One advised run of the big model, instead.
        base_search_s: The sweep on the base, which serves big models of any size. It is much of the
            time only where the big model is hardly bigger.
    """
    return 1 - (base_search_s + run_s) / search_s


def summary(cases: Sequence[Mapping[str, object]]) -> dict[str, float | None]:
    """Return the figures over all cases; a case that has no figure counts as missing the target.

    Args:
        cases: With ``shift_advised`` and ``regret`` each.
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


def _difference(octave: int | None, transferred: int | None) -> int | None:
    return None if octave is None or transferred is None else octave - transferred


def _seed_shift(base: Losses, big: Losses, seed: int) -> int | None:
    """Return the shift that one seed alone would have shown."""
    own = best_octave({octave: [losses[seed]] for octave, losses in big.items()})
    return _difference(own, best_octave({o: [losses[seed]] for o, losses in base.items()}))


def _finite_mean(losses: Sequence[float]) -> float | None:
    mean = mean_loss(losses) if losses else math.inf
    return mean if math.isfinite(mean) else None


def _deviation(losses: Sequence[float]) -> float | None:
    if len(losses) < 2 or not all(map(math.isfinite, losses)):
        return None
    return statistics.stdev(losses)
