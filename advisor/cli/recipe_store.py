"""``advisor recipe set``, ``get``, ``stored`` and ``delete``: recipes that a service stores."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from advisor.cli import completion
from advisor.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
    Address,
    Json,
    LatestVersion,
    LatestVersionOrNone,
    Project,
    Yes,
    client,
    confirm,
    date,
    message_dict,
    plain,
    print_json,
    print_message,
    say,
    write_text,
)
from advisor.cli.recipe import read_recipe, recipe_errors
from advisor.cli.recipe_tables import TABLE_STYLE
from advisor.cli.tables import print_table
from advisor.recipes import recipe_to_fields, shipped_recipe_names
from advisor.report.words import short_name
from advisor.wire import recipe_from_proto, recipe_to_proto
from fslr.profile_files import format_fields

StoredRecipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A stored recipe, such as ours or ours@3.",
        autocompletion=completion.recipes,
    ),
]


def set_(
    recipe: StoredRecipe,
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="YAML or JSON file, or name of a shipped recipe.")
    ],
    expected_version: LatestVersionOrNone = None,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Store a new version of a recipe in the service, so that policies can name it."""
    with recipe_errors():
        table = read_recipe(source)
    with client(address) as advisor:
        response = advisor.set_recipe(
            recipe, recipe_to_proto(table), expected_version=expected_version, project=project
        )
    if as_json:
        print_message(response)
        return
    verb = "set" if response.created else "exists already, unchanged:"
    say(f"{verb} [bold]{plain(response.recipe.name)}[/]")
    if response.created:
        name = response.recipe.name.partition("@")[0]
        say(f"`advisor policy set POLICY -r recipe={plain(name)}` lets a policy follow it")


def get(
    recipe: StoredRecipe,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write. Default: standard output."),
    ] = None,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Print a stored recipe as YAML, which `recipe set` accepts after editing."""
    with client(address) as advisor:
        found = advisor.get_recipe(recipe, project=project)
    if as_json:
        print_message(found)
        return
    name = short_name(found.name).partition("@")[0]
    with recipe_errors():  # a service may be newer than this command
        fields = recipe_to_fields(recipe_from_proto(found.recipe, name))
    text = f"# {found.name}\n{format_fields(fields, yaml=True)}"
    write_text(text, output)


def stored(
    address: Address = DEFAULT_ADDRESS, project: Project = DEFAULT_PROJECT, as_json: Json = False
) -> None:
    """List the latest version of each recipe that the service stores."""
    with client(address) as advisor:
        found = [version for version in advisor.list_recipes(project=project) if version.version]
    if as_json:
        print_json([message_dict(version) for version in found])
        return
    if not found:
        say(
            f"no stored recipes in project {plain(project)}; `advisor recipe set` stores one, and "
            f"{', '.join(shipped_recipe_names())} need no storing"
        )
        return
    table = Table("recipe", "set", Column("description", overflow="fold"), **TABLE_STYLE)
    for version in found:
        is_readable = version.HasField("recipe")
        words = plain(version.recipe.description) if is_readable else "unreadable"
        table.add_row(
            plain(short_name(version.name)), date(version.create_time.ToDatetime(UTC)), words
        )
    print_table(table)


def delete(
    recipe: StoredRecipe,
    expected_version: LatestVersion = None,
    yes: Yes = False,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Delete a stored recipe with all its versions, unless a policy or a profile names it.

    Version numbers are never reused.
    """
    with client(address) as advisor:
        latest = advisor.get_recipe(recipe, project=project).version
        confirm(f"Delete recipe {recipe} (latest version {latest})?", yes=yes)
        advisor.delete_recipe(recipe, expected_version=expected_version, project=project)
    if as_json:
        print_json({"recipe": recipe, "deleted": True})
        return
    say(f"deleted [bold]{plain(recipe)}[/]")
