"""Comparisons of methods from records: in each case, and over the cases of each axis.

Ours are the methods that the product offers with measurements. An alternative is what a team would
do without them. Over an axis, ours are compared with the alternative that does best there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from benchmarks.transfer.methods import METHODS, MethodName
from benchmarks.transfer.paired import (
    CaseFigure,
    Comparison,
    MeanFigure,
    differences,
    over_cases,
    over_seeds,
)
from benchmarks.transfer.records import Record, is_choosing, losses_of, methods_of

OURS: Final[tuple[MethodName, ...]] = ("measured", "hybrid", "hybrid_standard")
ALTERNATIVES: Final[tuple[MethodName, ...]] = tuple(name for name in METHODS if name not in OURS)
CaseSet = Literal["all", "claiming", "choosing"]
CASE_SETS: Final[tuple[CaseSet, ...]] = get_args(CaseSet)
EVERY_AXIS: Final = "every axis"
_PAIRS: Final = tuple(itertools.combinations(METHODS, 2))
_LEAST_SHARE: Final = 0.5  # of the cases of an axis; an alternative that has fewer is not its best


@dataclass(frozen=True, slots=True)
class Pair:
    """Two methods in a case.

    Attributes:
        case: The record of the case's base.
        method: The first method.
        other: The second one.
        difference: Regret of the first one minus that of the second one.
    """

    case: Mapping[str, Any]
    method: str
    other: str
    difference: CaseFigure


@dataclass(frozen=True, slots=True)
class AxisComparison:
    """One of our methods and an alternative, over the cases of an axis that have both.

    Attributes:
        axis: The axis, or ``every axis``.
        cases: Which cases: all of them, or only those that make the claim.
        method: Our method.
        other: The alternative.
        difference: Our regret minus that of the alternative, for cases like these.
        in_these: The same for these very cases, where only seeds are noise.
        by_case: What the single cases say.
        is_best: Whether no other alternative does better on this axis, of those that have at least
            half of the cases that ours has.
    """

    axis: str
    cases: CaseSet
    method: str
    other: str
    difference: MeanFigure
    in_these: MeanFigure
    by_case: tuple[Comparison, ...]
    is_best: bool

    def count(self, comparison: Comparison) -> int:
        """Return the number of cases that say so.

        Args:
            comparison: What they say.
        """
        return self.by_case.count(comparison)


def pairs_of(bases: Sequence[Record], records: Sequence[Record]) -> list[Pair]:
    """Return the differences of all methods of each case, in both directions.

    Pairs of which both diverge are left out.

    Args:
        bases: The records of bases.
        records: The records of cases and methods.
    """
    found = []
    for base in bases:
        sweeps = {name: losses_of(each) for name, each in methods_of(base, records).items()}
        wanted = [pair for pair in _PAIRS if set(pair) <= set(sweeps)]
        if wanted:
            by_pair = differences(losses_of(base), sweeps, wanted)
            for (one, other), difference in by_pair.items():
                found += [
                    Pair(base, one, other, difference),
                    Pair(base, other, one, difference.negated),
                ]
    return found


def in_set(cases: CaseSet, record: Mapping[str, Any]) -> bool:
    """Return whether a record is of a case of a set.

    Args:
        cases: The set.
        record: The record of a base or of a method.
    """
    return cases == "all" or is_choosing(record) == (cases == "choosing")


def axis_comparisons(pairs: Sequence[Pair]) -> list[AxisComparison]:
    """Return how ours compare with each alternative, by axis and over all axes.

    Args:
        pairs: The pairs of all cases, as :func:`pairs_of` returns them.
    """
    axes = [*dict.fromkeys(pair.case["axis"] for pair in pairs), EVERY_AXIS]
    sets: tuple[CaseSet, ...] = ("claiming", "all")
    return [
        each
        for axis, cases, method in itertools.product(axes, sets, OURS)
        for each in _on_axis(axis, cases, method, pairs)
    ]


def _on_axis(
    axis: str, cases: CaseSet, method: str, pairs: Sequence[Pair]
) -> Iterator[AxisComparison]:
    own = [
        pair
        for pair in pairs
        if pair.method == method
        and axis in {pair.case["axis"], EVERY_AXIS}
        and in_set(cases, pair.case)
    ]
    figures = {
        other: [pair.difference for pair in own if pair.other == other]
        for other in (*ALTERNATIVES, *OURS)
    }
    found = {other: over_cases(each) for other, each in figures.items() if each}
    known = max((mean.cases for mean in found.values()), default=0)
    rivals = {
        other: -math.inf if math.isnan(mean.mean) else mean.mean
        for other, mean in found.items()
        if other in ALTERNATIVES and mean.cases >= _LEAST_SHARE * known
    }
    best = max(rivals, key=lambda other: rivals[other], default=None)
    for other, mean in found.items():
        each = figures[other]
        by_case = tuple(figure.comparison for figure in each)
        in_these = over_seeds(each)
        yield AxisComparison(axis, cases, method, other, mean, in_these, by_case, other == best)


def mean_regret(records: Sequence[Record]) -> MeanFigure | None:
    """Return the mean regret of a method over cases, with the noise of seeds; None without records.

    Args:
        records: Records of one method.
    """
    regrets = [
        CaseFigure.of_interval(each["regret"], len(each["seeds"]), each["regret_interval"])
        for each in records
    ]
    return over_seeds(regrets) if regrets else None


def as_records(pairs: Sequence[Pair], comparisons: Sequence[AxisComparison]) -> Record:
    """Return the comparisons as JSON: ``pairs`` by case, and ``axes``.

    Pairs are those with one of our methods first, such as ``measured - mup``. A difference is null
    if a method diverges, and the verdict says which one.

    Args:
        pairs: The pairs of all cases.
        comparisons: The comparisons over axes.
    """
    return {
        "pairs": [
            {
                **{key: pair.case[key] for key in ("axis", "model", "optimizer")},
                "method": f"{pair.method} - {pair.other}",
                **_as_record(pair.difference),
                "by_seed": list(pair.difference.by_seed),
            }
            for pair in pairs
            if pair.method in OURS
        ],
        "axes": [
            {
                "axis": each.axis,
                "case_set": each.cases,
                "method": f"{each.method} - {each.other}",
                "cases": each.difference.cases,
                **_as_record(each.difference),
                "in_these_cases": _as_record(each.in_these),
                "by_case": {word.value: each.count(word) for word in Comparison},
                "is_best_alternative": each.is_best,
            }
            for each in comparisons
        ],
    }


def _as_record(figure: CaseFigure | MeanFigure) -> Record:
    return {
        "difference": figure.mean if math.isfinite(figure.mean) else None,
        "difference_interval": None if figure.interval is None else list(figure.interval),
        "verdict": figure.comparison.value,
    }
