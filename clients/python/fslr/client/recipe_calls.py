"""Calls about recipes."""

from __future__ import annotations

from collections.abc import Iterator

from fslr.advisor.v1 import (
    layout_pb2,
    recipe_pb2,
    recipe_service_pb2,
    recipe_service_pb2_grpc,
)
from fslr.client.channel import Connection
from fslr.client.pagination import pages_by_token
from fslr.client.request_ids import new_request_id
from fslr.resource_names import DEFAULT_PROJECT, profile_name, project_name, recipe_name


class RecipeCalls(Connection):
    """The calls of :class:`.AdvisorClient` about recipes.

    A recipe that comes with the service is given by its name, such as ``depth-mup``. A stored one
    is given as ``projects/nlp/recipes/ours``, or as ``ours`` where only stored ones are meant.
    """

    @property
    def _recipes(self) -> recipe_service_pb2_grpc.RecipeServiceStub:
        return recipe_service_pb2_grpc.RecipeServiceStub(self.channel())

    def set_recipe(
        self,
        recipe: str,
        table: recipe_pb2.Recipe,
        *,
        expected_version: int | None = None,
        project: str = DEFAULT_PROJECT,
        request_id: str = "",
    ) -> recipe_service_pb2.SetRecipeResponse:
        """Store a recipe as a new version; an unchanged table keeps the latest version.

        Args:
            recipe: The recipe, such as ``ours``.
            table: The table.
            expected_version: The latest version that the recipe must have now; 0: the recipe must
                not exist; None: not checked.
            project: The project.
            request_id: As in :meth:`.ProfileCalls.register_profile`.
        """
        request = recipe_service_pb2.SetRecipeRequest(
            name=recipe_name(recipe, project),
            recipe=table,
            expected_version=expected_version,
            request_id=request_id or new_request_id(),
        )
        return self._call(self._recipes.SetRecipe, request)

    def get_recipe(
        self, recipe: str, *, project: str = DEFAULT_PROJECT
    ) -> recipe_service_pb2.RecipeVersion:
        """Return a stored recipe's latest version, or the one in its suffix, such as ``ours@2``."""
        return self._recipe(recipe_name(recipe, project))

    def get_shipped_recipe(self, recipe: str) -> recipe_service_pb2.RecipeVersion:
        """Return a recipe that comes with the service, such as ``depth-mup``."""
        return self._recipe(recipe)

    def _recipe(self, name: str) -> recipe_service_pb2.RecipeVersion:
        request = recipe_service_pb2.GetRecipeRequest(name=name)
        return self._call(self._recipes.GetRecipe, request).recipe

    def delete_recipe(
        self,
        recipe: str,
        *,
        expected_version: int | None = None,
        project: str = DEFAULT_PROJECT,
        request_id: str = "",
    ) -> None:
        """Delete a recipe with all its versions; no stored policy or profile may name it.

        Args:
            recipe: The recipe, without a version.
            expected_version: The latest version that the recipe must have now; None: not checked.
            project: The project.
            request_id: As in :meth:`.ProfileCalls.register_profile`.
        """
        request = recipe_service_pb2.DeleteRecipeRequest(
            name=recipe_name(recipe, project),
            expected_version=expected_version,
            request_id=request_id or new_request_id(),
        )
        self._call(self._recipes.DeleteRecipe, request)

    def list_recipes(
        self, *, project: str = DEFAULT_PROJECT
    ) -> Iterator[recipe_service_pb2.RecipeVersion]:
        """Iterate over the recipes that come with the service, and those that a project stores.

        Stored ones have a version above 0; of each only the latest version is listed.
        """
        request = recipe_service_pb2.ListRecipesRequest(parent=project_name(project))
        for page in pages_by_token(lambda r: self._call(self._recipes.ListRecipes, r), request):
            yield from page.shipped
            yield from page.recipes

    def apply_recipe(
        self,
        recipe: str,
        layout: layout_pb2.Layout,
        base: str | layout_pb2.Layout,
        *,
        optimizer: str = "",
        ratios: recipe_pb2.TrainingRatios | None = None,
        project: str = DEFAULT_PROJECT,
    ) -> recipe_service_pb2.ApplyRecipeResponse:
        """Return the factors of a recipe for a layout, before any training.

        Args:
            recipe: A recipe that comes with the service, or the resource name of a stored one.
            layout: The run's layout.
            base: The base: a profile, or a layout.
            optimizer: Name of the run's optimizer; empty: the profile's.
            ratios: How much larger the run is in what layouts do not show; None: not at all.
            project: The project of the profile.
        """
        request = recipe_service_pb2.ApplyRecipeRequest(
            name=recipe, layout=layout, optimizer=optimizer, training_ratios=ratios
        )
        if isinstance(base, str):
            request.profile = profile_name(base, project)
        else:
            request.base_layout.CopyFrom(base)
        return self._call(self._recipes.ApplyRecipe, request)
