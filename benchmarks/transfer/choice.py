"""The choice of the default method, and of the method for some cases, by the rule of decision 23.

``docs/decisions/0023-cases-that-choose-and-cases-that-claim.md`` has the rule: the method with the
lowest mean regret on the choosing cases, unless a simpler one is not worse beyond noise.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from benchmarks.transfer.cases import CHOOSING
from benchmarks.transfer.comparisons import Pair
from benchmarks.transfer.methods import METHODS, STANDARD, MethodName
from benchmarks.transfer.paired import Comparison, MeanFigure, over_seeds
from benchmarks.transfer.records import Record, case_name, is_choosing

SIMPLEST_FIRST: Final[tuple[MethodName, ...]] = (
    "standard", "mup", "depth_mup", "completep", "measured", "flerm", "hybrid_standard", "hybrid",
)  # fmt: skip
"""Standard needs nothing, recipes no measurements, measured and FLeRM change no initial weights."""

NEEDED: Final[tuple[MethodName, ...]] = (STANDARD, "measured", "hybrid_standard")
"""The methods that a case needs records of, so that it takes part in the choice."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A method that has a record of each case of the choice.

    Attributes:
        method: The method.
        mean_regret: Mean regret over the cases, in nats; infinite if it diverges in one of them.
        from_best: Its regret minus that of the method with the lowest mean regret, with the noise
            of seeds; None for that method itself.
    """

    method: str
    mean_regret: float
    from_best: MeanFigure | None

    @property
    def is_worse(self) -> bool:
        """Whether it is worse than the method with the lowest mean regret, beyond noise."""
        return self.from_best is not None and self.from_best.comparison is Comparison.WORSE


@dataclass(frozen=True, slots=True)
class Choice:
    """The default method that the rule chooses.

    Attributes:
        method: The method; None if no choosing case has the records that the choice needs.
        best: The method with the lowest mean regret; None likewise.
        candidates: All candidates, the simplest first.
        cases: Names of the cases that take part.
        missing: Names of the choosing cases that do not, since they lack records.
        incomplete: Methods with records of some of these cases, which cannot be chosen.
    """

    method: str | None
    best: str | None
    candidates: tuple[Candidate, ...]
    cases: tuple[str, ...]
    missing: tuple[str, ...]
    incomplete: tuple[str, ...]


def choose(records: Sequence[Record], pairs: Sequence[Pair]) -> Choice:
    """Return the default method that the rule chooses on the choosing cases.

    Args:
        records: The records of cases and methods.
        pairs: The pairs of all cases, as :func:`.pairs_of` returns them.
    """
    found = _choose(list(filter(is_choosing, records)), pairs, NEEDED)
    return replace(found, missing=tuple(sorted(CHOOSING - set(found.cases))))


def choose_for(records: Sequence[Record], pairs: Sequence[Pair]) -> Choice:
    """Return the method that the rule chooses on given cases, of the methods that are measured.

    Args:
        records: The records of these cases. Those of cases without the standard and the measured
            method are left out.
        pairs: The pairs of all cases, as :func:`.pairs_of` returns them.
    """
    return _choose(records, pairs, (STANDARD, "measured"))


def _choose(
    records: Sequence[Record], pairs: Sequence[Pair], needed: Sequence[MethodName]
) -> Choice:
    """Return the method that the rule chooses on the cases with records of the needed methods."""
    by_case: dict[str, dict[str, Mapping[str, Any]]] = {}
    for record in records:
        by_case.setdefault(case_name(record), {})[record["method"]] = record
    complete = {name: of for name, of in by_case.items() if all(m in of for m in needed)}
    if not complete:
        return Choice(None, None, (), (), (), ())
    answers = [set(of) for of in complete.values()]
    names = [name for name in SIMPLEST_FIRST if name in set.intersection(*answers)]
    regrets = {name: [_regret(of[name]) for of in complete.values()] for name in names}
    means = {name: statistics.fmean(each) for name, each in regrets.items()}
    best = min(names, key=lambda name: means[name])
    candidates = tuple(
        Candidate(name, means[name], _from_best(name, best, set(complete), pairs)) for name in names
    )
    chosen = next(each.method for each in candidates if not each.is_worse)
    incomplete = tuple(name for name in METHODS if name in set.union(*answers) - set(names))
    return Choice(chosen, best, candidates, tuple(sorted(complete)), (), incomplete)


def as_record(choice: Choice) -> Record:
    """Return a choice as JSON.

    Args:
        choice: The choice.
    """
    return {
        "chosen": choice.method,
        "best": choice.best,
        "cases": len(choice.cases),
        "missing": list(choice.missing),
        "incomplete": list(choice.incomplete),
        "candidates": [
            {
                "method": each.method,
                "mean_regret": each.mean_regret if math.isfinite(each.mean_regret) else None,
                "difference": None if each.from_best is None else _finite(each.from_best.mean),
                "difference_interval": None
                if each.from_best is None or each.from_best.interval is None
                else list(each.from_best.interval),
                "verdict": "best" if each.from_best is None else each.from_best.comparison.value,
            }
            for each in choice.candidates
        ],
    }


def _regret(record: Mapping[str, Any]) -> float:
    return math.inf if record["regret"] is None else float(record["regret"])


def _finite(mean: float) -> float | None:
    return mean if math.isfinite(mean) else None


def _from_best(method: str, best: str, cases: set[str], pairs: Sequence[Pair]) -> MeanFigure | None:
    if method == best:
        return None
    return over_seeds([
        pair.difference
        for pair in pairs
        if (pair.method, pair.other) == (method, best) and case_name(pair.case) in cases
    ])
