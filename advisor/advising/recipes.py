"""Recipes of runs: which table a policy's name stands for.

Recipes that come with the service need no store. Stored ones are read once a stream; their tables,
which never change, are cached.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Protocol

import structlog
from cachetools import LRUCache

from advisor.errors import NotFoundError, RecipeNotFoundError, StoreUnavailableError
from advisor.policy import InvalidValueError
from advisor.recipes import Recipe, shipped_recipe, shipped_recipe_names
from advisor.registry.recipes import StoredRecipe
from advisor.registry.resource_names import RecipeReference

_MAX_NEAREST = 3

_log = structlog.get_logger()


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


class RecipeReader(Protocol):
    """Reads recipes from the store."""

    async def get(self, reference: RecipeReference) -> StoredRecipe:
        """Return one version; the latest if the reference names none.

        Raises:
            RecipeNotFoundError: There is no such recipe or version.
            StoreUnavailableError: The store does not answer.
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


class CachedRecipes:
    """Resolves names in the store, and caches tables, which never change.

    Args:
        store: The store of recipes.
        size: Maximum number of cached names.
    """

    def __init__(self, store: RecipeReader, *, size: int) -> None:
        self._store = store
        self._known: LRUCache[RecipeReference, ResolvedRecipe] = LRUCache(size)

    async def resolve(self, reference: RecipeReference) -> ResolvedRecipe:
        """Return the version that a reference names; see :class:`RecipeSource`."""
        if not reference.project:
            return resolve_shipped(reference)
        known = self._known.get(reference)
        if known is not None and reference.version:  # versions never change
            return known
        try:
            stored = await self._store.get(reference)
        except StoreUnavailableError:
            if known is None:
                raise
            _log.warning("recipe from cache: store unavailable", recipe=str(reference))
            return ResolvedRecipe(known.name, known.recipe, stale=True)
        except NotFoundError:
            # A deleted recipe must not reappear while the store is unavailable.
            self._known.pop(reference, None)
            raise
        if stored.recipe is None:  # happens only in lists
            raise RecipeNotFoundError(str(reference))
        name = str(stored.reference)
        if known is None or known.name != name:
            # The same object for all runs, so that they share factors.
            known = self._known[reference] = ResolvedRecipe(name, stored.recipe)
        return known
