"""A recipe's factors by role: one row for all groups with the same factors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from advisor.policy import GroupKind, Layout
from advisor.recipes.apply import NoRule, RecipeFactors
from advisor.recipes.recipe import Field


@dataclass(frozen=True, slots=True)
class RoleFactors:
    """The factors of groups of one role.

    Attributes:
        role: The role.
        kind: The kind of the groups.
        names: The names of the groups.
        factors: The factor of each field that the recipe says something of; empty: no rule.
        no_rule: Why there is no rule; None: there is one.
        residual_output: Whether the groups write into the residual stream.
        initial_rms: The least and the largest RMS that their initial values should have; None:
            unknown, or the recipe says nothing of initial values.
    """

    role: str
    kind: GroupKind
    names: tuple[str, ...]
    factors: tuple[tuple[Field, float], ...]
    no_rule: NoRule | None
    residual_output: bool
    initial_rms: tuple[float, float] | None


def factors_by_role(run: Layout, found: RecipeFactors) -> list[RoleFactors]:
    """Return the factors of a run by role, in the order of the roles' first groups.

    Groups of a role with different factors, as in stages of different widths, have a row each.

    Args:
        run: The run's layout.
        found: The factors of its groups.
    """
    rows: dict[tuple[object, ...], list[int]] = {}
    fields = found.recipe.fields
    for i, group in enumerate(run.groups):
        factors = tuple((field, float(found.factors[field][i])) for field in fields)
        reason, residual = found.no_rules[i], found.residual_outputs[i]
        key = (group.role, group.kind, () if reason else factors, reason, residual)
        rows.setdefault(key, []).append(i)
    return [_row(run, found, indices) for indices in rows.values()]


def factors_by_group(run: Layout, found: RecipeFactors) -> list[RoleFactors]:
    """Return the factors of a run, one row for each group."""
    return [_row(run, found, [i]) for i in range(len(run))]


def _row(run: Layout, found: RecipeFactors, indices: list[int]) -> RoleFactors:
    first = indices[0]
    group, reason = run.groups[first], found.no_rules[first]
    factors = [(field, float(found.factors[field][first])) for field in found.recipe.fields]
    return RoleFactors(
        role=group.role,
        kind=group.kind,
        names=tuple(run.groups[i].name for i in indices),
        factors=() if reason else tuple(factors),
        no_rule=reason,
        residual_output=found.residual_outputs[first],
        initial_rms=_range(float(found.initial_rms[i]) for i in indices),
    )


def _range(values: Iterable[float]) -> tuple[float, float] | None:
    known = [value for value in values if value == value]  # noqa: PLR0124 - NaN is unknown
    return (min(known), max(known)) if known else None
