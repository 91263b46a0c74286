"""The shipped recipes: one YAML file each, named like the recipe."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import resources

from advisor.policy import InvalidValueError, shown
from advisor.recipes.recipe import Recipe
from advisor.recipes.recipe_fields import load_recipe

_SUFFIX = ".yaml"


@cache
def shipped_recipe_names() -> tuple[str, ...]:
    """Return the names of the shipped recipes, sorted."""
    files = (entry.name for entry in resources.files(__name__).iterdir())
    return tuple(sorted(f.removesuffix(_SUFFIX) for f in files if f.endswith(_SUFFIX)))


@cache
def shipped_recipe(name: str) -> Recipe:
    """Return a shipped recipe.

    Args:
        name: One of :func:`shipped_recipe_names`.

    Raises:
        InvalidValueError: No shipped recipe has this name; the message names the nearest ones.
    """
    names = shipped_recipe_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"they are {', '.join(names)}"
        raise InvalidValueError("recipe", f"no shipped recipe is called {shown(name)}; {hint}")
    with resources.as_file(resources.files(__name__).joinpath(name + _SUFFIX)) as path:
        return load_recipe(path)
