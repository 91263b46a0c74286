"""Openings, measurements and answers: messages to domain objects and back."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from advisor.advice import Advice, Opening
from advisor.comparison import Kind, Training
from advisor.names import ProfileReference, RunName
from advisor.policy import (
    InvalidValueError,
    Layout,
    Match,
    Measurement,
    Outcome,
    Recommendation,
    shown,
)
from advisor.rpc.convert import packed
from advisor.rpc.convert.rules import layout_from, policy_from
from fslr.advisor.v1 import advisor_service_pb2, policy_pb2, profile_service_pb2

_OUTCOMES = {
    Outcome.MATCHED: policy_pb2.OUTCOME_MATCHED,
    Outcome.CLAMPED: policy_pb2.OUTCOME_CLAMPED,
    Outcome.HELD_LOW_CONFIDENCE: policy_pb2.OUTCOME_HELD_LOW_CONFIDENCE,
    Outcome.HELD_ZERO_RATE: policy_pb2.OUTCOME_HELD_ZERO_RATE,
    Outcome.UNMATCHED: policy_pb2.OUTCOME_UNMATCHED,
    Outcome.HELD_FROZEN: policy_pb2.OUTCOME_HELD_FROZEN,
    Outcome.LIMITED: policy_pb2.OUTCOME_LIMITED,
}
# As bytes: integers below 128 are one byte each on the wire, and so are limits.
_OUTCOME_NUMBERS = np.array([_OUTCOMES[outcome] for outcome in Outcome], dtype=np.uint8)
_FLOAT, _DOUBLE = np.dtype("<f4"), np.dtype("<f8")
_MATCHES = {
    Match.NONE: policy_pb2.MATCH_NONE,
    Match.NAME: policy_pb2.MATCH_NAME,
    Match.ROLE: policy_pb2.MATCH_ROLE,
    Match.ALIAS: policy_pb2.MATCH_ALIAS,
    Match.NEAREST_ROLE: policy_pb2.MATCH_NEAREST_ROLE,
}
_KINDS = {
    Kind.BASE_LEARNING_RATE: advisor_service_pb2.WARNING_KIND_BASE_LEARNING_RATE,
    Kind.OPTIMIZER: advisor_service_pb2.WARNING_KIND_OPTIMIZER,
    Kind.BATCH_SIZE: advisor_service_pb2.WARNING_KIND_BATCH_SIZE,
    Kind.LOSS: advisor_service_pb2.WARNING_KIND_LOSS,
    Kind.WARMUP: advisor_service_pb2.WARNING_KIND_WARMUP,
    Kind.NEAREST_ROLE: advisor_service_pb2.WARNING_KIND_NEAREST_ROLE,
}


def opening_from(message: advisor_service_pb2.RunOpening, layout: Layout | None = None) -> Opening:
    """Return the opening of a message.

    Args:
        message: The message.
        layout: Its layout, if that was read before.

    Raises:
        InvalidValueError: A value is out of its range; the field's path begins at ``opening``.
    """
    try:
        layout = layout or layout_from(message.layout)
    except InvalidValueError as error:
        raise error.under("opening.layout") from None
    try:
        policy = policy_from(message.policy) if message.HasField("policy") else None
    except InvalidValueError as error:
        raise error.under("opening.policy") from None
    if message.total_steps < 0:
        raise InvalidValueError("opening.total_steps", f"{message.total_steps} is below 0")
    if message.batch_size < 0:
        raise InvalidValueError("opening.batch_size", f"{message.batch_size} is below 0")
    rate = message.base_learning_rate
    if not (math.isfinite(rate) and rate >= 0):
        raise InvalidValueError(
            "opening.base_learning_rate", f"{rate} is not a finite number of at least 0"
        )
    profile = ProfileReference.parse("opening.profile", message.profile)
    run = RunName.parse("opening.run", message.run) if message.run else None
    if run and run.project != profile.name.project:
        raise InvalidValueError(
            "opening.profile",
            f"{shown(message.profile)} is of another project than the run {shown(message.run)}; "
            "a run uses profiles of its own project",
        )
    return Opening(
        profile=profile,
        run=run,
        layout=layout,
        policy=policy,
        total_steps=message.total_steps,
        observe_only=message.observe_only,
        training=Training(rate, message.optimizer, message.batch_size, message.loss),
    )


def measurement_from(message: advisor_service_pb2.Measurement, opening: Opening) -> Measurement:
    """Return the measurement of a message, defaults for what is absent; the policy checks it.

    Raises:
        InvalidValueError: A value that the policy does not look at is out of its range.
    """
    return _measurement(packed.repacked(message), opening)


def _measurement(message: Any, opening: Opening) -> Measurement:
    """Return the measurement of a packed message."""
    groups = len(opening.layout)
    rates = packed.numbers(message.learning_rates, _FLOAT)
    if len(rates) not in (0, groups):
        raise InvalidValueError(
            "measurement.learning_rates",
            f"{len(rates)} entries, but the layout has {groups} groups",
        )
    good = np.isfinite(rates) & (rates >= 0)
    if np.count_nonzero(good) < len(rates):
        i = int(np.argmin(good))
        raise InvalidValueError(
            f"measurement.learning_rates[{i}]",
            f"{rates[i]} is not a finite number of at least 0",
        )
    if message.HasField("loss") and not math.isfinite(message.loss):
        raise InvalidValueError(
            "measurement.loss", f"{message.loss} is not finite; leave it out instead"
        )
    if not (math.isfinite(message.total_rate) and message.total_rate >= 0):
        raise InvalidValueError(
            "measurement.total_rate", f"{message.total_rate} is not a finite number of at least 0"
        )
    _check_shares(packed.numbers(message.shares, _FLOAT), groups)
    if message.examples < 0:
        raise InvalidValueError("measurement.examples", f"{message.examples} is below 0")
    errors, multipliers = message.relative_errors, message.multipliers
    return Measurement(
        step=message.step,
        unit_rates=packed.numbers(message.unit_rates, _FLOAT),
        relative_errors=packed.numbers(errors, _FLOAT) if errors else np.zeros(groups),
        multipliers=packed.numbers(multipliers, _DOUBLE) if multipliers else np.ones(groups),
        interval_steps=message.interval_steps,
        total_steps=opening.total_steps,
        linearity_error=message.linearity_error if message.HasField("linearity_error") else None,
        probes=message.probes,
        learning_rate=float(rates.max()) if rates.size else None,
        advised=np.frombuffer(message.advised, np.bool_) if message.advised else None,
    )


def _check_shares(shares: npt.NDArray[np.float64], groups: int) -> None:
    if len(shares) not in (0, groups):
        raise InvalidValueError(
            "measurement.shares", f"{len(shares)} entries, but the layout has {groups} groups"
        )
    finite = np.isfinite(shares)
    if np.count_nonzero(finite) < len(shares):
        i = int(np.argmin(finite))
        raise InvalidValueError(f"measurement.shares[{i}]", f"{shares[i]} is not finite")


class Answer(NamedTuple):
    """The answer to a measurement.

    Attributes:
        encoded: A ``RecommendLRResponse``, encoded.
        recommendation: What it says.
    """

    encoded: bytes
    recommendation: Recommendation


def answer(
    advice: Advice, opening: Opening, message: advisor_service_pb2.Measurement
) -> advisor_service_pb2.RecommendLRResponse:
    """Answer a measurement: decode, decide, encode. The same for the RPC and in process.

    Raises:
        InvalidValueError: The measurement is out of range; the field's path begins at
            ``measurement``.
    """
    answered = packed_answer(advice, opening, packed.repacked(message))
    return advisor_service_pb2.RecommendLRResponse.FromString(answered.encoded)


def packed_answer(advice: Advice, opening: Opening, message: Any) -> Answer:
    """Answer a measurement whose arrays are bytes (see :mod:`.packed`).

    Args:
        advice: The run's advice.
        opening: The run's opening.
        message: The measurement.

    Raises:
        InvalidValueError: The measurement is out of range; the field's path begins at
            ``measurement``.
    """
    measurement = _measurement(message, opening)
    try:
        recommendation = advice.recommend(measurement)
    except InvalidValueError as error:
        parent = "opening" if error.field == "total_steps" else "measurement"
        raise error.under(parent) from None
    return Answer(_response(advice, measurement, recommendation), recommendation)


def _response(advice: Advice, measurement: Measurement, recommendation: Recommendation) -> bytes:
    response = packed.Response(
        step=measurement.step,
        profile=advice.version_name,
        digest=advice.info.digest,
        multipliers=recommendation.multipliers.astype(_DOUBLE, copy=False).tobytes(),
        outcomes=_OUTCOME_NUMBERS[recommendation.outcome_codes].tobytes(),
        reference_unit_rates=recommendation.references.astype(_FLOAT).tobytes(),
        next_measurement_step=recommendation.next_measurement_step,
        stale=advice.stale,
        depth_factors=recommendation.depth_factors.astype(_FLOAT).tobytes(),
        raw_multipliers=recommendation.ratios.astype(_DOUBLE, copy=False).tobytes(),
        limits=recommendation.limits.astype(np.uint8).tobytes(),
        probes=recommendation.probes,
        profile_step=recommendation.profile_step,
        policy=advice.policy_name,
        warnings=[
            advisor_service_pb2.Warning(
                kind=_KINDS[found.kind], message=found.message
            ).SerializeToString()
            for found in advice.differences(measurement, recommendation.profile_step)
        ],
    )
    return bytes(response.SerializeToString())


def mapping_to(advice: Advice) -> profile_service_pb2.ValidateLayoutResponse:
    """Return how a layout maps onto a profile."""
    groups, base = advice.layout.groups, advice.base_layout.groups
    factors = advice.first_depth_factors()
    sources: list[list[str]] = [[] for _ in groups]
    for target, source in zip(advice.mapping.targets, advice.mapping.sources, strict=True):
        sources[target].append(base[source].name)
    return profile_service_pb2.ValidateLayoutResponse(
        profile=str(advice.info.reference),
        mappings=[
            profile_service_pb2.GroupMapping(
                group=group.name,
                role=group.role,
                sources=sources[i],
                depth_factor=factors[i],
                match=_MATCHES[advice.mapping.matches[i]],
            )
            for i, group in enumerate(groups)
        ],
        unmatched=[
            group.name
            for group, matched in zip(groups, advice.mapping.matched, strict=True)
            if not matched
        ],
        refusal=str(advice.refusal or ""),
    )
