"""Answers to openings without a measurement: what is known before the first step."""

from __future__ import annotations

import numpy as np

from advisor.advising.advice import Advice
from advisor.wire.policies import weight_decay_to_proto
from advisor.wire.recipes import factors_to_proto
from advisor.wire.recommendations import known_priors
from advisor.wire.warnings import warnings_of
from fslr.advisor.v1 import advisor_service_pb2, policy_pb2


def first_answer(advice: Advice) -> advisor_service_pb2.RecommendLRResponse:
    """Return the answer to an opening without a measurement.

    Raises:
        LayoutMismatchError: The layout does not map onto the profile.
    """
    multipliers = advice.first_multipliers()
    outcomes = np.where(
        advice.mapping.matched, policy_pb2.OUTCOME_PRIOR, policy_pb2.OUTCOME_UNMATCHED
    )
    return advisor_service_pb2.RecommendLRResponse(
        profile=advice.version_name,
        digest=advice.info.digest,
        multipliers=multipliers.tolist(),
        outcomes=outcomes.tolist(),
        stale=advice.stale,
        warnings=warnings_of([*advice.opening_differences(), *advice.start_differences()]),
        policy=advice.policy_name,
        recommended=[False] * len(multipliers),
        priors=known_priors(advice.priors).tolist(),
        weight_decay=weight_decay_to_proto(advice.policy.weight_decay),
        recipe=advice.recipe_name,
        recipe_factors=None if advice.recipe is None else factors_to_proto(advice.recipe.factors),
    )
