"""Messages to domain objects and back, for all services."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from google.protobuf.timestamp_pb2 import Timestamp

from advisor.advice import Advice, Opening
from advisor.names import ProfileReference, RunName
from advisor.policy import (
    Alignment,
    DepthRule,
    Group,
    InvalidValueError,
    Layout,
    Measurement,
    Outcome,
    Policy,
    Recommendation,
    UnmatchedRule,
    shown,
)
from advisor.profiles import ProfileContent, ProfileHeader, Provenance, VersionInfo
from fslr.advisor.v1 import (
    advisor_service_pb2,
    layout_pb2,
    policy_pb2,
    profile_pb2,
    profile_service_pb2,
)

_DEPTH_RULES = {
    policy_pb2.DEPTH_RULE_UNSPECIFIED: DepthRule.SUM,
    policy_pb2.DEPTH_RULE_SUM: DepthRule.SUM,
    policy_pb2.DEPTH_RULE_SQRT: DepthRule.SQRT,
    policy_pb2.DEPTH_RULE_COPY: DepthRule.COPY,
}
_ALIGNMENTS = {
    policy_pb2.ALIGNMENT_UNSPECIFIED: Alignment.STEP,
    policy_pb2.ALIGNMENT_STEP: Alignment.STEP,
    policy_pb2.ALIGNMENT_PROGRESS: Alignment.PROGRESS,
}
_UNMATCHED_RULES = {
    policy_pb2.UNMATCHED_RULE_UNSPECIFIED: UnmatchedRule.ERROR,
    policy_pb2.UNMATCHED_RULE_ERROR: UnmatchedRule.ERROR,
    policy_pb2.UNMATCHED_RULE_HOLD: UnmatchedRule.HOLD,
}
_OUTCOMES = {
    Outcome.MATCHED: policy_pb2.OUTCOME_MATCHED,
    Outcome.CLAMPED: policy_pb2.OUTCOME_CLAMPED,
    Outcome.HELD_LOW_CONFIDENCE: policy_pb2.OUTCOME_HELD_LOW_CONFIDENCE,
    Outcome.HELD_ZERO_RATE: policy_pb2.OUTCOME_HELD_ZERO_RATE,
    Outcome.UNMATCHED: policy_pb2.OUTCOME_UNMATCHED,
}
_POLICY_NUMBERS = (
    "min_multiplier",
    "max_multiplier",
    "max_relative_error",
    "min_interval_steps",
    "max_interval_steps",
)

_Rule = TypeVar("_Rule")


def _rule(field: str, table: Mapping[Any, _Rule], value: int) -> _Rule:
    try:
        return table[value]
    except KeyError:
        raise InvalidValueError(field, f"{value} is not a known value") from None


def _number_of(table: Mapping[Any, _Rule], rule: _Rule) -> Any:
    """Return the specified enum number of a rule (0 means the same as one of the others)."""
    return next(number for number, value in table.items() if number and value is rule)


def policy_from(message: policy_pb2.Policy) -> Policy:
    """Return the policy of a message, defaults for what is absent.

    Raises:
        InvalidValueError: A rule is out of its range.
    """
    given = {field: getattr(message, field) for field in _POLICY_NUMBERS if message.HasField(field)}  # type: ignore[arg-type]
    defaults = Policy()
    if "min_interval_steps" in given and "max_interval_steps" not in given:
        given["max_interval_steps"] = max(defaults.max_interval_steps, given["min_interval_steps"])
    if "max_interval_steps" in given and "min_interval_steps" not in given:
        given["min_interval_steps"] = min(defaults.min_interval_steps, given["max_interval_steps"])
    return Policy(
        depth_rule=_rule("depth_rule", _DEPTH_RULES, message.depth_rule),
        alignment=_rule("alignment", _ALIGNMENTS, message.alignment),
        unmatched_rule=_rule("unmatched_rule", _UNMATCHED_RULES, message.unmatched_rule),
        **given,
    )


def policy_to(policy: Policy) -> policy_pb2.Policy:
    """Return the message of a policy, every field given."""
    return policy_pb2.Policy(
        depth_rule=_number_of(_DEPTH_RULES, policy.depth_rule),
        alignment=_number_of(_ALIGNMENTS, policy.alignment),
        unmatched_rule=_number_of(_UNMATCHED_RULES, policy.unmatched_rule),
        **{field: getattr(policy, field) for field in _POLICY_NUMBERS},
    )


def layout_from(message: layout_pb2.Layout) -> Layout:
    """Return the layout of a message, roles derived where they are not given.

    Raises:
        InvalidValueError: It is no layout.
    """
    return Layout.of(
        Group(
            name=group.name,
            role=group.role,
            depth_index=group.depth_index,
            depth_count=group.depth_count,
            parameter_count=group.parameter_count,
        )
        for group in message.groups
    )


def layout_to(layout: Layout) -> layout_pb2.Layout:
    """Return the message of a layout."""
    return layout_pb2.Layout(
        groups=[
            layout_pb2.Group(
                name=group.name,
                role=group.role,
                depth_index=group.depth_index,
                depth_count=group.depth_count,
                parameter_count=group.parameter_count,
            )
            for group in layout.groups
        ]
    )


def content_from(message: profile_pb2.ProfileContent) -> ProfileContent:
    """Return the profile content of a message.

    Raises:
        InvalidValueError: A value is out of its range; the field's path begins below ``content``.
    """
    try:
        layout = layout_from(message.layout)
    except InvalidValueError as error:
        raise error.under("layout") from None
    try:
        policy = policy_from(message.policy)
    except InvalidValueError as error:
        raise error.under("policy") from None
    groups = len(layout)
    for i, point in enumerate(message.points):
        if len(point.unit_rates) != groups:
            raise InvalidValueError(
                f"points[{i}].unit_rates",
                f"{len(point.unit_rates)} entries, but the layout has {groups} groups",
            )
        if point.relative_errors and len(point.relative_errors) != groups:
            raise InvalidValueError(
                f"points[{i}].relative_errors",
                f"{len(point.relative_errors)} entries, but the layout has {groups} groups",
            )
    points = len(message.points)
    rates = np.array([p.unit_rates for p in message.points], dtype=np.float32)
    errors = np.array(
        [p.relative_errors or np.zeros(groups) for p in message.points], dtype=np.float32
    )
    last_step = message.points[-1].step if points else 0
    provenance = message.provenance
    content = ProfileContent(
        ProfileHeader(
            layout=layout,
            base_learning_rate=message.base_learning_rate,
            total_steps=message.total_steps or last_step + 1,
            policy=policy,
            provenance=Provenance(
                model=provenance.model,
                optimizer=provenance.optimizer,
                batch_size=provenance.batch_size,
                dataset=provenance.dataset,
                commit=provenance.commit,
                author=provenance.author,
            ),
            labels=dict(message.labels),
            docs=message.docs,
        ),
        np.array([p.step for p in message.points], dtype=np.int64),
        rates.reshape(points, groups),
        errors.reshape(points, groups),
    )
    content.profile()
    return content


def _header_to(header: ProfileHeader) -> profile_pb2.ProfileContent:
    provenance = header.provenance
    return profile_pb2.ProfileContent(
        layout=layout_to(header.layout),
        base_learning_rate=header.base_learning_rate,
        total_steps=header.total_steps,
        policy=policy_to(header.policy),
        provenance=profile_pb2.Provenance(
            model=provenance.model,
            optimizer=provenance.optimizer,
            batch_size=provenance.batch_size,
            dataset=provenance.dataset,
            commit=provenance.commit,
            author=provenance.author,
        ),
        labels=dict(header.labels),
        docs=header.docs,
    )


def content_to(content: ProfileContent) -> profile_pb2.ProfileContent:
    """Return the message of a profile's content."""
    message = _header_to(content.header)
    for step, rates, errors in zip(
        content.steps, content.unit_rates, content.relative_errors, strict=True
    ):
        known = errors if errors.any() else None
        message.points.add(step=int(step), unit_rates=rates, relative_errors=known)
    return message


def version_to(info: VersionInfo, content: ProfileContent | ProfileHeader) -> profile_pb2.Profile:
    """Return the message of a version, with its points if the whole content is given."""
    message = content_to(content) if isinstance(content, ProfileContent) else _header_to(content)
    return profile_pb2.Profile(
        name=str(info.reference),
        version=info.version,
        digest=info.digest,
        create_time=timestamp(info.create_time),
        aliases=info.aliases,
        content=message,
    )


def timestamp(time: datetime) -> Timestamp:
    """Return the message of a time."""
    message = Timestamp()
    message.FromDatetime(time)
    return message


def opening_from(message: advisor_service_pb2.RunOpening) -> Opening:
    """Return the opening of a message.

    Raises:
        InvalidValueError: A value is out of its range; the field's path begins at ``opening``.
    """
    try:
        layout = layout_from(message.layout)
    except InvalidValueError as error:
        raise error.under("opening.layout") from None
    try:
        policy = policy_from(message.policy) if message.HasField("policy") else None
    except InvalidValueError as error:
        raise error.under("opening.policy") from None
    if message.total_steps < 0:
        raise InvalidValueError("opening.total_steps", f"{message.total_steps} is below 0")
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
    )


def measurement_from(message: advisor_service_pb2.Measurement, opening: Opening) -> Measurement:
    """Return the measurement of a message, defaults for what is absent; the policy checks it.

    Raises:
        InvalidValueError: A value that the policy does not look at is out of its range.
    """
    groups = len(opening.layout)
    rates = np.array(message.learning_rates, dtype=np.float64)
    if len(rates) not in (0, groups):
        raise InvalidValueError(
            "measurement.learning_rates",
            f"{len(rates)} entries, but the layout has {groups} groups",
        )
    if not (np.isfinite(rates) & (rates >= 0)).all():
        i = int(np.argmin(np.isfinite(rates) & (rates >= 0)))
        raise InvalidValueError(
            f"measurement.learning_rates[{i}]",
            f"{rates[i]} is not a finite number of at least 0",
        )
    if message.HasField("loss") and not np.isfinite(message.loss):
        raise InvalidValueError(
            "measurement.loss", f"{message.loss} is not finite; leave it out instead"
        )
    for field in ("total_rate", "linearity_error"):
        value = getattr(message, field)
        if not (np.isfinite(value) and value >= 0):
            raise InvalidValueError(
                f"measurement.{field}", f"{value} is not a finite number of at least 0"
            )
    _check_shares(np.array(message.shares, dtype=np.float64), groups)
    for field in ("probes", "examples"):
        if getattr(message, field) < 0:
            raise InvalidValueError(f"measurement.{field}", f"{getattr(message, field)} is below 0")
    return Measurement(
        step=message.step,
        unit_rates=np.array(message.unit_rates, dtype=np.float64),
        relative_errors=np.array(message.relative_errors or np.zeros(groups), dtype=np.float64),
        multipliers=np.array(message.multipliers or np.ones(groups), dtype=np.float64),
        interval_steps=message.interval_steps,
        total_steps=opening.total_steps,
    )


def _check_shares(shares: npt.NDArray[np.float64], groups: int) -> None:
    if len(shares) not in (0, groups):
        raise InvalidValueError(
            "measurement.shares", f"{len(shares)} entries, but the layout has {groups} groups"
        )
    if not np.isfinite(shares).all():
        i = int(np.argmin(np.isfinite(shares)))
        raise InvalidValueError(f"measurement.shares[{i}]", f"{shares[i]} is not finite")


def answer(
    advice: Advice, opening: Opening, message: advisor_service_pb2.Measurement
) -> advisor_service_pb2.RecommendLRResponse:
    """Answer a measurement: decode, decide, encode. The same for the RPC and in process.

    Raises:
        InvalidValueError: The measurement is out of range; the field's path begins at
            ``measurement``.
    """
    measurement = measurement_from(message, opening)
    try:
        recommendation = advice.recommend(measurement)
    except InvalidValueError as error:
        parent = "opening" if error.field == "total_steps" else "measurement"
        raise error.under(parent) from None
    return _response(advice, measurement, recommendation)


def _response(
    advice: Advice, measurement: Measurement, recommendation: Recommendation
) -> advisor_service_pb2.RecommendLRResponse:
    return advisor_service_pb2.RecommendLRResponse(
        step=measurement.step,
        profile=str(advice.info.reference),
        digest=advice.info.digest,
        multipliers=recommendation.multipliers,
        outcomes=[_OUTCOMES[outcome] for outcome in recommendation.outcomes],
        reference_unit_rates=recommendation.references,
        next_measurement_step=recommendation.next_measurement_step,
        stale=advice.stale,
    )


def mapping_to(advice: Advice) -> profile_service_pb2.ValidateLayoutResponse:
    """Return how a layout maps onto a profile."""
    groups, base = advice.layout.groups, advice.base_layout.groups
    factors = advice.mapping.depth_factors()
    sources: list[list[str]] = [[] for _ in groups]
    for target, source in zip(advice.mapping.targets, advice.mapping.sources, strict=True):
        sources[target].append(base[source].name)
    return profile_service_pb2.ValidateLayoutResponse(
        profile=str(advice.info.reference),
        mappings=[
            profile_service_pb2.GroupMapping(
                group=group.name, role=group.role, sources=sources[i], depth_factor=factors[i]
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
