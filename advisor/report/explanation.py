"""An answer explained: for each group, the steps from the measurement to the multiplier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

import numpy as np

from advisor.advising.recipe_warnings import noise_quantile, role_differences
from advisor.policy import Limit
from advisor.report.words import (
    limit_sentence,
    limit_word,
    outcome_sentence,
    outcome_word,
    short_name,
)
from advisor.wire import layout_from_proto
from fslr.advisor.v1 import advisor_service_pb2, layout_pb2


@dataclass(frozen=True, slots=True)
class ExplainedGroupRow:
    """The way from a group's measurement to its multiplier.

    Attributes:
        group: The group's name.
        measured: Measured unit rate, in output units per learning rate; 0: not measured.
        relative_error: Relative error of the measured unit rate, a ratio.
        reference: Unit rate of the profile at this step, after the depth factor, in output units
            per learning rate; 0: no matching group.
        depth_factor: Reference divided by the mean rate of the blocks that the group stands for; 0:
            none.
        prior: Multiplier from shapes, before and beside what is measured; 0: none.
        in_force: Multiplier during the measured step.
        raw: Reference divided by measured, before any safeguard; 0: one of them is missing or zero.
        multiplier: Recommended factor on the scheduled learning rate.
        outcome: Why the multiplier is what it is, in words.
        limits: The safeguards that changed the multiplier, in words.
    """

    group: str
    measured: float
    relative_error: float
    reference: float
    depth_factor: float
    prior: float
    in_force: float
    raw: float
    multiplier: float
    outcome: str
    limits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RecipeRoleRow:
    """What a recipe says of a role, beside what is measured.

    Attributes:
        role: The role.
        recipe: Geometric mean of the recipe's factors on the learning rates of its groups.
        measured: Geometric mean of their raw multipliers.
        error: Standard error of the logarithm of ``measured``, without that of the reference.
        agrees: Whether the two differ by no more than a factor of 2 beyond noise.
    """

    role: str
    recipe: float
    measured: float
    error: float
    agrees: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """One answer, explained.

    Attributes:
        profile: Short name of the profile's version.
        step: The measured step.
        profile_step: The step of the profile's training that it was compared with.
        is_measured: Whether any group was measured; otherwise only the references mean something.
        groups: A row for each group.
        counts: Each outcome that occurs, in words, with the number of groups; the most frequent
            first.
        lowest: The smallest multiplier.
        highest: The largest multiplier.
        outcomes: Each outcome that occurs, in words, with its meaning in a sentence.
        limits: Each limit that occurs, in words, with its meaning in a sentence.
        warnings: What differs between the run and its profile, in sentences.
        recipe: The recipe that was followed, with its version; empty: none.
        roles: A row for each role with both a recipe's factor and a measurement of known error.
    """

    profile: str
    step: int
    profile_step: float
    is_measured: bool
    groups: tuple[ExplainedGroupRow, ...]
    counts: tuple[tuple[str, int], ...]
    lowest: float
    highest: float
    outcomes: tuple[tuple[str, str], ...]
    limits: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    recipe: str
    roles: tuple[RecipeRoleRow, ...]


def explain(
    request: advisor_service_pb2.RecommendLRRequest,
    answer: advisor_service_pb2.RecommendLRResponse,
) -> Explanation:
    """Return an answer explained.

    Args:
        request: The opening and the measurement that were answered.
        answer: The answer.
    """
    measurement = request.measurement
    count = len(answer.multipliers)
    errors = measurement.relative_errors or [0.0] * count
    in_force = measurement.multipliers or [1.0] * count
    factors = answer.depth_factors or [0.0] * count  # an answer of an older service has none
    raw = answer.raw_multipliers or [0.0] * count
    limits = [Limit(limit) for limit in answer.limits or [0] * count]
    priors = answer.priors or [0.0] * count
    rows = tuple(
        ExplainedGroupRow(
            group.name,
            measurement.unit_rates[i],
            errors[i],
            answer.reference_unit_rates[i],
            factors[i],
            priors[i],
            in_force[i],
            raw[i],
            answer.multipliers[i],
            outcome_word(answer.outcomes[i]),
            tuple(map(limit_word, limits[i])),
        )
        for i, group in enumerate(request.opening.layout.groups)
    )
    return Explanation(
        short_name(answer.profile),
        answer.step,
        answer.profile_step,
        any(measurement.unit_rates),
        rows,
        tuple(Counter(row.outcome for row in rows).most_common()),
        min(answer.multipliers),
        max(answer.multipliers),
        tuple((outcome_word(o), outcome_sentence(o)) for o in dict.fromkeys(answer.outcomes)),
        tuple((limit_word(each), limit_sentence(each)) for each in _all_limits(limits)),
        tuple(warning.message for warning in answer.warnings),
        short_name(answer.recipe),
        _recipe_roles(request.opening.layout, rows) if answer.recipe else (),
    )


def _recipe_roles(
    layout: layout_pb2.Layout, rows: Sequence[ExplainedGroupRow]
) -> tuple[RecipeRoleRow, ...]:
    found = role_differences(
        [group.role for group in layout_from_proto(layout).groups],
        *(
            np.array(column)
            for column in zip(*((r.raw, r.prior, r.relative_error) for r in rows), strict=True)
        ),
    )
    quantile = noise_quantile(len(found))
    return tuple(
        RecipeRoleRow(each.role, each.prior, each.measured, each.error, not each.exceeds(quantile))
        for each in found
    )


def _all_limits(limits: Iterable[Limit]) -> Limit:
    """Return the limits that changed any multiplier."""
    return reduce(or_, limits, Limit(0))
