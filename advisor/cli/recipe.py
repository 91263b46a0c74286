"""``advisor recipe``: multipliers and their kin from layouts alone, without any service."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from advisor.cli.common import (
    DEFAULT_ADDRESS,
    Address,
    Json,
    client,
    fail,
    print_json,
)
from advisor.cli.recipe_tables import print_recipe, print_recipes
from advisor.policy import InvalidValueError
from advisor.recipes import (
    Recipe,
    load_recipe,
    recipe_to_fields,
    shipped_recipe,
    shipped_recipe_names,
    shipped_recipe_text,
)
from advisor.report.words import short_name
from advisor.wire import recipe_from_proto
from fslr.errors import ProfileFileError
from fslr.profile_files import format_fields

app = typer.Typer(
    help="Recipes: learning rates, weight decay, epsilon and initial scales from two layouts.",
    no_args_is_help=True,
)

_STORED = re.compile(r"projects/[^/]+/recipes/")
_FILE_SUFFIXES = {".json", ".yaml", ".yml"}


def _complete(incomplete: str) -> list[str]:
    return [name for name in shipped_recipe_names() if name.startswith(incomplete)]


RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="Name of a shipped recipe, or a YAML or JSON file.",
        autocompletion=_complete,
    ),
]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the shipped recipes."""
    recipes = [shipped_recipe(name) for name in shipped_recipe_names()]
    if as_json:
        print_json([
            {"name": r.name, "description": r.description, "optimizers": list(r.optimizers)}
            for r in recipes
        ])
        return
    print_recipes(recipes)


@app.command()
def show(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="Name of a shipped recipe, a YAML or JSON file, or a stored recipe: "
            "projects/P/recipes/R.",
            autocompletion=_complete,
        ),
    ],
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="Print the recipe as a file to start from.")
    ] = False,
    address: Address = DEFAULT_ADDRESS,
    as_json: Json = False,
) -> None:
    """Show a recipe: its source, its conditions and its table."""
    with recipe_errors():
        found = _stored(recipe, address) if _STORED.match(recipe) else read_recipe(recipe)
    if as_json:
        print_json(recipe_to_fields(found))
    elif as_yaml:
        typer.echo(_text(recipe, found), nl=False)
    else:
        print_recipe(found)


@contextmanager
def recipe_errors() -> Iterator[None]:
    """End the command with a message if a file or a value is not valid."""
    try:
        yield
    except (InvalidValueError, ProfileFileError) as error:
        fail(str(error))


def _stored(name: str, address: str) -> Recipe:
    """Return a recipe that a service stores."""
    with client(address) as advisor:
        found = advisor.get_recipe(name)
    return recipe_from_proto(found.recipe, short_name(found.name).partition("@")[0])


def _text(name: str, recipe: Recipe) -> str:
    """Return a recipe as YAML, a shipped one with its comments."""
    if name in shipped_recipe_names():
        return shipped_recipe_text(name)
    return format_fields(recipe_to_fields(recipe), yaml=True)


def read_recipe(name: str) -> Recipe:
    """Return a shipped recipe, or the one in a file.

    Args:
        name: Name of the recipe, or path of the file.

    Raises:
        InvalidValueError: There is no such shipped recipe, or the file's is not valid.
        ProfileFileError: The file cannot be read.
    """
    if Path(name).suffix.lower() in _FILE_SUFFIXES:
        try:
            return load_recipe(name)
        except InvalidValueError as error:
            raise error.under(name) from None
    try:
        return shipped_recipe(name)
    except InvalidValueError as error:
        hint = "`advisor recipe get` writes a stored recipe to a file"
        raise InvalidValueError(error.field, f"{error.description}; {hint}") from None
