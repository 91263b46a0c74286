"""The recipe of a run in the terminal."""

from __future__ import annotations

from rich import box
from rich.console import RenderableType
from rich.table import Column, Table
from rich.text import Text

from advisor.cli.common import plain
from advisor.cli.name_cells import NameCell
from advisor.policy.counts import count_of
from advisor.report.followed_recipe import FollowedRecipe, FollowedRoleRow
from advisor.report.recipe_sentences import recipe_sentences, role_verdict
from advisor.report.texts import Texts
from advisor.report.words import format_number

_TEXTS = Texts("en")


def recipe_view(recipe: FollowedRecipe, most: int, *, observes_only: bool) -> list[RenderableType]:
    """Return what a recipe does in a run, and its factors beside what is measured.

    Args:
        recipe: The recipe.
        most: Maximum number of roles; those that disagree come first.
        observes_only: Whether the run applies no multipliers.
    """
    found, warning = recipe_sentences(recipe, _TEXTS, observes_only=observes_only)
    parts: list[RenderableType] = [Text(warning, style="yellow")] if warning else []
    title = Text.from_markup(f"[bold]{_TEXTS('recipe')}[/]\n{plain(' '.join(found))}")
    rows = sorted(recipe.rows, key=lambda row: row.agrees is not False)
    more = len(rows) - most
    after = [Text(f"and {count_of(more, 'more role')}")] if more > 0 else []
    return [title, *parts, _table(rows[:most], observes_only=observes_only), *after]


def disagreement_line(recipe: FollowedRecipe | None) -> list[str]:
    """Return a line if measurements contradict a recipe, or none.

    Args:
        recipe: The recipe; None: the run follows none.
    """
    if recipe is None or not recipe.apart:
        return []
    off, count = len(recipe.apart), recipe.compared
    return [
        f"recipe and measurements disagree in {off} of {count_of(count, 'role')}; see `run show`"
    ]


def _table(rows: list[FollowedRoleRow], *, observes_only: bool) -> Table:
    table = Table(
        Column("role", overflow="fold"),
        Column("recipe", justify="right", no_wrap=True),
        Column("measured", justify="right", no_wrap=True),
        Column("would be" if observes_only else "multiplier", justify="right", no_wrap=True),
        Column("comparison", no_wrap=True),
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False,
    )  # fmt: skip
    for row in rows:
        verdict = role_verdict(row, _TEXTS)
        table.add_row(
            NameCell(row.role),
            _number(row.recipe),
            _number(row.measured),
            _number(row.multiplier),
            f"[bold]{verdict}[/]" if row.agrees is False else verdict,
        )
    return table


def _number(value: float | None) -> str:
    return "" if value is None else format_number(value, 3)
