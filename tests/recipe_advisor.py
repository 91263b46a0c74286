"""An advisor whose runs follow a recipe, and whose measurements change nothing."""

from __future__ import annotations

import numpy as np

from advisor.policy import DepthRule, map_layout
from advisor.recipes import Field, Recipe, RecipeFactors, apply_recipe
from advisor.wire.layouts import layout_from_proto
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import layout_pb2, profile_service_pb2, recipe_pb2


class RecipeAdvisor:
    """An advisor of runs on a base.

    Args:
        base: The base's layout.
        recipe: The recipe of all runs; None: they follow none.
    """

    def __init__(self, base: layout_pb2.Layout, recipe: Recipe | None) -> None:
        self._base, self.recipe = layout_from_proto(base), recipe
        self.openings: list[pb.RunOpening] = []

    def validate_layout(self, opening: pb.RunOpening) -> profile_service_pb2.ValidateLayoutResponse:
        found = self.factors(opening)
        if found is None:
            return profile_service_pb2.ValidateLayoutResponse(profile="x@1")
        rates = found.factors[Field.LEARNING_RATE]
        return profile_service_pb2.ValidateLayoutResponse(
            profile="x@1",
            recipe=found.recipe.name,
            mappings=[
                profile_service_pb2.GroupMapping(group=group.name, prior=rate if has_rule else 0.0)
                for group, rate, has_rule in zip(
                    opening.layout.groups, rates, found.has_rule, strict=True
                )
            ],
        )

    def factors(self, opening: pb.RunOpening) -> RecipeFactors | None:
        """Return what the recipe says about a run, or None without a recipe."""
        if self.recipe is None:
            return None
        run = layout_from_proto(opening.layout)
        mapping = map_layout(run, self._base, DepthRule.SUM)
        return apply_recipe(self.recipe, run, self._base, mapping, optimizer=opening.optimizer)

    def open_run(self, opening: pb.RunOpening) -> RecipeSession:
        kept = pb.RunOpening()
        kept.CopyFrom(opening)
        self.openings.append(kept)
        return RecipeSession(self.factors(kept), len(kept.layout.groups))


class RecipeSession:
    """A run's session.

    Args:
        factors: What the recipe says about the run.
        groups: Number of its groups.
    """

    def __init__(self, factors: RecipeFactors | None, groups: int) -> None:
        self._factors, self._groups = factors, groups

    def start(self) -> pb.RecommendLRResponse:
        found = self._factors
        if found is None:
            return pb.RecommendLRResponse(multipliers=[1.0] * self._groups)
        factors = found.factors
        return pb.RecommendLRResponse(
            recipe=found.recipe.name,
            recipe_factors=recipe_pb2.RecipeFactors(
                learning_rates=factors[Field.LEARNING_RATE],
                weight_decays=factors[Field.WEIGHT_DECAY],
                epsilons=factors[Field.EPSILON],
                one_minus_beta1s=factors[Field.ONE_MINUS_BETA1],
                one_minus_beta2s=factors[Field.ONE_MINUS_BETA2],
                initial_rms=np.nan_to_num(found.initial_rms, nan=-1.0),
                has_rule=found.has_rule,
                conditions=found.recipe.conditions,
            ),
        )

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        return pb.RecommendLRResponse(
            step=measurement.step,
            multipliers=measurement.multipliers,
            raw_multipliers=[0.5] * len(measurement.multipliers),
            next_measurement_step=measurement.step + 1_000,
        )

    def close(self) -> None:
        pass
