"""The fitted optimum of sweeps, on curves with a known optimum."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.transfer.optimum import Transfer, Verdict, compare, optimum

INF = math.inf
GRID = [octave / 4 for octave in range(-16, 17)]


def curve(
    best: float, *, seeds: int = 5, octaves: Sequence[float] = GRID
) -> dict[float, list[float]]:
    """Return a parabola whose seeds differ only by an offset."""
    return {o: [2.0 + 0.1 * (o - best) ** 2 + 0.3 * s for s in range(seeds)] for o in octaves}


def _noisy(
    rng: np.random.Generator, best: float, offsets: np.ndarray, cubic: float
) -> dict[float, list[float]]:
    """Return a sweep with quarter octaves near its optimum, as the benchmark trains it."""
    moved = best + 0.1 * rng.normal(size=len(offsets))  # each seed has an optimum of its own
    center = round(4 * best) / 4
    octaves = {*(float(o) for o in range(-4, 5)), *(center + k / 4 for k in range(-4, 5))}
    return {
        o: list(
            2.0 + 0.05 * (o - moved) ** 2 + 0.05 * cubic * (o - moved).clip(-2, 2) ** 3
            + offsets + 0.01 * rng.normal(size=len(offsets))
        )
        for o in sorted(octaves)
    }  # fmt: skip


@pytest.mark.parametrize("cubic", [0.0, 0.3], ids=["symmetric", "steeper above"])
def test_ninety_percent_intervals_hold_the_truth_in_ninety_percent_of_sweeps(cubic: float) -> None:
    rng = np.random.default_rng(1)
    shift, draws, seeds = 0.4, 200, 5
    regret = 0.05 * shift**2 - 0.05 * cubic * shift**3
    found, bases = [], rng.uniform(-0.5, 0.5, draws)
    for base in bases:
        offsets = 0.05 * rng.normal(size=seeds)
        places = (base, base + shift, base - 1)
        found.append(compare(*(_noisy(rng, each, offsets, cubic) for each in places)))

    def coverage(intervals: list[tuple[float, float] | None], truths: Sequence[float]) -> float:
        pairs = zip(intervals, truths, strict=True)
        return sum(i is not None and i[0] <= truth <= i[1] for i, truth in pairs) / draws

    assert 0.85 <= coverage([each.shift_interval for each in found], [shift] * draws) <= 0.95
    assert 0.85 <= coverage([each.regret_interval for each in found], [regret] * draws) <= 0.95
    assert np.mean([each.shift for each in found]) == pytest.approx(shift, abs=0.015)
    assert sum(each.verdict is Verdict.WITHIN for each in found) > 0.95 * draws


def test_the_fit_of_a_parabola_is_exact() -> None:
    base, big = curve(0.37, octaves=range(-4, 5)), curve(-0.45, octaves=range(-4, 5))
    found = compare(base, big, curve(2.0))
    assert found.base_octave == pytest.approx(0.37)
    assert found.shift == pytest.approx(-0.82)
    assert found.regret == pytest.approx(0.1 * 0.82**2)
    assert found.verdict is Verdict.WITHIN
    # Offsets of whole seeds cancel, so nothing is uncertain.
    assert found.shift_interval == pytest.approx((-0.82, -0.82))
    assert found.regret_interval == pytest.approx((found.regret, found.regret))


def test_flat_sweeps_cannot_tell() -> None:
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(20):
        flat = {o: list(2.0 + 0.05 * rng.normal(size=5)) for o in GRID}
        verdicts.append(compare(curve(0.0), flat, curve(0.0)).verdict)
    assert verdicts.count(Verdict.CANNOT_TELL) >= 18


def test_a_wide_interval_that_is_all_beyond_an_octave_is_a_miss() -> None:
    big = {
        o: [2.0 + 0.1 * (o - 2.6 - moved) ** 2 for moved in (-0.8, -0.4, 0.0, 0.4, 0.8)]
        for o in GRID
    }
    found = compare(curve(0.0), big, curve(0.0))
    assert found.shift_interval is not None
    low, high = found.shift_interval
    assert high - low > 1 < low
    assert found.verdict is Verdict.BEYOND


@pytest.mark.parametrize("lost", [INF, math.nan])
def test_learning_rates_at_which_a_seed_diverged_are_not_fitted(lost: float) -> None:
    base, big = curve(0.0), curve(0.25)
    for octave in GRID:
        if octave > 1:
            base[octave] = [lost, *base[octave][1:]]
    found = compare(base, big, big)
    assert found.base_octave == pytest.approx(0.0)
    assert found.shift == pytest.approx(0.25)
    assert optimum({o: [lost] * 2 for o in GRID}) is None


def test_an_optimum_next_to_divergence_is_known_to_the_next_learning_rate() -> None:
    downhill: dict[float, list[float]] = {float(o): [2.0 - o / 10] * 3 for o in range(-4, 1)}
    base = {**downhill, 1.0: [INF] * 3}
    assert compare(base, base, base).base_interval == (-1.0, 1.0)
    assert compare(base, base, base).verdict is Verdict.CANNOT_TELL
    finer = {**base, **{-o / 4: [2.0 + o / 40] * 3 for o in range(4)}, 0.25: [INF] * 3}
    assert compare(finer, finer, finer).base_interval == (-0.25, 0.25)


def test_a_shift_to_the_edge_of_a_sweep_is_a_bound() -> None:
    edge = curve(-9.0)
    assert compare(curve(0.0), edge, edge).verdict is Verdict.BEYOND
    assert compare(curve(-3.5), edge, edge).verdict is Verdict.CANNOT_TELL


def test_a_model_that_diverges_has_no_regret() -> None:
    diverged = {o: [INF] * 5 for o in GRID}
    base = curve(0.0)
    lost = compare(base, diverged, base)
    assert (lost.shift, lost.regret, lost.verdict) == (None, None, Verdict.BEYOND)
    above = compare(base, {o: v if o < -1 else [INF] * 5 for o, v in curve(-3).items()}, base)
    assert above.shift == pytest.approx(-3.0)
    assert above.regret is None
    assert compare(base, base, diverged).regret is None
    assert compare(diverged, base, base) == Transfer()


def test_a_regret_far_from_the_optimum_lies_between_the_neighbors() -> None:
    big = curve(3.0, octaves=[float(o) for o in range(-4, 5)])
    found = compare(curve(-0.5), big, big)
    assert found.regret == pytest.approx(0.1 * (3**2 + 4**2) / 2)


def test_one_seed_has_no_interval() -> None:
    found = compare(*(curve(x, seeds=1) for x in (0.0, 0.5, 0.0)))
    assert found.shift == pytest.approx(0.5)
    assert (found.shift_interval, found.regret_interval) == (None, None)
    assert found.verdict is Verdict.WITHIN


def test_two_learning_rates_are_compared_without_a_quadratic() -> None:
    two: dict[float, list[float]] = {0.0: [1.0] * 2, -1.0: [1.2] * 2, 1.0: [INF] * 2}
    assert optimum(two) == 0.0
    assert optimum({-1.0: [1.0]}) == -1.0


@pytest.mark.parametrize("seeds", [0, 2])
def test_sweeps_with_different_seeds_are_rejected(seeds: int) -> None:
    with pytest.raises(ValueError, match=rf"the sweeps have \[{seeds}, 3\] seeds; train all"):
        compare(curve(0.0, seeds=3), curve(0.0, seeds=seeds), curve(0.0, seeds=3))
