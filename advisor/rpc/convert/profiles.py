"""Profiles: messages to domain objects and back."""

from __future__ import annotations

from datetime import datetime

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from advisor.policy import InvalidValueError
from advisor.profiles import ProfileContent, ProfileHeader, Provenance, VersionInfo
from advisor.rpc.convert.rules import layout_from, layout_to, policy_from, policy_to
from fslr.advisor.v1 import profile_pb2


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
