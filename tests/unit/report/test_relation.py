"""Relations: independent series are called unrelated, and true relations are found."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.report.rank_correlation import (
    Array,
    LaggedCorrelations,
    fisher,
    lagged_correlations,
    ranks,
)
from advisor.report.relation import (
    MAX_LAG,
    MAX_POINTS,
    Interval,
    RelationRow,
    Verdict,
    correlations_of_changes,
    relation_rows,
    relation_sentence,
)

SEEDS = 400
Series = Callable[[np.random.Generator, int], Array]


def noise(random: np.random.Generator, points: int) -> Array:
    return random.standard_normal((SEEDS, points))


def autoregressive(coefficient: float) -> Series:
    def series(random: np.random.Generator, points: int) -> Array:
        steps = noise(random, points + 200)
        for step in range(1, points + 200):
            steps[:, step] += coefficient * steps[:, step - 1]
        return steps[:, 200:]

    return series


def walk(random: np.random.Generator, points: int) -> Array:
    return np.cumsum(noise(random, points), axis=1)


def decay(random: np.random.Generator, points: int) -> Array:
    """A loss that falls ever more slowly."""
    return 3 * np.exp(-np.linspace(0, 4, points)) + 0.1 * noise(random, points)


INDEPENDENT: dict[str, Series] = {
    "white": noise,
    "ar 0.5": autoregressive(0.5),
    "ar 0.95": autoregressive(0.95),
    "walk": walk,
    "walk with noise": lambda random, n: walk(random, n) + 2 * noise(random, n),
    "walk with drift": lambda random, n: walk(random, n) + 0.2 * np.arange(n),
    "walk in steps": lambda random, n: np.round(walk(random, n) / 3),
    "trend": lambda random, n: np.linspace(3, 0, n) + 0.5 * noise(random, n),
    "decay": decay,
    "decay and walk": lambda random, n: 10 * decay(random, n) + walk(random, n),
    "outliers": lambda random, n: random.standard_t(1.5, (SEEDS, n)),
}


of_changes = partial(correlations_of_changes, resamples=100)


def found(correlations: LaggedCorrelations) -> Array:
    """Return whether the interval at the best lag excludes 0, for each pair."""
    best = correlations.best[..., None]
    low = np.take_along_axis(correlations.lows, best, axis=-1)[..., 0]
    high = np.take_along_axis(correlations.highs, best, axis=-1)[..., 0]
    return np.asarray((low > 0) | (high < 0))


@pytest.mark.parametrize("points", [20, 70])
def test_independent_series_have_no_relation_in_95_percent_of_cases(points: int) -> None:
    random = np.random.default_rng(points)
    mixed = [("walk", "trend"), ("decay", "walk"), ("white", "ar 0.95")]
    for one, other in [*((name, name) for name in INDEPENDENT), *mixed]:
        first, second = INDEPENDENT[one](random, points), INDEPENDENT[other](random, points)
        share = found(of_changes(first, second)).mean()
        assert share <= 0.05, f"{one}, {other}: {share:.1%} of {SEEDS} pairs are called related"


@pytest.mark.parametrize("lag", [0, 2, 5])
@pytest.mark.parametrize("name", ["white", "ar 0.5", "walk", "decay and walk"])
def test_a_relation_is_found_with_its_lag(name: str, lag: int) -> None:
    points = 100
    random = np.random.default_rng(7)
    series = INDEPENDENT[name](random, points + lag)
    spread = np.diff(series, axis=1).std()
    later = series[:, :points] + 0.5 * spread * noise(random, points)
    correlations = of_changes(series[:, lag:], later)
    assert found(correlations).mean() > 0.95
    assert (correlations.best == lag).mean() > 0.95


def by_step(values: Array, every: int = 10) -> dict[int, float]:
    return {every * place: float(value) for place, value in enumerate(values)}


def test_rows_say_what_can_be_said() -> None:
    random = np.random.default_rng(3)
    points = 120
    rate, metric = np.cumsum(random.standard_normal((2, points + 2)), axis=1)
    follows = -rate[:-2] + 0.3 * random.standard_normal(points)
    trend = np.linspace(0, 9, points) + random.standard_normal(points)
    values = by_step(follows)
    rows = relation_rows(
        "auc",
        values,
        {
            "total rate": by_step(rate[2:]),
            "trend": by_step(trend),
            "constant": by_step(np.ones(points)),
            "short": by_step(trend[:19]),
            "none": {},
            "gaps": by_step(np.where(np.arange(points) % 2, rate[2:], math.nan)),
        },
    )
    assert [row.verdict for row in rows[2:5]] == [
        Verdict.CONSTANT,
        Verdict.TOO_FEW_POINTS,
        Verdict.TOO_FEW_POINTS,
    ]
    related = rows[0]
    assert (related.verdict, related.lag_steps, related.points) == (Verdict.RELATION, 20, 120)
    assert related.changes is not None
    assert related.changes.low < related.changes.value < related.changes.high < 0
    assert rows[5].points == 60
    both = relation_rows("loss", by_step(trend[::-1]), {"total rate": by_step(trend)})[0]
    assert both.verdict is Verdict.ONLY_TIME
    white = by_step(random.standard_normal(points))
    other = relation_rows("loss", by_step(metric[2:]), {"total rate": white})[0]
    assert other.verdict is Verdict.NO_RELATION
    sentences = [relation_sentence(row) for row in (related, *rows[2:4], both, other)]
    for sentence, words in zip(
        sentences,
        (
            "move together, in opposite directions, the metric 20 steps later",
            "one of them does not change",
            "have 19 points in common; at least 20 are needed",
            "both only follow time",
            "No relation of total rate and loss was found",
        ),
        strict=True,
    ):
        assert words in sentence
        assert not any(
            word in sentence.lower() for word in ("because of", "due to", "effect", "leads")
        )
    assert "does not say that one causes the other" in sentences[0]


@pytest.mark.parametrize("kind", ["levels", "changes"])
def test_intervals_of_shares_hold_for_all_of_them_together(kind: str) -> None:
    random = np.random.default_rng(5)
    metric, *series = map(by_step, random.standard_normal((7, 60)))
    names = ["total rate", *(f"share of {role}" for role in "abcde")]
    five = relation_rows("auc", metric, dict(zip(names, series, strict=True)))
    one = relation_rows("auc", metric, dict(zip(names[:2], series[:2], strict=True)))

    def width(row: RelationRow) -> float:
        interval: Interval = getattr(row, kind)
        return float(np.diff(fisher(np.array([interval.low, interval.high])))[0])

    assert five[0] == one[0]
    assert 1.15 < width(five[1]) / width(one[1]) < 1.4


def test_among_five_independent_shares_hardly_one_is_called_related() -> None:
    """Neither by its changes nor by its levels, which would say that both only follow time."""
    runs, points = 300, 200
    most = 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)  # 5%, and two standard errors
    random = np.random.default_rng(points)
    shares = random.standard_normal((5, runs, points))
    metric = np.broadcast_to(random.standard_normal((runs, points)), shares.shape)
    moved = of_changes(shares, metric, tests=5)
    related = found(moved).any(0)
    levels = lagged_correlations(shares, metric, MAX_LAG, tests=5, resamples=1)
    there = np.take_along_axis(levels.values, moved.best[..., None], axis=-1)
    look_related = np.abs(fisher(there)) > levels.z_of_independent_points
    assert (related | look_related.any((0, -1))).mean() <= most


def test_denser_series_are_averaged_between_the_points_of_the_other() -> None:
    dense = {step: float(step) for step in range(1, 1_001)}
    sparse = {step: float(step % 300) for step in range(25, 1_001, 25)}
    row = relation_rows("auc", sparse, {"total rate": dense})[0]
    assert row.points == 40
    many = {step: float(step % 7) for step in range(12_345)}
    row = relation_rows("auc", many, {"total rate": many})[0]
    assert MAX_POINTS * 0.9 < row.points <= MAX_POINTS
    apart = relation_rows("auc", sparse, {"total rate": {5_000 + s: v for s, v in dense.items()}})
    assert apart[0].verdict is Verdict.TOO_FEW_POINTS


@given(st.lists(st.integers(0, 6), min_size=2, max_size=30))
def test_ranks_are_midranks(values: list[int]) -> None:
    expected = [
        sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2
        for value in values
    ]
    n = len(values)
    assert ranks(np.array(values, float)) * n + (n + 1) / 2 == pytest.approx(expected)


def test_an_interval_contains_the_true_correlation_in_95_percent_of_cases() -> None:
    random = np.random.default_rng(5)
    first = noise(random, 80)
    second = 0.8 * first + 0.6 * noise(random, 80)
    truth = 6 / math.pi * math.asin(0.8 / 2)  # Spearman's, for normal variables
    correlations = of_changes(first, second)
    inside = (correlations.lows[:, 0] <= truth) & (truth <= correlations.highs[:, 0])
    assert inside.mean() >= 0.95
