"""A cache of stored recipes: those resolved before keep serving while the store is unavailable."""

from __future__ import annotations

from typing import Protocol

import structlog
from cachetools import LRUCache

from advisor.advising.recipes import ResolvedRecipe, resolve_shipped
from advisor.errors import NotFoundError, RecipeNotFoundError, StoreUnavailableError
from advisor.registry.recipes import StoredRecipe
from advisor.registry.resource_names import RecipeReference

_log = structlog.get_logger()


class RecipeReader(Protocol):
    """Reads recipes from the store."""

    async def get(self, reference: RecipeReference) -> StoredRecipe:
        """Return one version; the latest if the reference names none.

        Raises:
            RecipeNotFoundError: There is no such recipe or version.
            StoreUnavailableError: The store does not answer.
        """
        ...


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
        if known is None or (known.name, known.recipe) != (name, stored.recipe):
            # The same object for all runs, so that they share factors. A Redis that lost writes may
            # have given the number of a lost version to another table.
            known = self._known[reference] = ResolvedRecipe(name, stored.recipe)
        return known
