"""The shipped recipes: one YAML file each, named like the recipe.

``tables.json`` has all of them, so that a training process needs no PyYAML;
``python -m advisor.recipes.shipped`` writes it from the YAML files.
"""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib import resources
from typing import Any

from advisor.policy import InvalidValueError, shown
from advisor.recipes.recipe import Recipe
from advisor.recipes.recipe_fields import recipe_from_fields

TABLES = "tables.json"
"""Name of the file with all shipped recipes."""


@cache
def shipped_recipe_names() -> tuple[str, ...]:
    """Return the names of the shipped recipes, sorted."""
    return tuple(sorted(_tables()))


@cache
def shipped_recipe(name: str) -> Recipe:
    """Return a shipped recipe.

    Args:
        name: One of :func:`shipped_recipe_names`.

    Raises:
        InvalidValueError: No shipped recipe has this name; the message names the nearest ones.
    """
    return recipe_from_fields(_tables()[_known(name)])


def shipped_recipe_text(name: str) -> str:
    """Return the YAML file of a shipped recipe, to start an own one from.

    Args:
        name: One of :func:`shipped_recipe_names`.

    Raises:
        InvalidValueError: No shipped recipe has this name; the message names the nearest ones.
    """
    return resources.files(__name__).joinpath(f"{_known(name)}.yaml").read_text("utf-8")


@cache
def _tables() -> dict[str, Any]:
    """Return the shipped recipes as plain data, by name."""
    found: dict[str, Any] = json.loads(
        resources.files(__name__).joinpath(TABLES).read_text("utf-8")
    )
    return found


def _known(name: str) -> str:
    """Return a name if it is that of a shipped recipe.

    Raises:
        InvalidValueError: It is not.
    """
    names = shipped_recipe_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"they are {', '.join(names)}"
        raise InvalidValueError("recipe", f"no shipped recipe is called {shown(name)}; {hint}")
    return name
