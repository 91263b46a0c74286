"""Recipes of runs: which table a policy's name stands for.

Recipes that come with the service need no store; :mod:`.recipe_cache` reads stored ones.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Protocol

from advisor.errors import RecipeNotFoundError
from advisor.policy import InvalidValueError
from advisor.recipes import Recipe, shipped_recipe, shipped_recipe_names
from advisor.registry.resource_names import RecipeReference

_MAX_NEAREST = 3


@dataclass(frozen=True, slots=True)
class ResolvedRecipe:
    """What a recipe's name resolves to.

    Attributes:
        name: Its name, with the version if it is stored.
        recipe: The table.
        stale: Whether the name was resolved from the cache because the store is unavailable.
    """

    name: str
    recipe: Recipe
    stale: bool = False


class RecipeSource(Protocol):
    """Where recipes come from."""

    async def resolve(self, reference: RecipeReference) -> ResolvedRecipe:
        """Return the version that a reference names.

        Raises:
            RecipeNotFoundError: There is no such recipe or version.
            StoreUnavailableError: The store is unavailable, and the name was not resolved before.
        """
        ...


def resolve_shipped(reference: RecipeReference) -> ResolvedRecipe:
    """Return a recipe that comes with the service.

    Args:
        reference: Its name.

    Raises:
        InvalidValueError: The reference names a stored recipe.
        RecipeNotFoundError: No recipe with this name comes with the service.
    """
    if reference.project:
        raise InvalidValueError(
            "recipe",
            f"{reference} is stored in a service, which cannot be read here; name a recipe that "
            f"comes with this package: {', '.join(shipped_recipe_names())}",
        )
    name = reference.recipe
    if name not in shipped_recipe_names():
        raise RecipeNotFoundError(name, nearest_shipped(name))
    return ResolvedRecipe(name, shipped_recipe(name))


def nearest_shipped(name: str) -> list[str]:
    """Return the names of shipped recipes that are like a name, the nearest first."""
    return difflib.get_close_matches(name, shipped_recipe_names(), n=_MAX_NEAREST)
