"""Profiles: messages to domain objects and back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from advisor.policy import GroupAlias, InvalidValueError, Layout, Policy, role_coherences
from advisor.policy.counts import count_of
from advisor.registry.profiles import (
    ProfileContent,
    ProfileHeader,
    ProfileSummary,
    Provenance,
    VersionInfo,
)
from advisor.registry.resource_names import PolicyReference
from advisor.wire.field_paths import field_path
from advisor.wire.layouts import layout_from_proto, layout_to_proto
from advisor.wire.policies import policy_from_proto, policy_to_proto
from fslr.advisor.v1 import profile_pb2

_Points = Sequence[profile_pb2.ProfilePoint]
_Row = Sequence[float] | NDArray[np.float64]
_PROVENANCE_FIELDS = (
    *("model", "optimizer", "batch_size", "dataset", "commit", "author"),
    *("width", "depth", "method", "loss_name", "recordings"),
)


def content_from_proto(message: profile_pb2.ProfileContent) -> ProfileContent:
    """Return the profile content of a message.

    Raises:
        InvalidValueError: A value is out of its range; the field's path begins below ``content``.
    """
    with field_path("layout"):
        layout = layout_from_proto(message.layout)
    with field_path("policy"):
        policy = policy_from_proto(message.policy)
    points = message.points
    _check_lengths(points, len(layout))
    _check_optional_fields(points, len(layout.roles))
    no_errors = np.zeros(len(layout))
    unit_rates = _rows([point.unit_rates for point in points], len(layout))
    content = ProfileContent(
        _header_from(message, layout, policy),
        np.array([point.step for point in points], dtype=np.int64),
        unit_rates,
        _rows([point.relative_errors or no_errors for point in points], len(layout)),
        coherences=_coherences(message, layout, unit_rates),
        spreads=_spreads(points),
        weight_rms=_optional_rows(points, "weight_rms"),
        update_rms=_optional_rows(points, "update_rms"),
        learning_rates=_learning_rates(points),
    )
    content.profile()  # checks the ranges of what recommendations need
    return content


def _header_from(
    message: profile_pb2.ProfileContent, layout: Layout, policy: Policy
) -> ProfileHeader:
    last_step = message.points[-1].step if message.points else 0
    return ProfileHeader(
        layout=layout,
        base_learning_rate=message.base_learning_rate,
        total_steps=message.total_steps or last_step + 1,
        policy=policy,
        provenance=_provenance_from(message.provenance),
        labels=dict(message.labels),
        docs=message.docs,
        policy_name=_policy_name(message),
        aliases=tuple(GroupAlias(a.pattern, a.target) for a in message.group_aliases),
        excludes_weight_decay=message.excludes_weight_decay,
        mask=message.mask,
    )


def _policy_name(message: profile_pb2.ProfileContent) -> str:
    if not message.policy_name:
        return ""
    if message.HasField("policy"):
        raise InvalidValueError(
            "policy_name", "given together with policy; give the rules or a policy's name, not both"
        )
    return str(PolicyReference.parse("policy_name", message.policy_name))


def _rows(rows: Sequence[_Row], groups: int) -> NDArray[np.float32]:
    """Return one row of numbers for each point, shape [points, groups]."""
    array = np.array(rows, dtype=np.float32).reshape(len(rows), groups)
    # -0 becomes 0: the two are equal, but their bytes, and so the profile's digest, are not.
    return array + np.float32(0)


def _spreads(points: _Points) -> NDArray[np.float32] | None:
    if not points or not points[0].spreads:
        return None
    return np.array([point.spreads for point in points], dtype=np.float32)


def _optional_rows(points: _Points, field: str) -> NDArray[np.float32] | None:
    """Return an optional array of numbers for each group, shape [points, groups], or None."""
    if not points or not getattr(points[0], field):
        return None
    rows = [getattr(point, field) for point in points]
    return _rows(rows, len(rows[0]))


def _learning_rates(points: _Points) -> NDArray[np.float64] | None:
    if not points or not points[0].HasField("learning_rate"):
        return None
    return np.array([point.learning_rate for point in points], dtype=np.float64)


def _coherences(
    message: profile_pb2.ProfileContent, layout: Layout, unit_rates: NDArray[np.float32]
) -> NDArray[np.float32] | None:
    """Return the given coherences, or those that follow from the given correlations."""
    pairs = [(pair.first, pair.second) for pair in message.correlated_groups]
    _check_correlations(message.points, len(pairs))
    if pairs:
        correlations = np.array([p.correlations for p in message.points], dtype=np.float32)
        return role_coherences(
            layout, pairs, correlations.reshape(len(message.points), len(pairs)), unit_rates
        )
    if message.points and message.points[0].coherences:
        return np.array([p.coherences for p in message.points], dtype=np.float32)
    return None


def _check_lengths(points: _Points, groups: int) -> None:
    for i, point in enumerate(points):
        for field, entries in (
            ("unit_rates", len(point.unit_rates)),
            ("relative_errors", len(point.relative_errors) or groups),
        ):
            if entries != groups:
                raise InvalidValueError(
                    f"points[{i}].{field}",
                    f"{count_of(entries, 'entry')}, but the layout has {count_of(groups, 'group')}",
                )


def _check_correlations(points: _Points, pairs: int) -> None:
    for i, point in enumerate(points):
        if len(point.correlations) != pairs:
            raise InvalidValueError(
                f"points[{i}].correlations",
                f"{count_of(len(point.correlations), 'entry')}, but there are {pairs} "
                "correlated_groups; give one for each pair in every point",
            )
        if pairs and point.coherences:
            raise InvalidValueError(
                f"points[{i}].coherences",
                "given together with correlations, which determine them; give one of the two",
            )


def _check_optional_fields(points: _Points, roles: int) -> None:
    """Refuse fields that are present in some points and absent in others."""
    if not points:
        return
    first = points[0]
    coherences = roles if first.coherences else 0
    spreads = len(first.unit_rates) if first.spreads else 0
    for i, point in enumerate(points):
        if len(point.coherences) != coherences:
            raise InvalidValueError(
                f"points[{i}].coherences",
                f"{count_of(len(point.coherences), 'entry')}, but the layout has "
                f"{count_of(roles, 'role')}; give one for each role in every point, or none at all",
            )
        if len(point.spreads) != spreads:
            raise InvalidValueError(
                f"points[{i}].spreads",
                f"{count_of(len(point.spreads), 'entry')}; give one for each group in every point, "
                "or none",
            )
        for field in ("weight_rms", "update_rms"):
            entries = len(getattr(point, field))
            if entries != (len(first.unit_rates) if getattr(first, field) else 0):
                raise InvalidValueError(
                    f"points[{i}].{field}",
                    f"{count_of(entries, 'entry')}; give one for each group in every point, or "
                    "none",
                )
        if point.HasField("learning_rate") != first.HasField("learning_rate"):
            raise InvalidValueError(
                f"points[{i}].learning_rate",
                "given in some points and not in others; give it in every point, or in none",
            )


def _provenance_from(message: profile_pb2.Provenance) -> Provenance:
    record_time = None
    if message.HasField("record_time"):
        try:
            record_time = message.record_time.ToDatetime(UTC)
        except (ValueError, OverflowError):
            raise InvalidValueError(
                "provenance.record_time", "not a time in the years 1 to 9999"
            ) from None
    return Provenance(
        **{name: getattr(message, name) for name in _PROVENANCE_FIELDS}, record_time=record_time
    )


def _provenance_to(provenance: Provenance) -> profile_pb2.Provenance:
    message = profile_pb2.Provenance(**{
        name: getattr(provenance, name) for name in _PROVENANCE_FIELDS
    })
    if provenance.record_time is not None:
        message.record_time.FromDatetime(provenance.record_time)
    return message


def _header_to(header: ProfileHeader) -> profile_pb2.ProfileContent:
    return profile_pb2.ProfileContent(
        layout=layout_to_proto(header.layout),
        base_learning_rate=header.base_learning_rate,
        total_steps=header.total_steps,
        policy=None if header.policy_name else policy_to_proto(header.policy),
        provenance=_provenance_to(header.provenance),
        labels=dict(header.labels),
        docs=header.docs,
        policy_name=header.policy_name,
        excludes_weight_decay=header.excludes_weight_decay,
        mask=header.mask,
        group_aliases=[
            profile_pb2.GroupAlias(pattern=a.pattern, target=a.target) for a in header.aliases
        ],
    )


def content_to_proto(content: ProfileContent) -> profile_pb2.ProfileContent:
    """Return the message of a profile's content."""
    message = _header_to(content.header)
    for i, (step, rates, errors) in enumerate(
        zip(content.steps, content.unit_rates, content.relative_errors, strict=True)
    ):
        message.points.add(
            step=int(step),
            unit_rates=rates.tolist(),  # protobuf takes ten times as long for an array
            relative_errors=errors.tolist() if errors.any() else None,
            coherences=_row(content.coherences, i),
            spreads=_row(content.spreads, i),
            weight_rms=_row(content.weight_rms, i),
            update_rms=_row(content.update_rms, i),
            learning_rate=None if content.learning_rates is None else content.learning_rates[i],
        )
    return message


def _row(rows: NDArray[np.float32] | None, point: int) -> list[float] | None:
    return None if rows is None else rows[point].tolist()


def version_to_proto(
    info: VersionInfo,
    content: ProfileContent | ProfileHeader | None,
    warnings: Sequence[str] = (),
) -> profile_pb2.Profile:
    """Return the message of a version.

    Args:
        info: The version.
        content: Its content; only its header, for a message without points; or None, for one
            without content.
        warnings: What is doubtful about the recording.
    """
    message = None
    if isinstance(content, ProfileContent):
        message = content_to_proto(content)
    elif isinstance(content, ProfileHeader):
        message = _header_to(content)
    return profile_pb2.Profile(
        name=str(info.reference),
        version=info.version,
        digest=info.digest,
        create_time=timestamp_to_proto(info.create_time),
        aliases=info.aliases,
        content=message,
        group_count=0 if message is None else len(message.layout.groups),
        warnings=warnings,
    )


def summary_to_proto(info: VersionInfo, summary: ProfileSummary | None) -> profile_pb2.Profile:
    """Return the message of a version without layout and points; without content if None."""
    if summary is None:
        message = version_to_proto(info, None)
    else:
        message = version_to_proto(info, summary.header)
        message.content.ClearField("layout")
        message.group_count = summary.group_count
    return message


def timestamp_to_proto(time: datetime) -> Timestamp:
    """Return the message of a time."""
    message = Timestamp()
    message.FromDatetime(time)
    return message
