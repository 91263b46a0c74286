"""The recommended learning rates of a run: of each role first, of each group on demand."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from advisor.policy import Limit
from advisor.policy.arrays import Floats
from advisor.report.points import PointReader
from advisor.wire import packed
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
        decay: Part of the weights that a step with the advice takes away as weight decay; None: not
            reported.
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
    decay: float | None
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
        decay: Mean part of the weights that a step with the advice takes away as weight decay;
            None: not reported.
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
    decay: float | None
    outcomes: tuple[tuple[int, int], ...]
    typical: RecommendedGroupRow
    outliers: tuple[str, ...]


def recommended_groups(
    reader: PointReader,
    event: run_service_pb2.RunEvent,
    role: str = "",
    blocks: Collection[str] = (),
) -> list[RecommendedGroupRow]:
    """Return the recommendation for each group in an answer.

    Args:
        reader: The reader of the run.
        event: The measurement and its answer; it fits the reader's layout.
        role: Only the groups of this role; empty: all.
        blocks: Only the groups of these blocks; empty: all.
    """
    chosen: Sequence[int] = reader.roles.members(role) if role else range(len(reader.groups))
    if blocks:
        is_chosen = np.array([name in blocks for name in reader.blocks.names])
        chosen = [i for i in chosen if is_chosen[reader.blocks.indices[i]]]
    return _Arrays.of(reader, event).rows(chosen)


def recommended_roles(
    reader: PointReader, event: run_service_pb2.RunEvent
) -> list[RecommendedRoleRow]:
    """Return the recommendation for each role, in the order of their first groups.

    Args:
        reader: The reader of the run.
        event: The measurement and its answer; it fits the reader's layout.
    """
    arrays = _Arrays.of(reader, event)
    roles = reader.roles
    counts = np.array(roles.group_counts)
    order = np.lexsort((arrays.multipliers, roles.indices))  # by role, then by multiplier
    starts = np.cumsum(counts) - counts
    typical = arrays.rows(order[starts + (counts - 1) // 2].tolist())
    multipliers = arrays.multipliers[order]
    means = roles.geometric_means(arrays.multipliers)
    factors = roles.geometric_means(arrays.decay_factors)
    decays: list[float | None] = [None] * len(counts)
    if arrays.decays is not None:
        decays = (np.bincount(roles.indices, arrays.decays, len(counts)) / counts).tolist()
    learning_rates = _per_role(arrays.scheduled, order, starts)
    effective = _per_role(arrays.effective, order, starts)
    effective_means = (
        np.zeros(len(counts)) if arrays.effective is None
        else roles.geometric_means(arrays.effective)
    )  # fmt: skip
    return [
        RecommendedRoleRow(
            role=role,
            groups=int(counts[i]),
            multiplier=float(means[i]),
            min_multiplier=float(multipliers[starts[i]]),
            max_multiplier=float(multipliers[starts[i] + counts[i] - 1]),
            learning_rate=learning_rates[i][1],
            effective=float(effective_means[i]) or None,
            min_effective=effective[i][0],
            max_effective=effective[i][1],
            decay_factor=float(factors[i]),
            decay=decays[i],
            outcomes=_counted(arrays.outcomes[order[starts[i] : starts[i] + counts[i]]]),
            typical=typical[i],
            outliers=tuple(
                reader.groups.names[j]
                for j in np.sort(order[starts[i] : starts[i] + counts[i]])
                if arrays.outliers[j]
            ),
        )
        for i, role in enumerate(roles.names)
    ]


def effective_range(event: run_service_pb2.RunEvent) -> tuple[float, float] | None:
    """Return the smallest and the largest recommended learning rate of an answer.

    Args:
        event: The measurement and its answer.

    Returns:
        Scheduled learning rates times recommended multipliers; None: not reported.
    """
    scheduled = _in_decimal(np.array(event.measurement.learning_rates, np.float32))
    if scheduled is None:
        return None
    answer = packed.packed_response(event.recommendation)
    effective = scheduled * packed.numbers(answer.multipliers, "<f8")
    return float(effective.min()), float(effective.max())


def scheduled_range(event: run_service_pb2.RunEvent) -> tuple[float, float] | None:
    """Return the smallest and the largest scheduled learning rate of a measurement.

    Args:
        event: The measurement.

    Returns:
        Scheduled learning rates; None: not reported.
    """
    scheduled = _in_decimal(np.array(event.measurement.learning_rates, np.float32))
    return None if scheduled is None else (float(scheduled.min()), float(scheduled.max()))


@dataclass(frozen=True, slots=True, eq=False)
class _Arrays:
    """What an answer says of each group, as arrays.

    Attributes:
        reader: The reader of the run.
        event: The measurement and its answer.
        multipliers: Recommended multipliers.
        scheduled: Scheduled learning rates; None: not reported.
        effective: The scheduled learning rates times the multipliers; None: not reported.
        decay_factors: Factors of the advice on the weight decay of a step.
        decays: Parts of the weights that a step with the advice takes away; None: not reported.
        outcomes: Outcomes.
        outliers: Whether the multiplier is far from those of the role's other groups.
    """

    reader: PointReader
    event: run_service_pb2.RunEvent
    multipliers: Floats
    scheduled: Floats | None
    effective: Floats | None
    decay_factors: Floats
    decays: Floats | None
    outcomes: npt.NDArray[np.int64]
    outliers: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, reader: PointReader, event: run_service_pb2.RunEvent) -> _Arrays:
        """Return the arrays of an event that fits the reader's layout."""
        answer = packed.packed_response(event.recommendation)
        multipliers = packed.numbers(answer.multipliers, "<f8")
        scheduled = _in_decimal(np.array(event.measurement.learning_rates, np.float32))
        keeps = answer.weight_decay == policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT
        decay_factors = np.ones_like(multipliers) if keeps else multipliers
        taken = _in_decimal(np.array(event.measurement.weight_decays, np.float32))
        return cls(
            reader=reader,
            event=event,
            multipliers=multipliers,
            scheduled=scheduled,
            effective=None if scheduled is None else scheduled * multipliers,
            decay_factors=decay_factors,
            decays=None if taken is None else taken * decay_factors,
            outcomes=packed.integers(answer.outcomes),
            outliers=_outliers(reader, multipliers),
        )

    def rows(self, chosen: Sequence[int]) -> list[RecommendedGroupRow]:
        """Return the rows of some groups.

        Args:
            chosen: Indices of the groups.
        """
        reader, measurement, answer = self.reader, self.event.measurement, self.event.recommendation
        return [
            RecommendedGroupRow(
                group=reader.groups.names[i],
                role=reader.roles.names[reader.roles.indices[i]],
                block=reader.blocks.names[reader.blocks.indices[i]],
                multiplier=float(self.multipliers[i]),
                in_force=measurement.multipliers[i] if measurement.multipliers else 1.0,
                learning_rate=None if self.scheduled is None else float(self.scheduled[i]),
                effective_learning_rate=(
                    None if self.effective is None else float(self.effective[i])
                ),
                decay_factor=float(self.decay_factors[i]),
                decay=None if self.decays is None else float(self.decays[i]),
                outcome=int(self.outcomes[i]),
                limits=Limit(answer.limits[i]) if answer.limits else Limit(0),
                measured=measurement.unit_rates[i],
                reference=answer.reference_unit_rates[i],
                relative_error=measurement.relative_errors[i] if measurement.relative_errors else 0,
                raw=answer.raw_multipliers[i] if answer.raw_multipliers else 0.0,
                prior=answer.priors[i] if answer.priors else 0.0,
                share=measurement.shares[i] if measurement.shares else None,
                is_outlier=bool(self.outliers[i]),
            )
            for i in chosen
        ]


def _in_decimal(numbers: npt.NDArray[np.float32]) -> Floats | None:
    """Return numbers in the fewest digits that single precision needs: 0.01, not 0.009999999776.

    Args:
        numbers: The numbers; empty: not reported.
    """
    if not len(numbers):
        return None
    distinct, places = np.unique(numbers, return_inverse=True)
    found: Floats = np.array([float(str(number)) for number in distinct])[places]
    return found


def _per_role(
    values: Floats | None, order: npt.NDArray[np.intp], starts: npt.NDArray[np.int64]
) -> list[tuple[float | None, float | None]]:
    """Return the smallest and the largest value of each role; None: not reported.

    Args:
        values: One for each group; None: not reported.
        order: The groups in the order of their roles.
        starts: Where each role starts in it.
    """
    if values is None:
        return [(None, None)] * len(starts)
    low, high = (extreme.reduceat(values[order], starts) for extreme in (np.minimum, np.maximum))
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _counted(outcomes: npt.NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    """Return the outcomes with their numbers, the most frequent first."""
    codes, counts = np.unique(outcomes, return_counts=True)
    pairs = zip(codes.tolist(), counts.tolist(), strict=True)
    return tuple(sorted(pairs, key=lambda pair: -pair[1]))


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
