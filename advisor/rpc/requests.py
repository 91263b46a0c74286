"""Properties that requests have in common: projects, group counts, expected versions."""

from __future__ import annotations

import re
from typing import Any

from advisor.advising.recipes import RecipeSource
from advisor.policy import InvalidValueError
from advisor.registry.resource_names import RecipeReference
from advisor.wire import RecommendLRRequest
from fslr.advisor.v1 import layout_pb2, profile_service_pb2, recipe_service_pb2

_PROJECT = re.compile(r"projects/([^/]*)")


def names_of(request: Any) -> tuple[str, ...]:
    """Return the resource names in a request; absent ones are empty."""
    match request:
        case RecommendLRRequest():
            if request.opening is None:
                return ()
            return request.opening.profile, request.opening.run, request.opening.recipe
        case profile_service_pb2.ValidateLayoutRequest():
            return request.name, request.recipe
        case profile_service_pb2.RegisterProfileRequest():
            return request.name, request.content.policy_name
        case recipe_service_pb2.ApplyRecipeRequest():
            return request.name, request.profile
        case _:
            return getattr(request, "name", ""), getattr(request, "parent", "")


def projects_of(request: Any) -> frozenset[str]:
    """Return the projects that a request accesses.

    A name without a project accesses none: every method refuses it.
    """
    found = (_PROJECT.match(name) for name in names_of(request))
    return frozenset(match[1] for match in found if match)


def groups_of(request: Any) -> int:
    """Return the number of groups and frozen names in a request's layout; 0 without a layout.

    Of two layouts the larger one counts.
    """
    match request:
        case RecommendLRRequest():
            if request.opening is None:
                return 0
            layout = request.opening.layout
        case profile_service_pb2.RegisterProfileRequest():
            layout = request.content.layout
        case profile_service_pb2.ValidateLayoutRequest():
            layout = request.layout
        case recipe_service_pb2.ApplyRecipeRequest():
            return max(map(_names_in, (request.layout, request.base_layout)))
        case _:
            return 0
    return _names_in(layout)


def _names_in(layout: layout_pb2.Layout) -> int:
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


async def check_recipe(recipes: RecipeSource, name: str, project: str) -> None:
    """Refuse rules with a recipe that their project does not have.

    Args:
        recipes: Resolves recipes.
        name: The recipe's name in the rules; empty: none.
        project: The project that stores the rules.

    Raises:
        InvalidValueError: The name is not valid, or belongs to a different project.
        RecipeNotFoundError: There is no such recipe or version.
    """
    if name:
        reference = RecipeReference.parse("recipe", name)
        reference.check_project("recipe", project)
        await recipes.resolve(reference)
