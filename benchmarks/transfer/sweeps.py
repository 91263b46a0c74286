"""Sweeps of learning rates in octaves, extended until the optimum lies inside.

``transfer(bench, case, method)`` is what every comparison is made of: it tunes the learning rate on
the base and sweeps the big model, both in the method's way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from benchmarks.transfer.bench import Bench
from benchmarks.transfer.cases import Case
from benchmarks.transfer.figures import missing_octave
from benchmarks.transfer.parametrisation import Parametrisation, Standard
from benchmarks.transfer.settings import Setting
from benchmarks.transfer.training import Advice, Recording, Totals, Trained, Training

_MOST_EXTENSIONS = 5  # octaves beyond those that a case begins with, on either side

Profiles = Mapping[tuple[int, int], str]
"""Names of profiles by (octave, seed)."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way of using a base's learning rate on a big model.

    Attributes:
        name: Short, for tables and JSON.
        parametrisation: How models of any size are prepared, base and big.
        recording: How the base's profiles are recorded.
        advice: How the big model is advised; None: not at all.
    """

    name: str
    parametrisation: Parametrisation = field(default_factory=Standard)
    recording: Recording = field(default_factory=Recording)
    advice: Advice | None = None


PLAIN = Method("plain")
ADVISED = Method("advised", advice=Advice())


@dataclass(slots=True)
class Sweep:
    """Trainings of one model over learning rates and seeds.

    Attributes:
        losses: By octave, seed by seed; infinite: diverged, or no profile to be advised with.
        seconds: Wall time of the trainings, the same way.
        unevenness: Of their steps' times, the same way.
        profiles: Registered profiles of the trainings that recorded and did not diverge.
        totals: What the same trainings recorded beside them.
        unanswered: Measurements that could not be made or were not answered.
    """

    losses: dict[int, list[float]] = field(default_factory=dict)
    seconds: dict[int, list[float]] = field(default_factory=dict)
    unevenness: dict[int, list[float]] = field(default_factory=dict)
    profiles: dict[tuple[int, int], str] = field(default_factory=dict)
    totals: dict[tuple[int, int], Totals] = field(default_factory=dict)
    unanswered: int = 0

    @property
    def total_s(self) -> float:
        """Time of all trainings, one after the other."""
        return sum(map(sum, self.seconds.values()))

    def add(self, other: Sweep) -> None:
        """Take another sweep's learning rates in.

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
    octaves: Sequence[int],
    *,
    parametrisation: Parametrisation | None = None,
    recording: Recording | None = None,
    advice: Advice | None = None,
    profiles: Profiles | None = None,
    totals: Mapping[tuple[int, int], Totals] | None = None,
) -> Sweep:
    """Train a model at several learning rates, with all seeds of a case.

    Args:
        bench: Where to train.
        case: Optimizer, steps and seeds.
        setting: The model.
        octaves: The learning rates, as powers of two.
        parametrisation: How the model is prepared. Default: standard.
        recording: How to record profiles, which are registered; None: not.
        advice: How to be advised; None: not.
        profiles: The profiles to be advised with. A training without one is not run: its base
            diverged.
        totals: What was recorded beside them, by (octave, seed).
    """
    plans = {
        (octave, seed): Training(
            setting,
            case.base,
            case.optimizer,
            2.0**octave,
            case.steps,
            seed,
            parametrisation=parametrisation or Standard(),
            recording=recording,
            advice=advice,
            profile=(profiles or {}).get((octave, seed), ""),
            address=bench.address,
            totals=(totals or {}).get((octave, seed), ()),
        )
        for octave in octaves
        for seed in case.seeds
    }
    runs = {key: plan for key, plan in plans.items() if advice is None or plan.profile}
    trained = dict(zip(runs, bench.run(list(runs.values())), strict=True))
    diverged = Trained(float("inf"), 0.0, [])
    done = {key: trained.get(key, diverged) for key in plans}
    return Sweep(
        losses={o: [done[o, seed].loss for seed in case.seeds] for o in octaves},
        seconds={o: [done[o, seed].seconds for seed in case.seeds] for o in octaves},
        unevenness={o: [done[o, seed].unevenness for seed in case.seeds] for o in octaves},
        profiles={
            (octave, seed): bench.register(_profile_id(case, octave, seed), result.content)
            for (octave, seed), result in done.items()
            if result.content
        },
        totals={key: result.totals for key, result in done.items() if result.totals},
        unanswered=sum(result.unanswered for result in done.values()),
    )


def until_inside(
    case: Case, octaves: Sequence[int], run: Callable[[Sequence[int]], Sweep]
) -> Sweep:
    """Sweep, and add an octave at a time until the optimum does not lie at an edge.

    Args:
        case: The case, whose first octaves bound how far it goes.
        octaves: The learning rates to begin with.
        run: Sweeps over given octaves.
    """
    floor, ceiling = min(case.octaves) - _MOST_EXTENSIONS, max(case.octaves) + _MOST_EXTENSIONS
    found = run(octaves)
    while (octave := missing_octave(found.losses, floor, ceiling)) is not None:
        found.add(run([octave]))
    return found


def base_sweep(bench: Bench, case: Case, method: Method) -> Sweep:
    """Tune the learning rate on a case's base, and record and register a profile at each.

    Args:
        bench: Where to train.
        case: The case.
        method: How to prepare and to record.
    """

    def run(octaves: Sequence[int]) -> Sweep:
        return _recorded(bench, case, method, octaves)

    return until_inside(case, case.octaves, run)


def big_sweep(
    bench: Bench,
    case: Case,
    method: Method,
    base: Sweep,
    octaves: Sequence[int] | None = None,
) -> Sweep:
    """Sweep a case's big model in a method's way.

    Args:
        bench: Where to train.
        case: The case.
        method: How to prepare and to advise.
        base: Sweep of the base. Each learning rate uses the profile that was recorded there at the
            same one; where that is still missing it is recorded and added.
        octaves: The learning rates to begin with. Default: those of the base's sweep.
    """

    def run(octaves: Sequence[int]) -> Sweep:
        missing = [octave for octave in octaves if octave not in base.losses]
        if method.advice is not None and missing:
            base.add(_recorded(bench, case, method, missing))
        return sweep(
            bench,
            case,
            case.big,
            octaves,
            parametrisation=method.parametrisation,
            advice=method.advice,
            profiles=base.profiles,
        )

    return until_inside(case, octaves or sorted(base.losses, reverse=True), run)


def transfer(bench: Bench, case: Case, method: Method) -> tuple[Sweep, Sweep]:
    """Tune on the base and sweep the big model, both in a method's way.

    Args:
        bench: Where to train.
        case: The case.
        method: The way.

    Returns:
        The sweeps of base and big model.
    """
    base = base_sweep(bench, case, method)
    return base, big_sweep(bench, case, method, base)


@dataclass(frozen=True, slots=True)
class CaseSweeps:
    """The three sweeps of a case.

    Attributes:
        base: The base, recorded.
        plain: The big model.
        advised: The big model with advice.
    """

    base: Sweep
    plain: Sweep
    advised: Sweep


def sweep_case(bench: Bench, case: Case, method: Method = ADVISED) -> CaseSweeps:
    """Sweep base, plain and advised model of a case.

    Args:
        bench: Where to train.
        case: The case.
        method: How to record and to advise.
    """
    base = base_sweep(bench, case, method)
    with ThreadPoolExecutor(2) as side_by_side:  # so that no process waits for the other sweep
        plain = side_by_side.submit(big_sweep, bench, case, PLAIN, base)
        advised = side_by_side.submit(big_sweep, bench, case, method, base)
        return CaseSweeps(base, plain.result(), advised.result())


def _recorded(bench: Bench, case: Case, method: Method, octaves: Sequence[int]) -> Sweep:
    return sweep(
        bench,
        case,
        case.base,
        octaves,
        parametrisation=method.parametrisation,
        recording=method.recording,
    )


def _profile_id(case: Case, octave: int, seed: int) -> str:
    words = case.name.lower().replace("_", "-").replace(" ", "-")
    return f"{words}-{'m' if octave < 0 else 'p'}{abs(octave)}-seed{seed}"
