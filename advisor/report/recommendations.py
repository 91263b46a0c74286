"""The recommended learning rates of a run: of each role first, of each group on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from advisor.policy import Limit
from advisor.policy.arrays import Floats
from advisor.report.points import PointReader
from fslr.advisor.v1 import policy_pb2, run_service_pb2

_OUTLIER_FACTOR = 2.0
_OUTLIER_DEVIATIONS = 3.0
_DEVIATION_OF_MEDIAN = 1.4826  # of the median deviation to the standard deviation, if normal
_MIN_PEERS = 4


@dataclass(frozen=True, slots=True)
class RecommendedGroupRow:
    """A group's recommended learning rate, with the reason.

    Attributes:
        group: The group's name.
        role: Its role.
        block: Its block.
        multiplier: Recommended factor on the scheduled learning rate.
        in_force: The multiplier during the measured step; 1 in a run that only observes.
        learning_rate: Scheduled learning rate; None: not reported.
        effective_learning_rate: The scheduled learning rate times the multiplier; None: not
            reported.
        decay_factor: Factor of the advice on the weight decay of a step, beside the schedule: the
            multiplier, or 1 if the policy keeps the decay.
        outcome: Why the multiplier is what it is, an ``Outcome`` of the contract.
        limits: The safeguards that changed it.
        measured: Measured unit rate, in output units per learning rate.
        reference: Unit rate of the profile at this step, in output units per learning rate; 0: no
            matching group.
        relative_error: Relative error of the measured unit rate, a ratio.
        raw: Reference divided by measured; 0: one of them is missing or zero.
        prior: Multiplier from shapes; 0: none.
        share: Signed part in the squared total rate; None: not reported.
        is_outlier: Whether the multiplier is far from those of the other groups of its role: by
            more than a factor of 2 and 3 standard deviations.
    """

    group: str
    role: str
    block: str
    multiplier: float
    in_force: float
    learning_rate: float | None
    effective_learning_rate: float | None
    decay_factor: float
    outcome: int
    limits: Limit
    measured: float
    reference: float
    relative_error: float
    raw: float
    prior: float
    share: float | None
    is_outlier: bool


@dataclass(frozen=True, slots=True)
class RecommendedRoleRow:
    """The recommended learning rates of the groups of a role.

    Attributes:
        role: The role.
        groups: Number of its groups.
        multiplier: Geometric mean of the multipliers.
        min_multiplier: The smallest one.
        max_multiplier: The largest one.
        learning_rate: Largest scheduled learning rate; None: not reported.
        effective: Geometric mean of the scheduled learning rates, each times its multiplier; None:
            not reported.
        min_effective: Smallest scheduled learning rate times multiplier; None: not reported.
        max_effective: The largest one.
        decay_factor: Geometric mean of the factors on the weight decay of a step.
        outcomes: The outcomes with the number of groups, the most frequent first.
        typical: The group whose multiplier is the median one: its reason stands for the role.
        outliers: Names of the groups whose multiplier is far from the others'.
    """

    role: str
    groups: int
    multiplier: float
    min_multiplier: float
    max_multiplier: float
    learning_rate: float | None
    effective: float | None
    min_effective: float | None
    max_effective: float | None
    decay_factor: float
    outcomes: tuple[tuple[int, int], ...]
    typical: RecommendedGroupRow
    outliers: tuple[str, ...]


def recommended_groups(
    reader: PointReader, event: run_service_pb2.RunEvent, role: str = ""
) -> list[RecommendedGroupRow]:
    """Return the recommendation for each group in an answer.

    Args:
        reader: The reader of the run.
        event: The measurement and its answer; it fits the reader's layout.
        role: Only the groups of this role; empty: all.
    """
    measurement, answer = event.measurement, event.recommendation
    groups = reader.layout.groups
    count = len(groups)
    multipliers = list(answer.multipliers)
    in_force = list(measurement.multipliers) or [1.0] * count
    scheduled: list[float | None] = [float(str(np.float32(x))) for x in measurement.learning_rates]
    scheduled = scheduled or [None] * count
    errors = list(measurement.relative_errors) or [0.0] * count
    raw, priors = list(answer.raw_multipliers), list(answer.priors)
    limits = list(answer.limits)
    keeps = answer.weight_decay == policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT
    outliers = _outliers(reader, np.array(multipliers))
    chosen = reader.roles.members(role) if role else range(count)
    return [
        RecommendedGroupRow(
            group=groups[i].name,
            role=groups[i].role,
            block=reader.blocks.names[reader.blocks.indices[i]],
            multiplier=multipliers[i],
            in_force=in_force[i],
            learning_rate=scheduled[i],
            effective_learning_rate=_times(scheduled[i], multipliers[i]),
            decay_factor=1.0 if keeps else multipliers[i],
            outcome=answer.outcomes[i],
            limits=Limit(limits[i]) if limits else Limit(0),
            measured=measurement.unit_rates[i],
            reference=answer.reference_unit_rates[i],
            relative_error=errors[i],
            raw=raw[i] if raw else 0.0,
            prior=priors[i] if priors else 0.0,
            share=measurement.shares[i] if measurement.shares else None,
            is_outlier=bool(outliers[i]),
        )
        for i in chosen
    ]


def recommended_roles(groups: Sequence[RecommendedGroupRow]) -> list[RecommendedRoleRow]:
    """Return the recommendation for each role, in the order of their first groups.

    Args:
        groups: The groups' rows of one answer.
    """
    by_role: dict[str, list[RecommendedGroupRow]] = {}
    for row in groups:
        by_role.setdefault(row.role, []).append(row)
    return [_role_row(role, rows) for role, rows in by_role.items()]


def _role_row(role: str, rows: Sequence[RecommendedGroupRow]) -> RecommendedRoleRow:
    multipliers = [row.multiplier for row in rows]
    scheduled = [row.learning_rate for row in rows if row.learning_rate is not None]
    effective = [x for row in rows if (x := row.effective_learning_rate) is not None]
    ordered = sorted(rows, key=lambda row: row.multiplier)
    factors = [row.decay_factor for row in rows]
    return RecommendedRoleRow(
        role=role,
        groups=len(rows),
        multiplier=float(np.exp(np.mean(np.log(multipliers)))),
        min_multiplier=min(multipliers),
        max_multiplier=max(multipliers),
        learning_rate=max(scheduled, default=None),
        effective=float(np.exp(np.mean(np.log(effective)))) if all(effective or [0]) else None,
        min_effective=min(effective, default=None),
        max_effective=max(effective, default=None),
        decay_factor=float(np.exp(np.mean(np.log(factors)))),
        outcomes=tuple(Counter(row.outcome for row in rows).most_common()),
        typical=ordered[(len(ordered) - 1) // 2],
        outliers=tuple(row.group for row in rows if row.is_outlier),
    )


def _outliers(reader: PointReader, multipliers: Floats) -> npt.NDArray[np.bool_]:
    """Return for each group whether its multiplier is far from those of its role's other groups."""
    logarithms = np.log(multipliers)
    found = np.zeros(len(multipliers), np.bool_)
    order = np.argsort(reader.roles.indices, kind="stable")
    ends = np.cumsum(reader.roles.group_counts)
    for members in np.split(order, ends[:-1]):
        if len(members) < _MIN_PEERS:
            continue
        deviations = np.abs(logarithms[members] - np.median(logarithms[members]))
        usual = _DEVIATION_OF_MEDIAN * np.median(deviations)
        limit = max(np.log(_OUTLIER_FACTOR), _OUTLIER_DEVIATIONS * usual)
        found[members] = deviations > limit
    return found


def _times(learning_rate: float | None, multiplier: float) -> float | None:
    return None if learning_rate is None else learning_rate * multiplier
