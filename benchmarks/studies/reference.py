"""What the variants of a study are compared with, and how they are trained."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from advisor.policy import Policy
from advisor.wire import policy_to_proto
from benchmarks.transfer.bench import Bench
from benchmarks.transfer.cases import Case
from benchmarks.transfer.figures import best_octave, mean_loss
from benchmarks.transfer.settings import Setting
from benchmarks.transfer.sweeps import (
    ADVISED,
    PLAIN,
    Method,
    Profiles,
    Sweep,
    base_sweep,
    big_sweep,
    sweep,
)
from benchmarks.transfer.training import Advice, Recording


def with_rules(**rules: object) -> Method:
    """Return the advised method under the default policy with some rules changed."""
    policy = replace(Policy(), **rules)  # type: ignore[arg-type]
    return replace(ADVISED, advice=Advice(policy_to_proto(policy)))


@dataclass(frozen=True, slots=True)
class Reference:
    """The sweeps of a case's base and of its plain big model.

    Attributes:
        case: The case.
        base: Sweep of the base, with a profile at each learning rate.
        plain: Sweep of the plain big model.
        octave: log2 of the base's best learning rate.
    """

    case: Case
    base: Sweep
    plain: Sweep
    octave: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results of a variant. Losses are in nats, means over seeds.

    Attributes:
        shift: Octaves from the transferred learning rate to the best one under the variant.
        regret: Loss at the transferred learning rate minus the best loss of the plain sweep; None
            if the variant diverged.
        regret_spread: Sample standard deviation of the regret over seeds; None with a single seed
            or if the variant diverged.
        regrets: The regret of each seed; empty if the variant diverged.
        loss: Loss at the transferred learning rate; None if the variant diverged.
        extra_cost_percent: Time that measured steps add to a training; None if all trainings
            diverged.
    """

    shift: int | None
    regret: float | None
    regret_spread: float | None
    regrets: tuple[float, ...]
    loss: float | None
    extra_cost_percent: float | None


def references(
    bench: Bench, cases: Sequence[Case], base_steps: int | None = None
) -> list[Reference]:
    """Sweep the base and the plain big model of each case.

    Args:
        bench: Where to train.
        cases: The cases.
        base_steps: Steps of the base's trainings; None for the case's own number.

    Raises:
        ValueError: Every training of a base diverged.
    """
    with ThreadPoolExecutor(2) as pool:  # no process waits for the end of a sweep
        return list(pool.map(lambda case: _reference(bench, case, base_steps), cases))


def _reference(bench: Bench, case: Case, base_steps: int | None) -> Reference:
    base_case = replace(case, steps=base_steps or case.steps, base_steps=None)
    base = base_sweep(bench, base_case, PLAIN)
    octave = best_octave(base.grid)
    if octave is None:
        raise ValueError(f"every training of the base of {case.name} diverged; lower its octaves")
    return Reference(case, base, big_sweep(bench, case, PLAIN, base), octave)


def tried(
    bench: Bench, reference: Reference, method: Method, profiles: Profiles | None = None
) -> Outcome:
    """Train the big model with a method, at the base's best octave and its two neighbors.

    A reported shift of one octave is thus a lower bound. The regret is what counts here.

    Args:
        bench: Where to train.
        reference: The case, with its base's profiles.
        method: The method. If it records differently from the base's sweep, new profiles are
            recorded.
        profiles: Profiles to use instead of those of the base's sweep.
    """
    octaves = octaves_around(reference)
    if profiles is None and method.recording != PLAIN.recording:
        profiles = recorded(bench, reference, method.recording, octaves)
    found = sweep(
        bench,
        reference.case,
        reference.case.big,
        octaves,
        parametrization=method.parametrization,
        advice=method.advice,
        profiles=reference.base.profiles if profiles is None else profiles,
        totals=reference.base.totals,
    )
    return outcome(reference, found)


def octaves_around(reference: Reference) -> list[int]:
    """Return the base's best octave and its two neighbors, the highest first."""
    return [reference.octave + step for step in (1, 0, -1)]


def recorded(
    bench: Bench,
    reference: Reference,
    recording: Recording,
    octaves: Sequence[float],
    setting: Setting | None = None,
) -> Profiles:
    """Record and register profiles of a base.

    Args:
        bench: Where to train.
        reference: The case.
        recording: How to record.
        octaves: log2 of the learning rates.
        setting: The base to record; None for the case's own.
    """
    base = setting or reference.case.base
    return sweep(bench, reference.case, base, octaves, recording=recording).profiles


def outcome(reference: Reference, found: Sweep) -> Outcome:
    """Return the results of a sweep of the big model.

    Args:
        reference: The case.
        found: The sweep; the reference's octave is one of its learning rates.
    """
    own = best_octave(reference.plain.grid)
    best = best_octave(found.grid)
    at = found.losses[reference.octave]
    plain = reference.plain.losses[own] if own is not None else [math.nan] * len(at)
    regrets = [loss - other for loss, other in zip(at, plain, strict=True)]
    loss, regret = mean_loss(at), mean_loss(regrets)
    is_finite = math.isfinite(loss) and math.isfinite(regret)
    return Outcome(
        shift=None if best is None else best - reference.octave,
        regret=regret if is_finite else None,
        regret_spread=statistics.stdev(regrets) if is_finite and len(regrets) > 1 else None,
        regrets=tuple(regrets) if is_finite else (),
        loss=loss if is_finite else None,
        extra_cost_percent=_extra_cost_percent(reference.plain, found),
    )


def _extra_cost_percent(plain: Sweep, found: Sweep) -> float | None:
    """Return how much time measured steps add to a training, in percent.

    Trainings that ran at different times on a shared machine cannot be compared directly. So each
    training is compared with itself (its mean step time with its median one), and this ratio with
    that of the plain trainings, whose step times vary too.
    """
    found_ratio, plain_ratio = _median(found.unevenness), _median(plain.unevenness)
    if found_ratio is None or plain_ratio is None:
        return None
    return 100 * (found_ratio / plain_ratio - 1)


def _median(values: Mapping[float, Sequence[float]]) -> float | None:
    finite = [value for row in values.values() for value in row if math.isfinite(value)]
    return statistics.median(finite) if finite else None
