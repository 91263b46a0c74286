"""The answers of a fake advisor, in the form in which a service sends them."""

from __future__ import annotations

from collections.abc import Sequence

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2, profile_service_pb2
from fslr.testing.recipe import FakeRecipe

_DIGEST = "0" * 64


def mapped(
    opening: pb.RunOpening,
    found: Sequence[float | None],
    priors: Sequence[float],
    *,
    recipe: str,
    rule: policy_pb2.WeightDecayRule.ValueType,
    warnings: Sequence[str],
) -> profile_service_pb2.ValidateLayoutResponse:
    """Return how a layout maps: each group onto one of the same name.

    Args:
        opening: The run.
        found: The multiplier of each group; None: it has no counterpart.
        priors: The prior of each group; 0: none.
        recipe: Name of the run's recipe; empty: none.
        rule: What multipliers do to weight decay.
        warnings: What the run is warned of.
    """
    names = names_of(opening)
    mappings = [
        profile_service_pb2.GroupMapping(
            group=name,
            role=group.role,
            sources=[] if factor is None else [name],
            depth_factor=float(factor is not None),
            match=policy_pb2.MATCH_NONE if factor is None else policy_pb2.MATCH_NAME,
            prior=prior,
        )
        for name, group, factor, prior in zip(
            names, opening.layout.groups, found, priors, strict=True
        )
    ]
    return profile_service_pb2.ValidateLayoutResponse(
        profile=version_of(opening.profile),
        mappings=mappings,
        unmatched=[name for name, factor in zip(names, found, strict=True) if factor is None],
        warnings=warnings,
        weight_decay=rule,
        recipe=recipe,
    )


def started(
    opening: pb.RunOpening,
    recipe: FakeRecipe | None,
    priors: Sequence[float],
    *,
    name: str,
    rule: policy_pb2.WeightDecayRule.ValueType,
) -> pb.RecommendLRResponse:
    """Return the answer to an opening, before anything is measured.

    Args:
        opening: The run.
        recipe: Its recipe, if it follows one.
        priors: The prior of each group; 0: none.
        name: Name of the recipe; empty: none.
        rule: What multipliers do to weight decay.

    Raises:
        ValueError: The recipe does not fit the layout.
    """
    return pb.RecommendLRResponse(
        profile=version_of(opening.profile),
        digest=_DIGEST,
        multipliers=[prior or 1.0 for prior in priors],
        outcomes=[
            policy_pb2.OUTCOME_PRIOR if prior else policy_pb2.OUTCOME_UNMATCHED for prior in priors
        ],
        priors=priors,
        weight_decay=rule,
        recipe=name,
        recipe_factors=None if recipe is None else recipe.factors(opening.layout),
    )


def answered(
    opening: pb.RunOpening,
    measurement: pb.Measurement,
    found: Sequence[float | None],
    priors: Sequence[float],
    *,
    recipe: str,
    rule: policy_pb2.WeightDecayRule.ValueType,
) -> pb.RecommendLRResponse:
    """Return the answer to a measurement, without what to measure next.

    Args:
        opening: The run.
        measurement: Its measurement.
        found: The multiplier of each group; None: it keeps the one that it has.
        priors: The prior of each group; 0: none.
        recipe: Name of the run's recipe; empty: none.
        rule: What multipliers do to weight decay.
    """
    held = measurement.multipliers or [1.0] * len(found)
    matched = [factor is not None for factor in found]
    return pb.RecommendLRResponse(
        step=measurement.step,
        profile=version_of(opening.profile),
        digest=_DIGEST,
        multipliers=[h if f is None else f for f, h in zip(found, held, strict=True)],
        outcomes=[
            policy_pb2.OUTCOME_MATCHED if is_matched else policy_pb2.OUTCOME_UNMATCHED
            for is_matched in matched
        ],
        reference_unit_rates=[
            (factor or 0.0) * rate
            for factor, rate in zip(found, measurement.unit_rates, strict=True)
        ],
        recommended=matched,
        priors=priors,
        weight_decay=rule,
        recipe=recipe,
    )


def names_of(opening: pb.RunOpening) -> list[str]:
    """Return the names of a run's groups, in layout order."""
    return [group.name for group in opening.layout.groups]


def version_of(name: str) -> str:
    """Return a resource name with a version: the given one, else 1."""
    bare, _, suffix = name.partition("@")
    return name if suffix.isdigit() else f"{bare}@1"
