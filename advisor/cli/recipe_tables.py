"""A recipe in lines as wide as the terminal, or of 80 characters where there is none."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from rich import box
from rich.table import Column, Table

from advisor.cli.common import console, plain
from advisor.cli.tables import print_wrapped
from advisor.recipes import Field, Recipe
from advisor.recipes.words import powers_text, selection_text

_T = TypeVar("_T")
_PIPE_WIDTH = 80
_FEWEST_ROWS = 2  # that can have something in common
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


def print_recipes(recipes: Sequence[Recipe]) -> None:
    """Print a table of recipes: name, optimizers and description."""
    table = Table("name", "optimizers", Column("description"), **TABLE_STYLE)
    for recipe in recipes:
        table.add_row(recipe.name, _optimizers(recipe), plain(recipe.description))
    print_wrapped(table, _width())


def print_recipe(recipe: Recipe) -> None:
    """Print a recipe: its source, its table and its conditions."""
    _print(f"{recipe.name}: {recipe.description}" if recipe.description else recipe.name)
    _print(f"optimizers: {_optimizers(recipe)}")
    if recipe.source:
        _print(f"source: {recipe.source}")
    rows = [{f: powers_text(row.powers.get(f)) for f in recipe.fields} for row in recipe.rows]
    shared = shared_values(rows)
    fields = [field for field in recipe.fields if field not in shared]
    selections = [selection_text(row) for row in recipe.rows]
    table = Table("groups", **TABLE_STYLE)
    for field in fields:
        table.add_column(TITLES[field])
    for selection, cells in zip(selections, rows, strict=True):
        table.add_row(selection, *(cells[field] for field in fields))
    if not print_wrapped(table, _width()):
        for line in _stacked(selections, rows, fields):
            _print(line)
    if shared:
        _print(shared_note(shared))
    print_conditions(recipe)


def print_conditions(recipe: Recipe) -> None:
    """Print the conditions of a recipe."""
    if recipe.conditions:
        _print("conditions, to be checked by hand:")
    for condition in recipe.conditions:
        _print(f"- {condition}", indent="  ")


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


def _stacked(
    selections: Sequence[str], rows: Sequence[Mapping[Field, str]], fields: Sequence[Field]
) -> Iterator[str]:
    """Yield the table's rows with a line for each field."""
    width = max((len(TITLES[field]) for field in fields), default=0)
    for selection, cells in zip(selections, rows, strict=True):
        yield f"groups: {selection}"
        for field in fields:
            if cells[field]:
                yield f"  {TITLES[field]:{width}}  {cells[field]}"


def _optimizers(recipe: Recipe) -> str:
    return ", ".join(recipe.optimizers) or "any"


def _width() -> int:
    return console.width if console.is_terminal else _PIPE_WIDTH


def _print(text: str, indent: str = "") -> None:
    """Print a text in lines, which end between words."""
    lines = textwrap.wrap(
        text,
        _width(),
        subsequent_indent=indent or " " * (len(text) - len(text.lstrip())),
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines:
        console.print(plain(line), highlight=False, soft_wrap=True)
