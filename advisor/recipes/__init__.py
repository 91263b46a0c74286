"""Recipes: multipliers and their kin from layouts alone, as in muP.

A recipe is a table of powers of how much a group has grown. Pure code: no store, no clock, no RPC;
the only files that it reads are the shipped recipes.
"""

from advisor.policy.ratios import GIVEN_RATIOS, Powers, Ratio
from advisor.recipes.apply import NoRule, RecipeFactors, apply_recipe
from advisor.recipes.check import (
    Finding,
    FindingKind,
    check_recipe,
    missing_residual_outputs,
    optimizer_not_given,
    ratios_not_given,
    small_betas,
    smaller_than_base,
    uncovered_growth,
)
from advisor.recipes.recipe import Field, Recipe, Row
from advisor.recipes.recipe_fields import load_recipe, recipe_from_fields, recipe_to_fields
from advisor.recipes.shipped import shipped_recipe, shipped_recipe_names, shipped_recipe_text
from advisor.recipes.summary import RoleFactors, factors_by_group, factors_by_role

__all__ = [
    "GIVEN_RATIOS",
    "Field",
    "Finding",
    "FindingKind",
    "NoRule",
    "Powers",
    "Ratio",
    "Recipe",
    "RecipeFactors",
    "RoleFactors",
    "Row",
    "apply_recipe",
    "check_recipe",
    "factors_by_group",
    "factors_by_role",
    "load_recipe",
    "missing_residual_outputs",
    "optimizer_not_given",
    "ratios_not_given",
    "recipe_from_fields",
    "recipe_to_fields",
    "shipped_recipe",
    "shipped_recipe_names",
    "shipped_recipe_text",
    "small_betas",
    "smaller_than_base",
    "uncovered_growth",
]
