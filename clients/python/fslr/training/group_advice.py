"""What is known about each group of an advised run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.training.estimate import RateEstimate
from fslr.training.setting_factors import SettingFactors
from fslr.training.summaries import outcome_words

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class GroupAdvice:
    """What is known about a group.

    Attributes:
        multiplier: The recommended factor on the scheduled learning rate.
        outcome: Why it is what it is, in words, such as ``matched`` or ``held zero rate``. None
            before the first answer.
        unit_rate: The newest measured unit rate, in output units per learning rate. None before the
            first measurement.
        reference: Unit rate of the profile at the step of the newest answer, after the depth
            factor. None before that answer, and without a counterpart.
        prior: The multiplier before anything is measured, or None.
        measured: ``reference`` divided by the measured unit rate, before any safeguard. None before
            the first answer, and where one of them is missing or zero.
        recipe: Factors of the run's recipe on the group's settings; None: it has no rule for it.
        initial_factor: What the initial weights were multiplied by in this process; None: they
            were left as they are.
    """

    multiplier: float
    outcome: str | None
    unit_rate: float | None
    reference: float | None
    prior: float | None
    measured: float | None = None
    recipe: SettingFactors | None = None
    initial_factor: float | None = None


def advice_by_name(
    groups: Sequence[str],
    multipliers: Sequence[float],
    priors: Sequence[float],
    answer: pb.RecommendLRResponse | None,
    estimate: RateEstimate | None,
) -> dict[str, GroupAdvice]:
    """Return what is known about each group, by its name, in layout order.

    Args:
        groups: The groups' names.
        multipliers: The multiplier of each group.
        priors: The prior of each group; 0: it has none.
        answer: The newest answer, or None. Advisors of other makers may leave fields out.
        estimate: The newest measurement, or None.
    """
    count = len(groups)
    outcomes = _of_groups(count, () if answer is None else map(outcome_words, answer.outcomes))
    references = _of_groups(count, () if answer is None else answer.reference_unit_rates)
    measured = _of_groups(count, () if answer is None else answer.raw_multipliers)
    unit_rates = _of_groups(count, () if estimate is None else estimate.unit_rates)
    return {
        name: GroupAdvice(
            multiplier=multipliers[group],
            outcome=outcomes[group],
            unit_rate=unit_rates[group],
            reference=references[group] or None,
            prior=priors[group] or None,
            measured=measured[group] or None,
        )
        for group, name in enumerate(groups)
    }


def _of_groups(count: int, values: Iterable[_T]) -> list[_T] | list[None]:
    """Return a value for each group; None where there are not as many values as groups."""
    known = list(values)
    return known if len(known) == count else [None] * count
