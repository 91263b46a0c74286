"""The shipped recipes: one YAML file each, named like the recipe."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

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
    with resources.as_file(_file(name)) as path:
        return load_recipe(path)


def shipped_recipe_text(name: str) -> str:
    """Return the YAML file of a shipped recipe, to start an own one from.

    Args:
        name: One of :func:`shipped_recipe_names`.

    Raises:
        InvalidValueError: No shipped recipe has this name; the message names the nearest ones.
    """
    return _file(name).read_text("utf-8")


def _file(name: str) -> Traversable:
    names = shipped_recipe_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"they are {', '.join(names)}"
        raise InvalidValueError("recipe", f"no shipped recipe is called {shown(name)}; {hint}")
    return resources.files(__name__).joinpath(name + _SUFFIX)
