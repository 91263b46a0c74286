"""Properties that requests have in common: projects, group counts, expected versions."""

from __future__ import annotations

import re
from typing import Any

from advisor.policy import InvalidValueError
from advisor.wire import RecommendLRRequest
from fslr.advisor.v1 import profile_service_pb2

_PROJECT = re.compile(r"projects/([^/]*)")


def names_of(request: Any) -> tuple[str, ...]:
    """Return the resource names in a request; absent ones are empty."""
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
    """Return the projects that a request accesses.

    A name without a project accesses none: every method refuses it.
    """
    found = (_PROJECT.match(name) for name in names_of(request))
    return frozenset(match[1] for match in found if match)


def groups_of(request: Any) -> int:
    """Return the number of groups and frozen names in a request's layout; 0 without a layout."""
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
    """Return the version that a write expects to replace; None if it expects no particular one.

    Raises:
        InvalidValueError: The version is below 0.
    """
    if not request.HasField("expected_version"):
        return None
    expected: int = request.expected_version
    if expected < 0:
        raise InvalidValueError("expected_version", f"{expected} is below 0")
    return expected
