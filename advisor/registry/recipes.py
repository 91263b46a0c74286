"""A stored version of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from advisor.recipes import Recipe
from advisor.registry.resource_names import RecipeReference


@dataclass(frozen=True, slots=True)
class StoredRecipe:
    """One version of a recipe.

    Attributes:
        reference: Its name, version included.
        recipe: The table; None, only in lists: it cannot be read.
        create_time: When it was stored, UTC.
    """

    reference: RecipeReference
    recipe: Recipe | None
    create_time: datetime
