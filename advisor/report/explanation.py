"""An answer explained: for each group, the steps from the measurement to the multiplier."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.policy import Limit
from advisor.report.words import outcome_sentence, outcome_word, short_name
from fslr.advisor.v1 import advisor_service_pb2


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
    in_force: float
    raw: float
    multiplier: float
    outcome: str
    limits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """One answer, explained.

    Attributes:
        profile: Short name of the profile's version.
        step: The measured step.
        profile_step: The step of the profile's training that it was compared with.
        is_measured: Whether any group was measured; otherwise only the references mean something.
        groups: A row for each group.
        outcomes: Each outcome that occurs, in words, with its meaning in a sentence.
        warnings: What differs between the run and its profile, in sentences.
    """

    profile: str
    step: int
    profile_step: float
    is_measured: bool
    groups: tuple[ExplainedGroupRow, ...]
    outcomes: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]


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
    limits = answer.limits or [0] * count
    rows = tuple(
        ExplainedGroupRow(
            group.name,
            measurement.unit_rates[i],
            errors[i],
            answer.reference_unit_rates[i],
            factors[i],
            in_force[i],
            raw[i],
            answer.multipliers[i],
            outcome_word(answer.outcomes[i]),
            tuple(str(limit.name).lower().replace("_", " ") for limit in Limit(limits[i])),
        )
        for i, group in enumerate(request.opening.layout.groups)
    )
    return Explanation(
        short_name(answer.profile),
        answer.step,
        answer.profile_step,
        any(measurement.unit_rates),
        rows,
        tuple((outcome_word(o), outcome_sentence(o)) for o in dict.fromkeys(answer.outcomes)),
        tuple(warning.message for warning in answer.warnings),
    )
