"""Differences between methods, and the choice of the default, on made-up sweeps and records."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.transfer.cases import CASES, CHOOSING, Case
from benchmarks.transfer.choice import choose
from benchmarks.transfer.comparisons import (
    EVERY_AXIS,
    as_records,
    axis_comparisons,
    mean_regret,
    pairs_of,
)
from benchmarks.transfer.methods import MethodName
from benchmarks.transfer.optimum import compare
from benchmarks.transfer.paired import (
    CaseFigure,
    Comparison,
    differences,
    over_cases,
    over_seeds,
)
from benchmarks.transfer.printing import choice_lines
from benchmarks.transfer.records import Record
from benchmarks.transfer.results import base_record, document, method_record, with_figures
from benchmarks.transfer.sweeps import Sweep

INF = math.inf
GRID = [octave / 4 for octave in range(-16, 17)]
PAIR = [("one", "other")]


def curve(best: float, offsets: Sequence[float], lowest: float = 2.0) -> dict[float, list[float]]:
    return {o: [lowest + 0.05 * (o - best) ** 2 + each for each in offsets] for o in GRID}


def figures(values: Sequence[Sequence[float]]) -> list[CaseFigure]:
    """Return the figures of cases from those of their seeds."""
    arrays = [np.array(each) for each in values]
    return [
        CaseFigure(float(x.mean()), len(x), float(x.std(ddof=1) / len(x) ** 0.5), tuple(x.tolist()))
        for x in arrays
    ]


def test_a_difference_is_that_of_the_regrets_and_the_mean_over_seeds() -> None:
    rng = np.random.default_rng(0)
    base = curve(0.3, list(0.1 * rng.normal(size=5)))
    one = {o: list(np.add(v, 0.01 * rng.normal(size=5))) for o, v in curve(0.9, [0.1] * 5).items()}
    other = curve(-1.6, list(0.1 * rng.normal(size=5)))
    (found,) = differences(base, {"one": one, "other": other}, PAIR).values()
    regrets = [compare(base, big, other).regret for big in (one, other)]
    assert regrets[0] is not None
    assert regrets[1] is not None
    assert found.mean == pytest.approx(regrets[0] - regrets[1])
    assert np.mean(found.by_seed) == pytest.approx(found.mean)
    assert found.negated.interval == pytest.approx([-x for x in reversed(found.interval or ())])


def test_what_seeds_have_in_common_cancels() -> None:
    base, offsets = curve(0.0, [0.0] * 4), [0.0, 0.4, -0.2, 0.9]
    sweeps = {"one": curve(0.0, offsets, 1.98), "other": curve(0.0, offsets)}
    (found,) = differences(base, sweeps, PAIR).values()
    assert found.by_seed == pytest.approx([-0.02] * 4)
    assert found.interval == pytest.approx((-0.02, -0.02))
    assert found.comparison is Comparison.BETTER


def test_intervals_of_a_case_hold_the_true_difference_in_ninety_percent() -> None:
    rng = np.random.default_rng(2)
    draws, seeds, hits = 60, 5, 0
    for _ in range(draws):
        offsets = 0.1 * rng.normal(size=seeds)

        def noisy(best: float, offsets: Any = offsets) -> dict[float, list[float]]:
            moved = best + 0.1 * rng.normal(size=seeds)
            noise = 0.01 * rng.normal(size=(len(GRID), seeds))
            rows = zip(GRID, noise, strict=True)
            return {o: list(2 + 0.05 * (o - moved) ** 2 + offsets + each) for o, each in rows}

        sweeps = {"one": noisy(1.0), "other": noisy(-0.4)}
        (found,) = differences(noisy(0.0), sweeps, PAIR).values()
        assert found.interval is not None
        hits += found.interval[0] <= 0.05 * (1 - 0.16) <= found.interval[1]
    assert 0.82 <= hits / draws <= 0.98


@pytest.mark.parametrize("cases", [1, 4])
@pytest.mark.parametrize("between", [0.0, 2.0], ids=["equal cases", "different cases"])
def test_intervals_over_cases_hold_the_true_mean_in_ninety_percent(
    cases: int, between: float
) -> None:
    rng = np.random.default_rng(3)
    draws, seeds = 200, 5
    of_all = of_these = 0
    for _ in range(draws):
        truths = between * rng.normal(size=cases)
        noise = rng.uniform(0.5, 1.5, (cases, 1)) * rng.normal(size=(cases, seeds))
        found = figures((truths[:, None] + noise).tolist())
        low, high = over_cases(found).interval or (0.0, 0.0)
        of_all += low <= 0 <= high
        low, high = over_seeds(found).interval or (0.0, 0.0)
        of_these += low <= truths.mean() <= high
    assert 0.85 <= of_these / draws <= 0.95
    if cases > 1:  # the spread between cases is not known from a single one
        assert 0.85 <= of_all / draws <= 0.98


_NATS = st.floats(-1, 1).map(lambda x: round(x, 3))


@given(st.lists(st.lists(_NATS, min_size=3, max_size=3), min_size=1, max_size=6))
def test_an_exchange_of_the_methods_negates_a_mean_and_its_verdict(
    values: list[list[float]],
) -> None:
    found = figures(values)
    exchanged = {"better": "worse", "worse": "better"}
    for over in (over_cases, over_seeds):
        there, back = over(found), over([each.negated for each in found])
        assert back.mean == pytest.approx(-there.mean)
        verdict = there.comparison.value
        assert back.comparison.value == exchanged.get(verdict, verdict)
    assert over_cases(found).mean == over_seeds(found).mean


def test_a_method_that_diverges_is_worse_whatever_the_other_cases_say() -> None:
    lost = {o: [INF] * 3 if o > -1 else v for o, v in curve(0.0, [0.0] * 3).items()}
    sweeps = {"one": lost, "other": curve(0.0, [0.0] * 3)}
    base = curve(0.0, [0.0] * 3)
    (found,) = differences(base, sweeps, PAIR).values()
    assert (found.mean, found.interval, found.by_seed) == (INF, None, ())
    assert found.comparison is Comparison.WORSE
    assert found.negated.comparison is Comparison.BETTER
    assert differences(base, {"one": lost, "other": lost}, PAIR) == {}
    nowhere: dict[float, list[float]] = {octave: [INF] * 3 for octave in GRID}
    assert differences(nowhere, sweeps, PAIR) == {}
    better = figures([[-0.5, -0.5, -0.4]] * 4)
    assert over_cases([*better, found]).comparison is Comparison.WORSE
    both = over_cases([found, found.negated])
    assert math.isnan(both.mean)
    assert both.comparison is Comparison.CANNOT_TELL


def test_one_seed_cannot_tell() -> None:
    sweeps = {"one": curve(0.0, [0.0], 1.0), "other": curve(0.0, [0.0])}
    (found,) = differences(curve(0.0, [0.0]), sweeps, PAIR).values()
    assert found.mean == pytest.approx(-1.0)
    assert (found.interval, found.comparison) == (None, Comparison.CANNOT_TELL)
    assert over_cases([found, found]).interval is None


def test_sweeps_with_different_seeds_are_rejected() -> None:
    sweeps = {"one": curve(0.0, [0.0] * 2), "other": curve(0.0, [0.0] * 3)}
    with pytest.raises(ValueError, match=r"the sweeps have \[2, 3\] seeds; train all of them with"):
        differences(curve(0.0, [0.0] * 3), sweeps, PAIR)


BY_NAME = {case.name: case for case in CASES}
OFFSETS = (0.0, 0.02, -0.02)


def records(
    regrets: Mapping[str, Mapping[str, float]], noise: float = 0.001
) -> tuple[list[Record], list[Record]]:
    """Return the records of bases and of methods with given regrets.

    Args:
        regrets: Regret by name of the case and of the method; infinite if it diverges.
        noise: By how much a seed's regret differs from seed to seed.
    """
    rng = np.random.default_rng(5)
    bases, found = [], []
    for name, by_method in regrets.items():
        case: Case = replace(BY_NAME[name], seeds=(0, 1, 2))
        base = base_record(case, Sweep(losses=curve(0.0, OFFSETS)))
        made = {}
        for method, regret in by_method.items():
            # The standard method's best loss is 2, whatever its regret.
            best, lowest = (
                ((20 * regret) ** 0.5, 2.0) if method == "standard" else (0.0, 2 + regret)
            )
            moved = OFFSETS + noise * rng.normal(size=3)
            losses = curve(best if math.isfinite(best) else 0.0, list(moved), lowest)
            if math.isinf(regret):
                losses = {o: [INF] * 3 if o > -1 else [2.0] * 3 for o in GRID}
            chosen: MethodName = method  # type: ignore[assignment]
            made[method] = method_record(case, chosen, Sweep(losses=losses), None)
        bases.append(base)
        found += [with_figures(each, base, made["standard"]) for each in made.values()]
    return bases, found


WIDE, WIDE_SGD, DEEP = "width conv_net Adam", "width res_mlp SGD", "depth char_gpt_post Adam"


def test_ours_are_compared_with_the_alternative_that_does_best_on_an_axis() -> None:
    bases, found = records({
        WIDE: {"standard": 0.5, "mup": 0.02, "completep": 0.0, "measured": 0.1, "hybrid": 0.1},
        WIDE_SGD: {"standard": 0.4, "mup": 0.02, "measured": 0.1},
        "width char_gpt_pre Muon": {"standard": 0.6, "measured": 0.1},
        DEEP: {"standard": 0.2, "mup": 0.2, "measured": 0.0, "hybrid": 0.0},
    })  # fmt: skip
    all_pairs = axis_comparisons(pairs_of(bases, found))
    best = {
        each.axis: each
        for each in all_pairs
        if each.is_best and (each.method, each.cases) == ("measured", "all")
    }
    assert list(best) == ["width", "depth", EVERY_AXIS]
    wide = best["width"]
    # CompleteP is better, but has less than half of the cases.
    assert (wide.other, wide.difference.cases) == ("mup", 2)
    assert wide.difference.mean == pytest.approx(0.08, abs=0.003)
    assert wide.in_these.comparison is Comparison.WORSE
    assert wide.count(Comparison.WORSE) == 2
    assert best["depth"].in_these.comparison is Comparison.BETTER
    rows = as_records(pairs_of(bases, found), all_pairs)
    (row,) = [r for r in rows["axes"] if r["is_best_alternative"] and r["axis"] == "depth"
              and r["case_set"] == "all" and r["method"].startswith("hybrid")]  # fmt: skip
    assert row["difference"] == pytest.approx(-0.2, abs=0.003)
    assert row["by_case"] == {"better": 1, "worse": 0, "cannot tell": 0}
    (pair,) = [r for r in rows["pairs"] if r["axis"] == "depth"
               and r["method"] == "measured - hybrid"]  # fmt: skip
    assert len(pair["by_seed"]) == 3
    json.dumps(rows, allow_nan=False)


def test_the_mean_regret_of_a_method_has_an_interval() -> None:
    _, found = records({
        WIDE: {"standard": 0.5, "mup": 0.1},
        WIDE_SGD: {"standard": 0.4, "mup": 0.2},
    })
    mean = mean_regret([each for each in found if each["method"] == "mup"])
    assert mean is not None
    assert mean.cases == 2
    assert mean.mean == pytest.approx(0.15, abs=0.003)
    assert mean.interval is not None
    assert 0.14 < mean.interval[0] < mean.mean < mean.interval[1] < 0.16  # seeds hardly differ
    _, lost = records({WIDE: {"standard": 0.5, "mup": INF}})
    diverged = mean_regret(lost[1:])
    assert diverged is not None
    assert (diverged.mean, diverged.interval) == (INF, None)
    assert mean_regret([]) is None


CHOOSING_CASES = sorted(CHOOSING)[:4]


def chosen_from(by_method: Mapping[str, float], noise: float) -> Any:
    bases, found = records(dict.fromkeys(CHOOSING_CASES, by_method), noise)
    return choose(found, pairs_of(bases, found))


def test_the_lowest_mean_regret_wins_if_simpler_methods_are_worse_beyond_noise() -> None:
    found = chosen_from(
        {"standard": 0.3, "mup": 0.2, "measured": 0.05, "hybrid_standard": 0.0}, 0.001
    )
    assert (found.method, found.best) == ("hybrid_standard", "hybrid_standard")
    assert found.cases == tuple(CHOOSING_CASES)
    assert set(found.missing) == CHOOSING - set(CHOOSING_CASES)
    assert [each.method for each in found.candidates] == [
        "standard",
        "mup",
        "measured",
        "hybrid_standard",
    ]


def test_a_simpler_method_wins_unless_it_is_worse_beyond_noise() -> None:
    found = chosen_from(
        {"standard": 0.3, "mup": 0.2, "measured": 0.005, "hybrid_standard": 0.0}, 0.01
    )
    assert (found.method, found.best) == ("measured", "hybrid_standard")
    assert [each.is_worse for each in found.candidates] == [True, True, False, False]


def test_a_method_that_diverges_in_a_choosing_case_is_not_chosen() -> None:
    calm = {"standard": 0.3, "mup": 0.0, "measured": 0.1, "hybrid_standard": 0.1}
    bases, found = records({
        **dict.fromkeys(CHOOSING_CASES[1:], calm), CHOOSING_CASES[0]: {**calm, "mup": INF},
    }, 0.02)  # fmt: skip
    choice = choose(found, pairs_of(bases, found))
    assert choice.method == "measured"
    content = document(bases, found, {})
    json.dumps(content, allow_nan=False)
    lines = choice_lines(content["choice"])
    assert lines[0].startswith("Choice of the default on 4 of 12 choosing cases: measured.")
    assert "  mup: mean regret infinite (diverged), from the lowest diverged: worse" in lines


def test_a_method_without_an_answer_in_some_choosing_case_is_not_a_candidate() -> None:
    some = {"standard": 0.3, "completep": -0.1, "measured": 0.1, "hybrid_standard": 0.1}
    without = {key: value for key, value in some.items() if key != "completep"}
    bases, found = records({CHOOSING_CASES[0]: some, CHOOSING_CASES[1]: without})
    choice = choose(found, pairs_of(bases, found))
    assert choice.incomplete == ("completep",)
    assert choice.method == "measured"


def test_cases_that_claim_and_cases_without_all_records_do_not_choose() -> None:
    every = {"standard": 0.3, "measured": 0.1, "hybrid_standard": 0.0}
    bases, found = records({WIDE: every, CHOOSING_CASES[0]: {"standard": 0.3, "measured": 0.1}})
    choice = choose(found, pairs_of(bases, found))
    assert (choice.method, choice.cases) == (None, ())
    assert set(choice.missing) == set(CHOOSING)
    (line,) = choice_lines(document(bases, found, {})["choice"])
    assert line.endswith(
        "none of the 12 choosing cases here has standard, measured and hybrid_standard."
    )
