"""The service's processing of a request in this process, without gRPC and Redis."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import DecodeError

from advisor import wire as convert
from advisor.advising.advice import Advice
from advisor.advising.opening import Opening
from advisor.advising.resolved_profile import LoadedProfile, ResolvedProfile
from advisor.policy import Reference
from advisor.registry.profiles import ProfileContent, VersionInfo
from advisor.registry.resource_names import ProfileName, ProfileReference
from advisor.store.codec import decode, encode
from advisor.wire.errors import DEFECT, error_mapping_of
from fslr.advisor.v1 import (
    advisor_service_pb2,
    policy_service_pb2,
    profile_service_pb2,
)
from tests.building import content_message

_REFERENCE = ProfileReference(ProfileName("a", "b"))
_INFO = VersionInfo(_REFERENCE.name, 1, "0" * 64, datetime(2026, 1, 1, tzinfo=UTC))


def _loaded(content: ProfileContent) -> ResolvedProfile:
    profile = content.profile()
    return ResolvedProfile(
        LoadedProfile(_INFO, profile, Reference(profile), content.header.provenance)
    )


@functools.cache
def _registered() -> ResolvedProfile:
    return _loaded(convert.content_from_proto(content_message()))


def register(request: Any) -> None:
    """Encode and decode a profile's content as for Redis, and answer a run of the same model."""
    content = convert.content_from_proto(request.content)
    again = decode(encode(content))
    convert.version_to_proto(_INFO, again)
    opening = Opening(_REFERENCE, again.header.layout, total_steps=10)
    measurement = advisor_service_pb2.Measurement(unit_rates=[1.0] * len(opening.layout))
    convert.answer(Advice(_loaded(again), opening), opening, measurement)


def recommend(request: Any) -> None:
    """Answer a measurement."""
    opening = convert.opening_from_proto(request.opening)
    convert.answer(Advice(_registered(), opening), opening, request.measurement)


def validate(request: Any) -> None:
    """Map a layout."""
    layout = convert.layout_from_proto(request.layout)
    policy = convert.policy_from_proto(request.policy) if request.HasField("policy") else None
    convert.mapping_to_proto(Advice(_registered(), Opening(_REFERENCE, layout, policy=policy)))


def set_policy(request: Any) -> None:
    """Convert rules from and to protobuf."""
    convert.policy_to_proto(convert.policy_from_proto(request.policy))


TARGETS: dict[type[Any], Callable[[Any], None]] = {
    profile_service_pb2.RegisterProfileRequest: register,
    advisor_service_pb2.RecommendLRRequest: recommend,
    profile_service_pb2.ValidateLayoutRequest: validate,
    policy_service_pb2.SetPolicyRequest: set_policy,
}


def take(request: Any) -> None:
    """Handle a request.

    Raises:
        Exception: The service would report the error as a defect.
    """
    try:
        TARGETS[type(request)](request)
    except Exception as error:
        if error_mapping_of(error) is DEFECT:
            raise


def take_bytes(kind: type[Any], data: bytes) -> None:
    """Parse bytes as a request, and handle it like :func:`take` if they are valid."""
    try:
        request = kind.FromString(data)
    except DecodeError:
        return
    take(request)
