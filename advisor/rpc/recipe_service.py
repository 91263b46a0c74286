"""RecipeService: recipes that policies name, and their factors for a layout."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import grpc

from advisor.advising.recipes import RecipeSource, ResolvedRecipe
from advisor.advising.resolved_profile import ProfileSource
from advisor.advising.run_recipe import RunRecipe
from advisor.policy import DepthRule, InvalidValueError, Layout, UnmatchedRule, map_layout
from advisor.policy.aliases import GroupAlias
from advisor.recipes import Ratio, shipped_recipe, shipped_recipe_names
from advisor.registry.profiles import check_words
from advisor.registry.resource_names import ProfileReference, RecipeReference, parse_project
from advisor.rpc.audit_origin import audit_origin_of
from advisor.rpc.offloading import compute
from advisor.rpc.paging import decode_token, encode_token, page_size
from advisor.rpc.requests import expected_version_of
from advisor.store.deletion import Deletions, check_can_change
from advisor.store.recipes import RecipeStore
from advisor.wire import layout_from_proto, recipe_from_proto
from advisor.wire.field_paths import field_path
from advisor.wire.recipes import (
    factors_to_proto,
    recipe_version_to_proto,
    training_ratios_from_proto,
)
from fslr.advisor.v1 import recipe_service_pb2 as pb
from fslr.advisor.v1 import recipe_service_pb2_grpc

_Context = grpc.aio.ServicerContext[Any, Any]
_CURSOR = re.compile(r"[a-z][a-z0-9-]{0,62}")


class RecipeServicer(recipe_service_pb2_grpc.RecipeServiceServicer):
    """Serves the recipes.

    Args:
        store: Stores the recipes.
        deletions: Deletes them.
        recipes: Resolves recipes to apply.
        profiles: Resolves the profiles that layouts are compared with.
        now: The clock.
    """

    def __init__(
        self,
        store: RecipeStore,
        deletions: Deletions,
        *,
        recipes: RecipeSource,
        profiles: ProfileSource,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._deletions = deletions
        self._recipes = recipes
        self._profiles = profiles
        self._now = now

    async def SetRecipe(
        self, request: pb.SetRecipeRequest, context: _Context
    ) -> pb.SetRecipeResponse:
        """Store a new version of a recipe."""
        reference = RecipeReference.parse("name", request.name)
        check_can_change(reference)
        expected = expected_version_of(request)
        with field_path("recipe"):
            recipe = recipe_from_proto(request.recipe, reference.recipe)
        stored, created = await self._store.set(
            reference,
            recipe,
            audit_origin_of(context, self._now(), request.request_id),
            expected_version=expected,
        )
        return pb.SetRecipeResponse(recipe=recipe_version_to_proto(stored), created=created)

    async def GetRecipe(
        self, request: pb.GetRecipeRequest, context: _Context
    ) -> pb.GetRecipeResponse:
        """Return one version."""
        reference = RecipeReference.parse("name", request.name)
        found = await (self._store.get if reference.project else self._recipes.resolve)(reference)
        return pb.GetRecipeResponse(recipe=recipe_version_to_proto(found))

    async def DeleteRecipe(
        self, request: pb.DeleteRecipeRequest, context: _Context
    ) -> pb.DeleteRecipeResponse:
        """Delete a recipe."""
        await self._deletions.delete_recipe(
            RecipeReference.parse("name", request.name),
            audit_origin_of(context, self._now(), request.request_id),
            expected_version=expected_version_of(request),
        )
        return pb.DeleteRecipeResponse()

    async def ListRecipes(
        self, request: pb.ListRecipesRequest, context: _Context
    ) -> pb.ListRecipesResponse:
        """Return a page of latest versions; the first page has the service's own recipes too."""
        found, after = await self._store.page(
            parse_project("parent", request.parent),
            after=decode_token(request.page_token, _CURSOR),
            size=page_size(request.page_size),
        )
        names = () if request.page_token else shipped_recipe_names()
        return pb.ListRecipesResponse(
            recipes=map(recipe_version_to_proto, found),
            next_page_token=encode_token(after),
            shipped=[
                recipe_version_to_proto(ResolvedRecipe(name, shipped_recipe(name)))
                for name in names
            ],
        )

    async def ApplyRecipe(
        self, request: pb.ApplyRecipeRequest, context: _Context
    ) -> pb.ApplyRecipeResponse:
        """Return the factors of a recipe for a layout."""
        reference = RecipeReference.parse("name", request.name)
        with field_path("training_ratios"):
            given = training_ratios_from_proto(request.training_ratios)
        check_words("optimizer", request.optimizer)
        names = len(request.layout.groups) + len(request.layout.frozen_names)
        with field_path("layout"):
            layout = await compute(names, layout_from_proto, request.layout)
        base, aliases, recorded = await self._base(request, reference)
        resolved = await self._recipes.resolve(reference)
        applied = await compute(
            names + len(base) + len(base.frozen_names),
            _applied,
            resolved,
            layout,
            base,
            aliases=aliases,
            optimizer=request.optimizer or recorded,
            given=given,
        )
        return pb.ApplyRecipeResponse(
            recipe=applied.name,
            factors=factors_to_proto(applied.factors),
            warnings=[difference.message for difference in applied.start_differences()],
        )

    async def _base(
        self, request: pb.ApplyRecipeRequest, recipe: RecipeReference
    ) -> tuple[Layout, tuple[GroupAlias, ...], str]:
        """Return the base's layout, its alias table, and the optimizer it was recorded with."""
        if request.HasField("base_layout") == bool(request.profile):
            raise InvalidValueError("profile", "give either a profile or base_layout")
        if request.profile:
            named = ProfileReference.parse("profile", request.profile)
            recipe.check_project("name", named.name.project)
            loaded = (await self._profiles.resolve(named)).loaded
            aliases = tuple(loaded.profile.aliases)
            return loaded.profile.layout, aliases, loaded.provenance.optimizer
        names = len(request.base_layout.groups) + len(request.base_layout.frozen_names)
        with field_path("base_layout"):
            return await compute(names, layout_from_proto, request.base_layout), (), ""


def _applied(
    resolved: ResolvedRecipe,
    layout: Layout,
    base: Layout,
    *,
    aliases: tuple[GroupAlias, ...],
    optimizer: str,
    given: dict[Ratio, float],
) -> RunRecipe:
    mapping = map_layout(
        layout, base, DepthRule.SUM, aliases=aliases, unmatched_rule=UnmatchedRule.HOLD
    )
    return RunRecipe.of(resolved, layout, base, mapping, optimizer=optimizer, given=given)
