"""Recipes in Redis: immutable versions; the latest one applies unless a version is named."""

from __future__ import annotations

import json

import structlog
from redis.asyncio import Redis

from advisor.errors import RecipeMovedError, RecipeNotFoundError, StoreDamagedError
from advisor.recipes import Recipe, recipe_from_fields, recipe_to_fields, shipped_recipe_names
from advisor.registry.audit import AuditOrigin
from advisor.registry.recipes import StoredRecipe
from advisor.registry.resource_names import RecipeReference
from advisor.store.codec import canonical
from advisor.store.numbered_versions import (
    RECIPES,
    MissingVersionError,
    MovedVersionError,
    NumberedVersions,
)

_log = structlog.get_logger()


class RecipeStore:
    """Reads and writes recipes.

    Args:
        redis: The client. It may retry writes, because each has a request id.

    Raises:
        StoreUnavailableError: From every method, if Redis does not answer.
    """

    def __init__(self, redis: Redis) -> None:
        self._versions = NumberedVersions(redis, RECIPES)

    async def set(
        self,
        reference: RecipeReference,
        recipe: Recipe,
        origin: AuditOrigin,
        *,
        expected_version: int | None = None,
    ) -> tuple[StoredRecipe, bool]:
        """Store a new version, unless the latest version has the same table.

        Args:
            reference: The recipe, without a version.
            recipe: The table.
            origin: Where the write comes from.
            expected_version: The latest version must be this one; 0: none exists; None: any.

        Returns:
            The latest version, and whether this request created it.

        Raises:
            RecipeMovedError: The latest version is not the expected one.
        """
        try:
            stored, created = await self._versions.set(
                reference.project,
                reference.recipe,
                canonical(recipe_to_fields(recipe)),
                origin,
                expected_version=expected_version,
            )
        except MovedVersionError as error:
            raise RecipeMovedError(str(reference), expected_version or 0, error.latest) from None
        named = RecipeReference(reference.project, reference.recipe, stored.version)
        return StoredRecipe(named, recipe, stored.create_time), created

    async def get(self, reference: RecipeReference) -> StoredRecipe:
        """Read one version.

        Raises:
            RecipeNotFoundError: The recipe or this version of it does not exist.
            StoreDamagedError: The stored table cannot be read.
        """
        project = reference.project
        try:
            stored = await self._versions.get(project, reference.recipe, reference.version)
        except MissingVersionError as error:
            near = [str(RecipeReference(project, name)) for name in error.nearest]
            if reference.recipe in shipped_recipe_names() and not error.latest:
                near.insert(0, reference.recipe)
            raise RecipeNotFoundError(str(reference), near, error.latest) from None
        named = RecipeReference(project, reference.recipe, stored.version)
        recipe = _decoded(named, stored.content)
        if recipe is None:
            raise StoreDamagedError(f"the table of {named} cannot be read")
        return StoredRecipe(named, recipe, stored.create_time)

    async def page(self, project: str, *, after: str, size: int) -> tuple[list[StoredRecipe], str]:
        """Return a page of latest versions by name, and the last name if there are more."""
        listed, last = await self._versions.page(project, after=after, size=size)
        found = []
        for stored in listed:
            named = RecipeReference(project, stored.id, stored.version)
            found.append(StoredRecipe(named, _decoded(named, stored.content), stored.create_time))
        return found, last


def _decoded(reference: RecipeReference, table: bytes) -> Recipe | None:
    """Return the recipe with a stored table; log the error and return None if it is damaged."""
    try:
        return recipe_from_fields(json.loads(table))
    except (ValueError, TypeError, KeyError):
        _log.exception("a stored recipe cannot be read", recipe=str(reference))
        return None
