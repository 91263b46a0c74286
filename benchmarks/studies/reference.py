"""What the variants of a study are measured against, and with."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from advisor.policy import Policy
from advisor.wire import policy_to_proto
from benchmarks.studies.gains import Gain, gain_by_seed
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
    """Base and plain big model of a case, both searched.

    Attributes:
        case: The case.
        base: Sweep of the base, with a profile at each learning rate.
        plain: Sweep of the plain big model.
        octave: Of the base's best learning rate.
    """

    case: Case
    base: Sweep
    plain: Sweep
    octave: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a variant gave; losses in nats, means over seeds.

    Attributes:
        shift: Octaves from the transferred learning rate to the best one under the variant.
        regret: Its loss at the transferred learning rate, less the best of the plain sweep; None:
            it diverged.
        regret_spread: Sample standard deviation of that over seeds; None: one seed, or diverged.
        regrets: By seed, of which ``regret`` is the mean; empty: it diverged.
        loss: Its loss at the transferred learning rate; None: it diverged.
        extra_cost_percent: Time added to a training by its measured steps; None: all diverged.
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
    """Search base and plain big model of each case.

    Args:
        bench: Where to train.
        cases: The cases.
        base_steps: Steps of the base's trainings; None: as many as the case says.

    Raises:
        ValueError: Every training of a base diverged.
    """
    with ThreadPoolExecutor(2) as side_by_side:  # so that no process waits for another sweep's end
        return list(side_by_side.map(lambda case: _reference(bench, case, base_steps), cases))


def _reference(bench: Bench, case: Case, base_steps: int | None) -> Reference:
    of_base = replace(case, steps=base_steps or case.steps)
    base = base_sweep(bench, of_base, PLAIN)
    octave = best_octave(base.losses)
    if octave is None:
        raise ValueError(f"every training of the base of {case.name} diverged; lower its octaves")
    return Reference(case, base, big_sweep(bench, case, PLAIN, base), octave)


def tried(
    bench: Bench, reference: Reference, method: Method, profiles: Profiles | None = None
) -> Outcome:
    """Use a method on the big model, at the base's best learning rate and an octave to each side.

    A shift of one octave may thus be more; what counts here is the regret.

    Args:
        bench: Where to train.
        reference: The case, with its base's profiles.
        method: The method. Where it records in a way of its own, new profiles are recorded.
        profiles: Other profiles than those of the base's sweep.
    """
    octaves = octaves_around(reference)
    if profiles is None and method.recording != PLAIN.recording:
        profiles = recorded(bench, reference, method.recording, octaves)
    found = sweep(
        bench,
        reference.case,
        reference.case.big,
        octaves,
        parametrisation=method.parametrisation,
        advice=method.advice,
        profiles=reference.base.profiles if profiles is None else profiles,
        totals=reference.base.totals,
    )
    return outcome(reference, found)


def searched(bench: Bench, reference: Reference, method: Method) -> Outcome:
    """Use a method on the big model, at learning rates from the base's best one outwards.

    Args:
        bench: Where to train.
        reference: The case, with its base's profiles.
        method: The method. Where it records in a way of its own, new profiles are recorded.
    """
    # An empty sweep makes its own profiles; the losses of the base are the reference's.
    base = Sweep() if method.recording != PLAIN.recording else reference.base
    octaves = octaves_around(reference)
    return outcome(reference, big_sweep(bench, reference.case, method, base, octaves))


def octaves_around(reference: Reference) -> list[int]:
    """Return the base's best octave and its neighbours, the highest first."""
    return [reference.octave + step for step in (1, 0, -1)]


def recorded(
    bench: Bench,
    reference: Reference,
    recording: Recording,
    octaves: Sequence[int],
    setting: Setting | None = None,
) -> Profiles:
    """Record and register profiles of a base.

    Args:
        bench: Where to train.
        reference: The case.
        recording: How to record.
        octaves: The learning rates, as powers of two.
        setting: Another base than the case's.
    """
    base = setting or reference.case.base
    return sweep(bench, reference.case, base, octaves, recording=recording).profiles


def outcome(reference: Reference, found: Sweep) -> Outcome:
    """Judge a sweep of the big model.

    Args:
        reference: The case.
        found: The sweep, with the reference's octave in it.
    """
    own = best_octave(reference.plain.losses)
    best = best_octave(found.losses)
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


def gain(one: Sequence[Outcome], other: Sequence[Outcome]) -> Gain | None:
    """Compare two variants over the same cases and seeds.

    Trainings of one seed begin with the same weights and see the same batches, so differences are
    taken seed by seed: what seeds differ in by themselves cancels.

    Args:
        one: Outcomes of the variant that may gain, one a case.
        other: The same cases with the other variant.

    Returns:
        The gain; None: one of them diverged somewhere.
    """
    pairs = list(zip(one, other, strict=True))
    if not all(mine.regrets and its.regrets for mine, its in pairs):
        return None
    return gain_by_seed([
        [b - a for a, b in zip(mine.regrets, its.regrets, strict=True)] for mine, its in pairs
    ])


def _extra_cost_percent(plain: Sweep, found: Sweep) -> float | None:
    """Return how much longer trainings take for their measured steps, in percent.

    Each training is compared with itself (its mean step with its median one), and then with plain
    trainings, whose steps are uneven too: times of trainings that ran at other moments of a shared
    machine say nothing about each other.
    """
    ratios = [_median(sweep.unevenness) for sweep in (found, plain)]
    if None in ratios:
        return None
    of_found, of_plain = (ratio for ratio in ratios if ratio is not None)
    return 100 * (of_found / of_plain - 1)


def _median(values: Mapping[int, Sequence[float]]) -> float | None:
    finite = [value for row in values.values() for value in row if math.isfinite(value)]
    return statistics.median(finite) if finite else None
