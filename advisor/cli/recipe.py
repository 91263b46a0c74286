"""``advisor recipe``: multipliers and their kin from layouts alone, without any service."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich import box
from rich.table import Column, Table

from advisor.cli.common import (
    DEFAULT_ADDRESS,
    Address,
    Json,
    client,
    fail,
    plain,
    print_json,
    say,
)
from advisor.cli.tables import print_table
from advisor.policy import InvalidValueError
from advisor.recipes import (
    Field,
    Recipe,
    load_recipe,
    recipe_to_fields,
    shipped_recipe,
    shipped_recipe_names,
    shipped_recipe_text,
)
from advisor.recipes.words import powers_text, selection_text
from advisor.report.words import short_name
from advisor.wire import recipe_from_proto
from fslr.errors import ProfileFileError
from fslr.profile_files import format_fields

app = typer.Typer(
    help="Recipes: learning rates, weight decay, epsilon and initial scales from two layouts.",
    no_args_is_help=True,
)

_T = TypeVar("_T")
_FEWEST_ROWS = 2  # that can have something in common
_STORED = re.compile(r"projects/[^/]+/recipes/")
_FILE_SUFFIXES = {".json", ".yaml", ".yml"}
TITLES = {
    Field.LEARNING_RATE: "lr",
    Field.WEIGHT_DECAY: "decay",
    Field.EPSILON: "epsilon",
    Field.ONE_MINUS_BETA1: "1-beta1",
    Field.ONE_MINUS_BETA2: "1-beta2",
    Field.INITIAL_SCALE: "init",
}
"""Headings of the fields."""
TABLE_STYLE: dict[str, Any] = {
    "box": box.SIMPLE,
    "padding": (0, 1, 0, 0),
    "pad_edge": False,
    "title_justify": "left",
}
"""How the tables of recipes look."""


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
    table = Table("name", "optimizers", Column("description", overflow="fold"), **TABLE_STYLE)
    for recipe in recipes:
        table.add_row(recipe.name, _optimizers(recipe), plain(recipe.description))
    print_table(table)


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
        say(f"[bold]{plain(found.name)}[/]: {plain(found.description)}")
        say(f"optimizers: {_optimizers(found)}")
        if found.source:
            say(f"source: {plain(found.source)}")
        print_table(_recipe_table(found))
        say_conditions(found)


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


def _optimizers(recipe: Recipe) -> str:
    return ", ".join(recipe.optimizers) or "any"


def say_conditions(recipe: Recipe) -> None:
    """Print the conditions of a recipe."""
    if recipe.conditions:
        say("conditions, to be checked by hand:")
    for condition in recipe.conditions:
        say(f"- {plain(condition)}")


def shared_values(rows: Sequence[Mapping[Field, _T]]) -> dict[Field, _T]:
    """Return the fields with the same value in all of several rows; empty if that is all of them.

    Args:
        rows: The value of each field, in each row.
    """
    if len(rows) < _FEWEST_ROWS:
        return {}
    shared = {f: value for f, value in rows[0].items() if all(row[f] == value for row in rows)}
    return shared if len(shared) < len(rows[0]) else {}


def shared_note(values: Mapping[Field, str]) -> str:
    """Return a line with what all groups have in common; empty if that is nothing."""
    words = [f"{TITLES[field]} {value or 'unchanged'}" for field, value in values.items()]
    return f"all groups: {', '.join(words)}" if words else ""


def _recipe_table(recipe: Recipe) -> Table:
    """Return a recipe's rows, and the powers of each field."""
    rows = [{f: powers_text(row.powers.get(f)) for f in recipe.fields} for row in recipe.rows]
    shared = shared_values(rows)
    table = Table(
        Column("groups", overflow="fold"),
        caption=shared_note(shared) or None,
        caption_justify="left",
        **TABLE_STYLE,
    )
    fields = [field for field in recipe.fields if field not in shared]
    for field in fields:
        table.add_column(TITLES[field], overflow="fold")
    for row, cells in zip(recipe.rows, rows, strict=True):
        table.add_row(selection_text(row), *(cells[field] for field in fields))
    return table
