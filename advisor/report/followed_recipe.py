"""The recipe that a run follows: its factors beside what is measured, by role."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from advisor.advising.recipe_warnings import (
    first_check_step,
    noise_quantile,
    role_differences,
)
from advisor.policy.arrays import Floats
from advisor.report.points import PointReader
from advisor.report.words import short_name
from advisor.wire import packed
from fslr.advisor.v1 import run_service_pb2


@dataclass(frozen=True, slots=True)
class FollowedRoleRow:
    """What a recipe says of a role, beside what is measured.

    Attributes:
        role: The role.
        groups: Number of its groups.
        recipe: Geometric mean of the recipe's factors on learning rates; None: it has no rule.
        measured: Geometric mean of the reference over the measured unit rate; None: not known.
        multiplier: Geometric mean of the recommended multipliers.
        agrees: Whether recipe and measurement differ by no more than a factor of 2 beyond noise;
            None: they cannot be compared, or it is too early.
    """

    role: str
    groups: int
    recipe: float | None
    measured: float | None
    multiplier: float
    agrees: bool | None


@dataclass(frozen=True, slots=True)
class FollowedRecipe:
    """The recipe that a run follows.

    Attributes:
        name: Its short name, with the version if it is stored.
        initial_weights_follow: Whether initial weights are known to be as large as it wants.
        first_check_step: From this step on its factors are compared with what is measured.
        is_checked: Whether this step is reached.
        groups: Number of groups.
        without_rule: Number of groups of which it says nothing.
        rows: A row for each role.
    """

    name: str
    initial_weights_follow: bool
    first_check_step: int
    is_checked: bool
    groups: int
    without_rule: int
    rows: tuple[FollowedRoleRow, ...]

    @property
    def compared(self) -> int:
        """Number of roles whose factor is compared with what is measured."""
        return sum(row.agrees is not None for row in self.rows)

    @property
    def apart(self) -> list[FollowedRoleRow]:
        """The roles in which recipe and measurement disagree."""
        return [row for row in self.rows if row.agrees is False]


def followed_recipe(
    run: run_service_pb2.Run, reader: PointReader, event: run_service_pb2.RunEvent
) -> FollowedRecipe | None:
    """Return the recipe that an answer follows; None: it follows none.

    Args:
        run: The run's summary.
        reader: The reader of the run.
        event: The measurement and its answer; it fits the reader's layout.
    """
    if not event.recommendation.recipe:
        return None
    answer = packed.packed_response(event.recommendation)
    count, roles = len(reader.groups), reader.roles
    priors, ratios = (
        _or_zeros(field, "<f8", count) for field in (answer.priors, answer.raw_multipliers)
    )
    measured = packed.packed_measurement(event.measurement)
    errors = _or_zeros(measured.relative_errors, "<f4", count)
    start = first_check_step(run.opening.total_steps)
    agreement: dict[str, bool] = {}
    is_checked = event.measurement.step >= start
    if is_checked:
        names = [roles.names[i] for i in roles.indices]
        differences = role_differences(names, ratios, priors, errors)
        quantile = noise_quantile(len(differences))
        agreement = {each.role: not each.exceeds(quantile) for each in differences}
    factors, found = (roles.geometric_means_of_known(each) for each in (priors, ratios))
    multipliers = roles.geometric_means(packed.numbers(answer.multipliers, "<f8"))
    return FollowedRecipe(
        name=short_name(event.recommendation.recipe),
        initial_weights_follow=run.opening.initial_weights_follow_recipe,
        first_check_step=start,
        is_checked=is_checked,
        groups=count,
        without_rule=int(np.sum(priors <= 0)),
        rows=tuple(
            FollowedRoleRow(
                role=role,
                groups=roles.group_counts[i],
                recipe=float(factors[i]) or None,
                measured=float(found[i]) or None,
                multiplier=float(multipliers[i]),
                agrees=agreement.get(role),
            )
            for i, role in enumerate(roles.names)
        ),
    )


def _or_zeros(field: bytes, kind: str, count: int) -> Floats:
    """Return the numbers of a field, or zeros if it is empty."""
    found = packed.numbers(field, kind)
    return found if len(found) else np.zeros(count)
