"""A recipe applied to one run: its priors, its other factors, and its warnings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from advisor.advising.mismatch_warnings import Difference
from advisor.advising.recipe_warnings import (
    disagreement,
    doubts_about_training,
    growth_without_rule,
    missing_rules,
    smaller_run,
)
from advisor.advising.recipes import ResolvedRecipe
from advisor.policy import Layout, LayoutMapping
from advisor.policy.arrays import Floats
from advisor.recipes import Field, Ratio, RecipeFactors, apply_recipe


@dataclass(frozen=True, slots=True, eq=False)
class RunRecipe:
    """A run's recipe, applied. Runs of one model share it.

    Attributes:
        name: The recipe's name, with the version if it is stored.
        stale: Whether the name was resolved from the cache because the store is unavailable.
        layout: The run's layout.
        factors: Its factors for the run's groups.
        priors: Its factors on learning rates, 0 where it has no rule, shape [groups].
    """

    name: str
    stale: bool
    layout: Layout
    factors: RecipeFactors
    priors: Floats

    @classmethod
    def of(
        cls,
        resolved: ResolvedRecipe,
        layout: Layout,
        base: Layout,
        mapping: LayoutMapping,
        *,
        optimizer: str,
        given: Mapping[Ratio, float],
    ) -> RunRecipe:
        """Return a recipe applied to a run.

        Args:
            resolved: The recipe.
            layout: The run's layout.
            base: The base's layout.
            mapping: The run's layout mapped onto the base's.
            optimizer: Name of the optimizer that updates the groups that name none themselves.
            given: How much larger the run is than the base in what layouts do not show.

        Raises:
            InvalidValueError: A factor is not a positive number.
        """
        factors = apply_recipe(
            resolved.recipe, layout, base, mapping, optimizer=optimizer, given=given
        )
        priors = np.where(factors.has_rule, factors.factors[Field.LEARNING_RATE], 0.0)
        return cls(resolved.name, resolved.stale, layout, factors, priors)

    def start_differences(self) -> list[Difference]:
        """Return a difference for each reason why the recipe does not fit the run."""
        return [
            *missing_rules(self.name, self.layout, self.factors),
            *growth_without_rule(self.name, self.layout, self.factors),
            *smaller_run(self.name, self.layout, self.factors),
            *doubts_about_training(self.name, self.factors),
        ]

    def disagreement(self, ratios: Floats, errors: Floats) -> list[Difference]:
        """Return one difference if measured ratios contradict the recipe beyond noise, or none.

        Args:
            ratios: Reference over measured unit rate, 0 where one is missing, shape [groups].
            errors: Relative errors of the ratios, shape [groups].
        """
        return disagreement(self.name, self.layout, ratios, self.priors, errors)


def training_growth(
    *, batch_sizes: tuple[int, int], total_steps: tuple[int, int]
) -> dict[Ratio, float]:
    """Return how much larger a run's batch and training are than its base's, where both are known.

    Args:
        batch_sizes: Examples per step of run and base; 0: unknown.
        total_steps: Planned steps of run and base; 0: unknown.
    """
    (batch, base_batch), (steps, base_steps) = batch_sizes, total_steps
    if not (batch and base_batch):
        return {}
    found = {Ratio.BATCH: batch / base_batch}
    if steps and base_steps:
        found[Ratio.TOKENS] = found[Ratio.BATCH] * steps / base_steps
    return found
