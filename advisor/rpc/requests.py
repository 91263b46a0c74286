"""What requests have in common: projects, groups, versions that must be as the caller last saw."""

from __future__ import annotations

import re
from typing import Any

from advisor.policy import InvalidValueError
from advisor.wire import RecommendLRRequest
from fslr.advisor.v1 import profile_service_pb2

_PROJECT = re.compile(r"projects/([^/]*)")


def names_of(request: Any) -> tuple[str, ...]:
    """Return the resource names that a request gives; those that it leaves out are empty."""
    match request:
        case RecommendLRRequest():
            if request.opening is None:
                return ()
            return request.opening.profile, request.opening.run
        case profile_service_pb2.RegisterProfileRequest():
            return request.name, request.content.policy_name
        case _:
            return getattr(request, "name", ""), getattr(request, "parent", "")


def projects_of(request: Any) -> frozenset[str]:
    """Return the projects that a request enters.

    A name that begins otherwise enters none: every method refuses it.
    """
    found = (_PROJECT.match(name) for name in names_of(request))
    return frozenset(match[1] for match in found if match)


def groups_of(request: Any) -> int:
    """Return the number of groups in the layout that a request brings, frozen ones too."""
    match request:
        case RecommendLRRequest():
            if request.opening is None:
                return 0
            layout = request.opening.layout
        case profile_service_pb2.RegisterProfileRequest():
            layout = request.content.layout
        case profile_service_pb2.ValidateLayoutRequest():
            layout = request.layout
        case _:
            return 0
    return len(layout.groups) + len(layout.frozen_names)


def expected_version_of(request: Any) -> int | None:
    """Return the version that must be there for a write to be made; None: whichever is there.

    Raises:
        InvalidValueError: It is below 0.
    """
    if not request.HasField("expected_version"):
        return None
    expected: int = request.expected_version
    if expected < 0:
        raise InvalidValueError("expected_version", f"{expected} is below 0")
    return expected
