"""A recipe applied to a run: the factors of each group, from the two layouts alone."""

from __future__ import annotations

import enum
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.policy import Group, GroupKind, Layout, LayoutMapping, Match
from advisor.policy.arrays import Floats
from advisor.policy.errors import InvalidValueError
from advisor.policy.optimizer_families import optimizer_family
from advisor.policy.ratios import (
    RATIOS_OF_LAYOUTS,
    Ratio,
    given_ratios,
    group_ratios,
    growth_key,
    unknown_ratios,
)
from advisor.policy.residual_outputs import is_in_block, residual_outputs
from advisor.recipes.recipe import Field, Recipe, Row


class NoRule(enum.Enum):
    """Why a recipe says nothing of a group."""

    OPTIMIZER = "the recipe does not hold for the group's optimizer"
    KIND = "the recipe has no row for groups of this kind"
    UNKNOWN_KIND = "the layout does not give the group's kind; write it with fslr.save_layout"
    COUNTERPART = "the group has no counterpart in the base"
    KIND_DIFFERS = "the counterpart in the base is of a different kind"
    SHAPES = "a layout does not give the shapes that the row needs; write it with fslr.save_layout"


@dataclass(frozen=True, slots=True)
class RecipeFactors:
    """The factors of a run's groups.

    Attributes:
        recipe: The recipe.
        factors: The factor of each group for each field, 1 where the recipe has no rule, shape
            [groups].
        has_rule: Whether the recipe says something of each group, shape [groups].
        rows: Index of each group's row in the recipe, -1 without one, shape [groups].
        no_rules: Why there is no rule, None where there is one; one for each group.
        ratios: How much each group has grown, NaN where it is unknown, shape [groups].
        residual_outputs: Whether each group writes into the residual stream.
        base_rms: RMS of the initial values of each group's counterpart, NaN where the base's layout
            does not give it, shape [groups].
        given: The ratios that were given because layouts do not show them; the others count as 1.
        assumed_family: The family of optimizers whose rows were taken though no optimizer is known
            and other families have other rows; empty: none was assumed.
    """

    recipe: Recipe
    factors: Mapping[Field, Floats]
    has_rule: NDArray[np.bool_]
    rows: NDArray[np.intp]
    no_rules: tuple[NoRule | None, ...]
    ratios: Mapping[Ratio, Floats]
    residual_outputs: tuple[bool, ...]
    base_rms: Floats
    given: frozenset[Ratio] = frozenset()
    assumed_family: str = ""

    @property
    def initial_rms(self) -> Floats:
        """RMS that each group's initial values should have, shape [groups].

        It is the base's times the factor ``initial_scale``: which values the run's own code gives
        does not matter. NaN: keep those values, as the recipe has no rule for the group or says
        nothing of initial values, or the base's are unknown.
        """
        wanted = self.base_rms * self.factors[Field.INITIAL_SCALE]
        has_rule = self.has_rule & (Field.INITIAL_SCALE in self.recipe.fields)
        return np.where(has_rule, wanted, math.nan)


def apply_recipe(
    recipe: Recipe,
    run: Layout,
    base: Layout,
    mapping: LayoutMapping,
    *,
    optimizer: str,
    given: Mapping[Ratio, float] | None = None,
) -> RecipeFactors:
    """Return the factors of each group of a run.

    Args:
        recipe: The recipe.
        run: The run's layout.
        base: The base's layout.
        mapping: The run's layout mapped onto the base's. Its depth rule does not matter. A group
            for which the nearest role stands in has no counterpart: that one may have another
            shape.
        optimizer: Name of the optimizer that updates the groups that name none themselves; empty:
            one that the recipe holds for.
        given: The ratios that layouts do not show (head size, batch, tokens, sequence); 1 where
            none is given.

    Raises:
        InvalidValueError: A given ratio is not positive and finite or follows from the layouts, or
            a factor is not finite.
    """
    known = given_ratios(given or {})
    sources = _first_sources(mapping, len(run))
    assumed = ""
    residual = residual_outputs(run)
    factors = {entry: np.ones(len(run)) for entry in Field}
    ratios = {ratio: np.full(len(run), math.nan) for ratio in Ratio}
    rows = np.full(len(run), -1, dtype=np.intp)
    no_rules: list[NoRule | None] = [None] * len(run)
    for indices in _alike(run, base, sources, residual):
        first = indices[0]
        group, source = run.groups[first], sources[first]
        counterpart = base.groups[source] if source >= 0 else None
        grown = {**_ratios(group, counterpart), **known}
        for ratio, value in grown.items():
            ratios[ratio][indices] = value
        name = group.optimizer or optimizer
        family = optimizer_family(name) if name else ""
        row = _row_of(recipe, group, residual_output=residual[first], family=family)
        reason = row if isinstance(row, NoRule) else _obstacle(row[1], group, counterpart, grown)
        if reason is None and not isinstance(row, NoRule):
            rows[indices] = row[0]
            if not family and _depends_on_family(recipe, row[1], group, residual[first]):
                assumed = assumed or row[1].optimizers[0]
            for entry, factor in _factors(row[1], group, grown).items():
                factors[entry][indices] = factor
        for i in indices:
            no_rules[i] = reason
    return RecipeFactors(
        recipe,
        factors,
        rows >= 0,
        rows,
        tuple(no_rules),
        ratios,
        residual,
        _base_rms(base, mapping, len(run)),
        frozenset(given or {}),
        assumed,
    )


def _alike(
    run: Layout, base: Layout, sources: Sequence[int], residual: Sequence[bool]
) -> list[list[int]]:
    """Return the indices of groups that have the same factors, such as those of a role."""
    found: defaultdict[object, list[int]] = defaultdict(list)
    for i, (group, source, is_residual) in enumerate(
        zip(run.groups, sources, residual, strict=True)
    ):
        own = growth_key(group)
        other = growth_key(base.groups[source]) if source >= 0 else None
        found[own, group.optimizer, is_residual, other].append(i)
    return list(found.values())


def _first_sources(mapping: LayoutMapping, groups: int) -> list[int]:
    """Return the base group of each group, -1 without one; those of a role have one shape."""
    found = [-1] * groups
    for target, source in zip(mapping.targets.tolist(), mapping.sources.tolist(), strict=True):
        if found[target] < 0 and mapping.matches[target] is not Match.NEAREST_ROLE:
            found[target] = source
    return found


def _ratios(group: Group, base: Group | None) -> dict[Ratio, float]:
    return unknown_ratios() if base is None else group_ratios(group, base)


def _row_of(
    recipe: Recipe, group: Group, *, residual_output: bool, family: str
) -> tuple[int, Row] | NoRule:
    """Return the first row that fits a group, with its index, or why there is none.

    Args:
        recipe: The recipe.
        group: The group.
        residual_output: Whether it writes into the residual stream.
        family: The family of its optimizer; empty: one that the recipe holds for.
    """
    if family and recipe.optimizers and family not in recipe.optimizers:
        return NoRule.OPTIMIZER
    fitting = [
        (i, row)
        for i, row in enumerate(recipe.rows)
        if row.fits(group.kind, residual_output=residual_output, in_block=is_in_block(group))
    ]
    for i, row in fitting:
        if not family or not row.optimizers or family in row.optimizers:
            return i, row
    if fitting:
        return NoRule.OPTIMIZER
    return NoRule.UNKNOWN_KIND if group.kind is GroupKind.UNKNOWN else NoRule.KIND


def _depends_on_family(recipe: Recipe, row: Row, group: Group, is_residual: bool) -> bool:
    """Return whether another family of optimizers has another row for a group."""
    if not row.optimizers:
        return False
    return any(
        other.powers != row.powers
        for other in recipe.rows
        if other.fits(group.kind, residual_output=is_residual, in_block=is_in_block(group))
        and other.optimizers
        and not {*other.optimizers} & {*row.optimizers}
    )


def _obstacle(
    row: Row, group: Group, base: Group | None, ratios: Mapping[Ratio, float]
) -> NoRule | None:
    """Return why a row cannot be applied, or None if it can."""
    needed = row.ratios & {*RATIOS_OF_LAYOUTS}
    if not needed:
        return None
    if base is None:
        return NoRule.COUNTERPART
    if row.kinds and base.kind is not group.kind:
        return NoRule.KIND_DIFFERS
    return NoRule.SHAPES if any(math.isnan(ratios[ratio]) for ratio in needed) else None


def _factors(row: Row, group: Group, ratios: Mapping[Ratio, float]) -> dict[Field, float]:
    found = {}
    for entry, powers in row.powers.items():
        try:
            factor = powers.factor(ratios)
        except OverflowError:
            factor = math.inf
        if not 0 < factor < math.inf:
            raise InvalidValueError(
                "recipe",
                f"the factor {factor} of {group.name} for {entry.value} is not a positive number; "
                "check the exponents and the given ratios",
            )
        found[entry] = factor
    return found


def _base_rms(base: Layout, mapping: LayoutMapping, groups: int) -> Floats:
    """Return the initial RMS of each group's counterpart, NaN where unknown, shape [groups]."""
    if not base.initial_rms:
        return np.full(groups, math.nan)
    known = np.array([math.nan if rms is None else rms for rms in base.initial_rms])
    with np.errstate(over="ignore"):
        squares = np.square(known)
    is_own = np.array([match is not Match.NEAREST_ROLE for match in mapping.matches], np.bool_)
    return np.where(mapping.matched & is_own, np.sqrt(mapping.combined(squares)), math.nan)
