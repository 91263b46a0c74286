"""The figures of the transfer benchmark, on sweeps worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from benchmarks.transfer.bench import Bench
from benchmarks.transfer.case_sweeps import CaseSweeps
from benchmarks.transfer.cases import CASES
from benchmarks.transfer.figures import (
    at_edge,
    best_octave,
    figures,
    missing_octave,
    search_saved,
    summary,
)
from benchmarks.transfer.optimum import optimum
from benchmarks.transfer.sweeps import Sweep, add_finer_steps, until_inside
from benchmarks.transfer.training import Trained, Training, final_loss

INF = math.inf


def test_shift_and_regret_of_a_worked_example() -> None:
    base = {-5: [2.4, 2.6], -6: [2.0, 2.2], -7: [2.5, 2.5]}
    plain = {-5: [INF, 3.0], -6: [2.9, 2.7], -7: [2.2, 2.4], -8: [1.8, 2.0], -9: [2.1, 2.1]}
    advised = {-5: [1.7, 1.9], -6: [1.9, 1.9], -7: [2.0, 2.2]}
    found = figures(base, plain, advised)
    assert found.base_octave == -6
    assert found.shift_plain == -2
    assert found.shift_advised == 1
    assert found.loss_plain == pytest.approx(2.8)
    assert found.loss_advised == pytest.approx(1.9)
    assert found.loss_best_plain == pytest.approx(1.9)
    assert found.regret == pytest.approx(0.0)
    assert found.spread["regret"] == pytest.approx(math.sqrt(0.02))  # of 0.1 and -0.1
    assert found.spread["shift_plain"] == [-2, -2]
    assert found.spread["shift_advised"] == [1, 0]  # the second seed has a tie


def test_a_learning_rate_at_which_a_seed_diverges_is_not_the_best() -> None:
    assert best_octave({-1: [1.0, INF], -2: [3.0, 3.0]}) == -2


def test_there_is_no_best_learning_rate_if_all_diverge() -> None:
    diverged = {-1: [INF], -2: [INF]}
    assert best_octave(diverged) is None
    found = figures({-1: [1.0], -2: [2.0]}, {-1: [2.0], -2: [1.0]}, diverged)
    assert found.shift_advised is None
    assert found.regret is None
    assert found.loss_advised is None


def test_the_lower_of_two_learning_rates_with_equal_losses_is_the_best() -> None:
    assert best_octave({-1: [1.0], -2: [1.0], -3: [2.0]}) == -2


@pytest.mark.parametrize(
    ("losses", "missing"),
    [
        ([1.0, 2.0, 3.0], -3),  # the best is the highest learning rate
        ([3.0, 2.0, 1.0], -7),  # the lowest one
        ([2.0, 1.0, 2.0], None),
        ([INF, 1.0, 2.0], None),
        ([INF, INF, INF], -7),
        ([INF, INF, 1.0], -7),
    ],
)
def test_a_sweep_is_extended_if_its_best_octave_is_at_an_edge(
    losses: list[float], missing: int | None
) -> None:
    sweep = dict(zip((-4, -5, -6), ([loss] for loss in losses), strict=True))
    assert missing_octave(sweep, -10, 0) == missing
    assert at_edge(sweep) is (missing is not None)


def test_a_sweep_is_not_extended_beyond_its_bounds() -> None:
    assert missing_octave({0: [1.0], -1: [2.0]}, -1, 0) is None
    assert missing_octave({0: [2.0], -1: [1.0]}, -1, 0) is None
    assert at_edge({0: [2.0], -1: [1.0]})


def _parabola(
    optimum: float, diverging: float = INF
) -> tuple[list[float], Callable[[Sequence[float]], Sweep]]:
    trained: list[float] = []

    def run(octaves: Sequence[float]) -> Sweep:
        trained.extend(octaves)
        return Sweep(
            losses={o: [INF if o >= diverging else (o - optimum) ** 2] for o in octaves},
            seconds={octave: [1.0] for octave in octaves},
        )

    return trained, run


@pytest.mark.parametrize(
    ("optimum", "trained_beyond"), [(-7, []), (-1, [-3, -2, -1, 0]), (-11, [-10, -11, -12])]
)
def test_a_sweep_is_extended_until_its_optimum_is_not_at_an_edge(
    optimum: int, trained_beyond: list[int]
) -> None:
    case = replace(CASES[0], octaves=(-4, -5, -6, -7, -8, -9))
    trained, run = _parabola(optimum)
    found = until_inside(case, case.octaves, run)
    assert trained == [*case.octaves, *trained_beyond]
    assert best_octave(found.grid) == optimum
    assert not at_edge(found.grid)
    assert found.total_s == len(trained)


def test_a_sweep_without_an_optimum_ends_at_its_bound() -> None:
    case = replace(CASES[0], octaves=(-4, -5, -6))
    _, run = _parabola(-100)
    found = until_inside(case, case.octaves, run)
    assert min(found.losses) == -11
    assert at_edge(found.grid)


def test_finer_steps_surround_the_fitted_optimum_and_are_no_part_of_the_search() -> None:
    case = replace(CASES[0], octaves=(-4, -5, -6, -7, -8, -9))
    trained, run = _parabola(-6.4)
    found = until_inside(case, case.octaves, run)
    search_s = found.total_s
    add_finer_steps(case, found, run)
    assert sorted(trained[len(case.octaves) :]) == [-7.5, -7.25, -6.75, -6.5, -6.25, -5.75, -5.5]
    assert (best_octave(found.grid), found.total_s) == (-6, search_s)
    before = len(trained)
    add_finer_steps(case, found, run)
    assert len(trained) == before


def test_long_trainings_have_half_octaves_near_the_optimum() -> None:
    case = next(each for each in CASES if each.weight_decay)
    trained, run = _parabola(-6.4)
    found = run([-5, -6, -7, -8])
    add_finer_steps(case, found, run)
    assert sorted(trained[4:]) == [-7.5, -6.5, -5.5]


class _TwoValleys(Bench):
    """A bench whose scaled model has a second, lower minimum far below the base's optimum."""

    def run(self, trainings: Sequence[Training]) -> list[Trained]:
        return [Trained(self._loss(each), 1.0, []) for each in trainings]

    def _loss(self, training: Training) -> float:
        octave = math.log2(training.learning_rate)
        near = 0.15 + 0.05 * (octave + 7.5) ** 2
        is_base = training.setting == training.base
        return near if is_base else min(near, 0.03 + 0.03 * (octave + 12) ** 2)


def test_the_plain_sweep_finds_a_lower_minimum_far_from_the_optimum_of_the_base() -> None:
    case = next(each for each in CASES if each.name == "width_depth res_mlp Adam")
    sweeps = CaseSweeps(_TwoValleys(), case, is_fine=True)
    assert optimum(sweeps.base.losses) == pytest.approx(-7.5)
    assert optimum(sweeps.big("standard").losses) == pytest.approx(-12)


def test_no_finer_steps_are_above_a_learning_rate_that_diverged() -> None:
    case = CASES[0]
    trained, run = _parabola(-6.0, diverging=-5.5)
    found = run([-5, -6, -7])
    add_finer_steps(case, found, run)
    assert sorted(trained[3:]) == [-6.75, -6.5, -6.25, -5.75, -5.5, -5.25]
    add_finer_steps(case, run([-5.0, -6.0]), lambda _octaves: Sweep())
    diverged = Sweep({-1.0: [INF]})
    add_finer_steps(case, diverged, run)
    assert list(diverged.losses) == [-1.0]


def test_the_loss_of_a_training_is_the_mean_of_its_last_fifth() -> None:
    assert final_loss([9.0] * 8 + [1.0, 2.0], 10) == 1.5


@pytest.mark.parametrize("losses", [[1.0, 1.0, math.nan], [1.0, math.inf], [1.0]])
def test_a_training_that_stopped_early_diverged(losses: list[float]) -> None:
    assert final_loss(losses, 3) == INF


def test_transfer_costs_one_run_and_the_sweep_of_the_base() -> None:
    assert search_saved(search_s=100, run_s=15) == pytest.approx(0.85)
    assert search_saved(search_s=100, run_s=15, base_search_s=10) == pytest.approx(0.75)


def test_the_summary_counts_a_case_without_figures_as_a_miss() -> None:
    cases: list[dict[str, object]] = [
        {"shift_advised": 0, "regret": -0.1},
        {"shift_advised": -1, "regret": 0.01},
        {"shift_advised": 2, "regret": 0.03},
        {"shift_advised": None, "regret": None},
    ]
    assert summary(cases) == {"within_one_octave": 0.5, "median_regret": pytest.approx(0.02)}
    assert summary(cases[3:]) == {"within_one_octave": 0.0, "median_regret": None}
    assert summary([]) == {"within_one_octave": None, "median_regret": None}
