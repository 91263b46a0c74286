"""Sweeps of learning rates in octaves, extended until the optimum is not at an edge.

Near the optimum, a sweep can have finer steps, from which ``optimum.py`` fits it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.transfer.bench import Bench
from benchmarks.transfer.cases import Case
from benchmarks.transfer.curves import HALF_WINDOW
from benchmarks.transfer.figures import missing_octave
from benchmarks.transfer.optimum import optimum
from benchmarks.transfer.parametrization import Parametrization, Standard
from benchmarks.transfer.settings import Setting
from benchmarks.transfer.training import Advice, Recording, Totals, Trained, Training

_MAX_EXTENSIONS = 5  # octaves beyond the first ones of a case, on either side
_MAX_REFINEMENTS = 3  # the fitted optimum moves as learning rates are added

Profiles = Mapping[tuple[float, int], str]
"""Names of profiles by (octave, seed)."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way to use a base's learning rate on a big model.

    Attributes:
        name: Name in tables and JSON.
        parametrization: How to prepare models of any size.
        recording: How to record the base's profiles.
        advice: How to advise the big model; None to train it plain.
    """

    name: str
    parametrization: Parametrization = field(default_factory=Standard)
    recording: Recording = field(default_factory=Recording)
    advice: Advice | None = None


PLAIN = Method("plain")
ADVISED = Method("advised", advice=Advice())


@dataclass(slots=True)
class Sweep:
    """Trainings of one model over learning rates and seeds.

    Attributes:
        losses: Losses by octave and seed; infinite if the training diverged or had no profile.
        seconds: Wall times of the trainings, by octave and seed.
        unevenness: Unevenness of the step times (see :class:`Trained`), by octave and seed.
        profiles: Registered profiles of the trainings that recorded one and did not diverge.
        totals: Total rates recorded by the same trainings.
        unanswered: Measurements that failed or were not answered.
    """

    losses: dict[float, list[float]] = field(default_factory=dict)
    seconds: dict[float, list[float]] = field(default_factory=dict)
    unevenness: dict[float, list[float]] = field(default_factory=dict)
    profiles: dict[tuple[float, int], str] = field(default_factory=dict)
    totals: dict[tuple[float, int], Totals] = field(default_factory=dict)
    unanswered: int = 0

    @property
    def grid(self) -> dict[int, list[float]]:
        """The losses at whole octaves."""
        return {
            int(octave): losses for octave, losses in self.losses.items() if octave == int(octave)
        }

    @property
    def total_s(self) -> float:
        """Summed time of the trainings at whole octaves, which are what a search needs."""
        return sum(sum(taken) for octave, taken in self.seconds.items() if octave == int(octave))

    def add(self, other: Sweep) -> None:
        """Add the learning rates of another sweep.

        Args:
            other: The other sweep, of the same model.
        """
        self.losses |= other.losses
        self.seconds |= other.seconds
        self.unevenness |= other.unevenness
        self.profiles |= other.profiles
        self.totals |= other.totals
        self.unanswered += other.unanswered


def sweep(
    bench: Bench,
    case: Case,
    setting: Setting,
    octaves: Sequence[float],
    *,
    parametrization: Parametrization | None = None,
    recording: Recording | None = None,
    advice: Advice | None = None,
    profiles: Profiles | None = None,
    totals: Mapping[tuple[float, int], Totals] | None = None,
    steps: int | None = None,
) -> Sweep:
    """Train a model at several learning rates, with all seeds of a case.

    Args:
        bench: Where to train.
        case: The case, with optimizer, steps and seeds.
        setting: The model.
        octaves: log2 of the learning rates.
        parametrization: How to prepare the model. Default: standard.
        recording: How to record profiles, which are then registered; None to record none.
        advice: How to advise the trainings; None for plain ones.
        profiles: The profiles to use. A training without one is not run, since its base diverged.
        totals: Total rates recorded with these profiles, by (octave, seed).
        steps: Optimizer steps; None for those of the case.
    """
    profiles, totals = profiles or {}, totals or {}
    plans = {
        (octave, seed): Training(
            setting,
            case.base,
            case.optimizer,
            2.0**octave,
            steps or case.steps,
            seed,
            weight_decay=case.weight_decay,
            parametrization=parametrization or Standard(),
            recording=recording,
            advice=advice,
            profile=profiles.get((octave, seed), ""),
            address=bench.address,
            totals=totals.get((octave, seed), ()),
        )
        for octave, seed in itertools.product(octaves, case.seeds)
    }
    runs = {key: plan for key, plan in plans.items() if advice is None or plan.profile}
    trained = dict(zip(runs, bench.run(list(runs.values())), strict=True))
    diverged = Trained(float("inf"), 0.0, [])
    done = {key: trained.get(key, diverged) for key in plans}
    by_octave = {octave: [done[octave, seed] for seed in case.seeds] for octave in octaves}
    return Sweep(
        losses={octave: [each.loss for each in results] for octave, results in by_octave.items()},
        seconds={
            octave: [each.seconds for each in results] for octave, results in by_octave.items()
        },
        unevenness={
            octave: [each.unevenness for each in results] for octave, results in by_octave.items()
        },
        profiles={
            (octave, seed): bench.register(_profile_id(case, octave, seed), result.content)
            for (octave, seed), result in done.items()
            if result.content
        },
        totals={key: result.totals for key, result in done.items() if result.totals},
        unanswered=sum(result.unanswered for result in done.values()),
    )


def until_inside(
    case: Case, octaves: Sequence[float], run: Callable[[Sequence[float]], Sweep]
) -> Sweep:
    """Sweep, and add one octave at a time until the optimum is not at an edge.

    Args:
        case: The case, whose octaves bound the extension.
        octaves: log2 of the learning rates to start with.
        run: Sweeps over the given octaves.
    """
    floor, ceiling = min(case.octaves) - _MAX_EXTENSIONS, max(case.octaves) + _MAX_EXTENSIONS
    found = run(octaves)
    while (octave := missing_octave(found.grid, floor, ceiling)) is not None:
        found.add(run([octave]))
    return found


def add_finer_steps(case: Case, found: Sweep, run: Callable[[Sequence[float]], Sweep]) -> None:
    """Add finer steps to a sweep, as far from its fitted optimum as the fit reaches.

    Learning rates above one at which a seed diverged are left out.

    Args:
        case: The case, which says how fine the steps are.
        found: The sweep in octaves.
        run: Sweeps over the given octaves.
    """
    for _ in range(_MAX_REFINEMENTS):
        best = optimum(found.losses)
        if best is None:
            return
        center = round(best / case.finer_octaves) * case.finer_octaves
        diverged = [o for o, losses in found.losses.items() if not all(map(math.isfinite, losses))]
        ceiling = min((octave for octave in diverged if octave > best), default=math.inf)
        steps = round(HALF_WINDOW / case.finer_octaves)
        near = [center + step * case.finer_octaves for step in range(-steps, steps + 1)]
        missing = [o for o in near if o not in found.losses and o < ceiling]
        if not missing:
            return
        found.add(run(missing))


def base_sweep(bench: Bench, case: Case, method: Method, *, is_fine: bool = False) -> Sweep:
    """Sweep the base of a case, and record and register a profile at each learning rate.

    Args:
        bench: Where to train.
        case: The case.
        method: How to prepare models and to record.
        is_fine: Whether to add finer steps near the optimum.
    """

    def run(octaves: Sequence[float]) -> Sweep:
        return _record(bench, case, method, octaves)

    found = until_inside(case, case.octaves, run)
    if is_fine:
        add_finer_steps(case, found, run)
    return found


def big_sweep(
    bench: Bench,
    case: Case,
    method: Method,
    base: Sweep,
    octaves: Sequence[float] | None = None,
    *,
    is_fine: bool = False,
) -> Sweep:
    """Sweep the big model of a case with a method.

    Args:
        bench: Where to train.
        case: The case.
        method: How to prepare and to advise the model.
        base: Sweep of the base. Each learning rate uses the profile recorded at the same learning
            rate; missing ones are recorded and added.
        octaves: log2 of the learning rates to start with. Default: those of the base's sweep.
        is_fine: Whether to add finer steps near the optimum.
    """

    def run(octaves: Sequence[float]) -> Sweep:
        missing = [octave for octave in octaves if octave not in base.losses]
        if method.advice is not None and missing:
            base.add(_record(bench, case, method, missing))
        return sweep(
            bench,
            case,
            case.big,
            octaves,
            parametrization=method.parametrization,
            advice=method.advice,
            profiles=base.profiles,
        )

    found = until_inside(case, octaves or sorted(base.grid, reverse=True), run)
    if is_fine:
        add_finer_steps(case, found, run)
    return found


def _record(bench: Bench, case: Case, method: Method, octaves: Sequence[float]) -> Sweep:
    return sweep(
        bench,
        case,
        case.base,
        octaves,
        parametrization=method.parametrization,
        recording=method.recording,
        steps=case.steps_of_base,
    )


def _profile_id(case: Case, octave: float, seed: int) -> str:
    words = case.name.lower().replace("_", "-").replace(" ", "-")
    return f"{words}-{'m' if octave < 0 else 'p'}{abs(octave):g}-seed{seed}".replace(".", "-")
