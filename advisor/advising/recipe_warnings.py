r"""Warnings about a run's recipe: what it leaves out, and where the measurement contradicts it.

A recipe says from shapes what a measurement finds from the model itself. So a measurement checks
both the recipe's conditions and the layout, as coordinate checks do (Yang et al., arXiv 2203.03466,
appendix D).

For each role, with the differences :math:`d_i = \log(\text{ratio}_i / \text{prior}_i)` of its
groups and their standard errors :math:`e_i`, the mean :math:`\bar d` has the standard error s,

.. math:: s^2 = \max\left(\frac{1}{n^2} \sum_i e_i^2,\ \frac{1}{n (n - 1)} \sum_i (d_i - \bar d)^2
    \right).

A role disagrees if the whole interval :math:`\bar d \pm z s` lies outside :math:`\pm \log 2`. The
quantile z is that of a normal distribution for a chance of 1% that any role of a run is reported
whose true difference is a factor of 2 or less. Smaller differences have other causes, such as
batches, and cost little.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from advisor.advising.mismatch_warnings import Difference, DifferenceKind
from advisor.policy import Layout, Measurement
from advisor.policy.arrays import Floats
from advisor.policy.counts import count_of
from advisor.policy.ratios import Ratio
from advisor.recipes import (
    Finding,
    NoRule,
    RecipeFactors,
    missing_residual_outputs,
    optimizer_not_given,
    ratios_not_given,
    small_betas,
    smaller_than_base,
    uncovered_growth,
)

_TOLERANCE = math.log(2)
_CHANCE = 0.01  # that any role of a run is reported without a reason
_MAX_ROLES = 5  # named in one message
_MAX_GROUPS = 3
_REPORTED = frozenset({Ratio.FAN_IN, Ratio.DEPTH, Ratio.EXPERTS, Ratio.RANK})  # sizes of a model
_START_STEPS = 100
_START = 0.1  # fraction of a training


@dataclass(frozen=True, slots=True)
class RoleDifference:
    """How far the measured multipliers of a role are from those of the recipe.

    Attributes:
        role: The role.
        measured: Geometric mean of the measured ratios.
        prior: Geometric mean of the recipe's multipliers.
        error: Standard error of the logarithm of their quotient.
    """

    role: str
    measured: float
    prior: float
    error: float

    def exceeds(self, quantile: float) -> bool:
        """Return whether the two differ by more than a factor of 2, beyond noise.

        Args:
            quantile: How many standard errors count as noise.
        """
        difference = abs(math.log(self.measured) - math.log(self.prior))
        return difference - quantile * self.error > _TOLERANCE


def first_check_step(total_steps: int) -> int:
    """Return the step from which on a run's recipe is compared with what is measured.

    It is 100, or a tenth of a shorter training: rates of the first steps differ from all later
    ones, for example where weights start at 0.

    Args:
        total_steps: Planned steps of the run; 0: unknown.
    """
    return min(_START_STEPS, math.ceil(_START * total_steps)) if total_steps else _START_STEPS


def is_check_due(measurement: Measurement) -> bool:
    """Return whether a measurement is the one of a run that checks its recipe.

    It is the first one from :func:`first_check_step` on. So no state is needed, and a run is warned
    once.
    """
    due = first_check_step(measurement.total_steps)
    return measurement.step - measurement.interval_steps < due <= measurement.step


def role_differences(
    roles: Sequence[str], ratios: Floats, priors: Floats, errors: Floats
) -> list[RoleDifference]:
    """Return how far each role is from the recipe.

    Roles without a ratio or a prior are left out. If any group has an error above 0, one of 0 is
    exact, as that of a readout. Otherwise errors are unknown, and roles of one group are left out.

    Args:
        roles: The role of each group.
        ratios: Reference over measured unit rate, 0 where one of them is missing, shape [groups].
        priors: The recipe's multipliers, 0 where it has no rule, shape [groups].
        errors: Relative errors of the ratios, shape [groups].
    """
    are_errors_known = bool(errors.any())
    usable = (ratios > 0) & (priors > 0) & np.isfinite(errors)
    members: dict[str, list[int]] = {}
    for i in np.flatnonzero(usable).tolist():
        members.setdefault(roles[i], []).append(i)
    found = []
    for role, indices in members.items():
        measured, expected = np.log(ratios[indices]), np.log(priors[indices])
        differences, count = measured - expected, len(indices)
        variance = float(np.square(errors[indices]).sum()) / count**2
        if count > 1:
            variance = max(variance, float(differences.var(ddof=1)) / count)
        if variance > 0 or are_errors_known:
            found.append(
                RoleDifference(
                    role,
                    float(np.exp(measured.mean())),
                    float(np.exp(expected.mean())),
                    math.sqrt(variance),
                )
            )
    return found


def noise_quantile(roles: int) -> float:
    """Return how many standard errors count as noise if so many roles are compared."""
    return NormalDist().inv_cdf(1 - _CHANCE / 2 / max(roles, 1))


def disagreement(
    recipe: str, layout: Layout, ratios: Floats, priors: Floats, errors: Floats
) -> list[Difference]:
    """Return one difference that lists the roles in which measurement and recipe disagree, or none.

    Args:
        recipe: The recipe's name.
        layout: The run's layout.
        ratios: See :func:`role_differences`.
        priors: See :func:`role_differences`.
        errors: See :func:`role_differences`.
    """
    names = [group.role for group in layout.groups]
    roles = role_differences(names, ratios, priors, errors)
    quantile = noise_quantile(len(roles))
    apart = [role for role in roles if role.exceeds(quantile)]
    if not apart:
        return []
    apart.sort(key=lambda role: -abs(math.log(role.measured / role.prior)))
    listed = ", ".join(
        f"{role.role} (measured {role.measured:.3g}, recipe {role.prior:.3g})"
        for role in apart[:_MAX_ROLES]
    )
    more = f" and {len(apart) - _MAX_ROLES} more" if len(apart) > _MAX_ROLES else ""
    return [
        Difference(
            DifferenceKind.RECIPE_DISAGREES,
            f"{len(apart)} of {count_of(len(roles), 'measured role')} "
            f"{'differs' if len(apart) == 1 else 'differ'} from the recipe {recipe} by more than a "
            f"factor of 2, beyond noise: {listed}{more}; check the recipe's conditions "
            f"(`advisor recipe show {recipe}`), the layers' kinds in the layout, and initial "
            "values",
        )
    ]


def missing_rules(recipe: str, layout: Layout, factors: RecipeFactors) -> list[Difference]:
    """Return a difference for each reason why a recipe says nothing of some groups.

    Args:
        recipe: The recipe's name.
        layout: The run's layout.
        factors: The recipe's factors.
    """
    return [
        Difference(DifferenceKind.RECIPE, message)
        for message in _missing(recipe, layout, factors.no_rules)
    ]


def growth_without_rule(recipe: str, layout: Layout, factors: RecipeFactors) -> list[Difference]:
    """Return a difference for each way in which the model grows and the recipe does not follow.

    A longer training or a larger batch is not reported, nor is the fan-out, which many rules leave
    out.

    Args:
        recipe: The recipe's name.
        layout: The run's layout.
        factors: The recipe's factors.
    """
    findings = [
        *(f for f in uncovered_growth(layout, factors) if f.ratio in _REPORTED),
        *missing_residual_outputs(factors),
    ]
    return _differences(f"the recipe {recipe} does not fit the model", findings)


def smaller_run(recipe: str, layout: Layout, factors: RecipeFactors) -> list[Difference]:
    """Return a difference if the model is smaller than its base, or none.

    A shorter training or a smaller batch is not reported.

    Args:
        recipe: The recipe's name.
        layout: The run's layout.
        factors: The recipe's factors.
    """
    findings = smaller_than_base(layout, factors, _REPORTED)
    return _differences(f"the recipe {recipe} is for models that grow", findings)


def doubts_about_training(recipe: str, factors: RecipeFactors) -> list[Difference]:
    """Return a difference for each doubt whether a recipe fits the training, apart from the model.

    Its batch or its length may be unknown, or its optimizer, or a beta may become too small.

    Args:
        recipe: The recipe's name.
        factors: The recipe's factors.
    """
    findings = [
        *ratios_not_given(factors),
        *optimizer_not_given(factors),
        *small_betas(factors),
    ]
    return _differences(f"the recipe {recipe} may not fit the training", findings)


def _differences(words: str, findings: Iterable[Finding]) -> list[Difference]:
    """Return a difference for each finding, which begins with the same words."""
    return [
        Difference(DifferenceKind.RECIPE, f"{words}: {each.message}{_some(each.groups)}")
        for each in findings
    ]


def _some(names: Sequence[str]) -> str:
    """Return some names in parentheses; empty if there are none."""
    more = f" and {len(names) - _MAX_GROUPS} more" if len(names) > _MAX_GROUPS else ""
    return f" ({', '.join(names[:_MAX_GROUPS])}{more})" if names else ""


def _missing(recipe: str, layout: Layout, reasons: Sequence[NoRule | None]) -> Iterator[str]:
    counts = Counter(reason for reason in reasons if reason is not None)
    for reason, count in counts.items():
        names = [
            group.name for group, own in zip(layout.groups, reasons, strict=True) if own is reason
        ]
        remedy = _REMEDIES.get(reason, "these groups have no prior")
        yield (
            f"the recipe {recipe} says nothing of {count} of {count_of(len(layout), 'group')}"
            f"{_some(names)}: {reason.value}; {remedy}"
        )


_REMEDIES = {
    NoRule.OPTIMIZER: "choose a recipe for this optimizer, or none",
    NoRule.KIND: "these groups have no prior, and what is measured decides",
    NoRule.COUNTERPART: "add them to the profile's alias table if they are the same layers",
    NoRule.KIND_DIFFERS: "correct the kind in one of the two layouts",
    NoRule.SHAPES: "record the profile again if it is the one without shapes",
}
