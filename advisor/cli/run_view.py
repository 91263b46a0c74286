"""A run in the terminal: three figures, its roles, and its newest measurements in 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich import box
from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from advisor.cli.common import plain
from advisor.cli.name_cells import NameCell
from advisor.cli.recipe_view import disagreement_line, recipe_view
from advisor.cli.sparklines import sparkline
from advisor.policy.control_characters import without_controls
from advisor.policy.counts import count_of
from advisor.report.contributions import RECENT_POINTS, ContributionRow, contributions
from advisor.report.points import Point
from advisor.report.recommendations import RecommendedGroupRow, RecommendedRoleRow
from advisor.report.run_figures import RunFigures
from advisor.report.sentences import (
    contributions_text,
    cost_text,
    learning_rates_text,
    outcome_text,
    recommended_text,
    reference_percent_text,
    total_change_text,
)
from advisor.report.texts import Texts
from advisor.report.words import format_number, format_percent, short_name

_TEXTS = Texts("en")
_TREND, _SHORT_TREND = 10, 5  # characters
_WIDE_TREND = 40
MAX_ROLES, _MIN_ROLES = 16, 2
MAX_LIVE_MEASUREMENTS = 4
_COLUMNS = 80
_FIXED_LINES = 20  # of a compact view: everything but notes, roles and measurements


def run_view(
    figures: RunFigures,
    now: datetime,
    *,
    measurements: int = 10,
    roles: int = MAX_ROLES,
    is_compact: bool = False,
) -> RenderableType:
    """Return a run as seen at a glance.

    Args:
        figures: The figures of the run.
        now: The time, UTC.
        measurements: Number of measurements that are listed, the newest.
        roles: Maximum number of roles that are listed.
        is_compact: Whether empty lines are left out.
    """
    if not figures.points:
        return Group(header(figures, now), Text(_TEXTS("document.empty")))
    gap = [] if is_compact else [Text("")]
    parts: list[RenderableType] = [header(figures, now)]
    for lines in figure_lines(figures, is_compact=is_compact):
        parts += [*gap, *lines]
    parts += [*gap, roles_table(figures, roles)]
    more = len(figures.reader.roles.names) - roles
    if more > 0:
        parts.append(
            Text(f"and {count_of(more, 'more role')}; `run show --groups` lists every group")
        )
    parts += map(Text, notes_on_groups(figures.recommended_groups()))
    recipe = figures.recipe()
    if is_compact:
        parts += map(Text, disagreement_line(recipe))
    elif recipe is not None:
        parts += ["", *recipe_view(recipe, roles, observes_only=figures.observes_only)]
    if measurements:
        newest = figures.points[-measurements:]
        parts += [*gap, measurements_table(newest, observes_only=figures.observes_only)]
    return Group(*parts)


def view_of_height(figures: RunFigures, now: datetime, height: int) -> RenderableType:
    """Return a compact view that fits a terminal, with as many roles as there is room for.

    Args:
        figures: The figures of the run.
        now: The time, UTC.
        height: Number of lines.
    """
    lines = [*notes_on_groups(figures.recommended_groups()), *disagreement_line(figures.recipe())]
    notes = sum(-(-len(line) // _COLUMNS) for line in lines)
    room = height - _FIXED_LINES - notes
    measurements = min(max(room // 3, 1), MAX_LIVE_MEASUREMENTS)
    return run_view(
        figures,
        now,
        measurements=measurements,
        roles=min(max(room - measurements, _MIN_ROLES), MAX_ROLES),
        is_compact=True,
    )


def header(figures: RunFigures, now: datetime) -> Text:
    """Return the line with the run's name, state, profile and number of measurements."""
    row = figures.row(now)
    profile = short_name(figures.points[-1].profile) if figures.points else row.profile
    recipe = figures.recipe()
    follows = f", recipe {plain(recipe.name)}" if recipe is not None else ""
    planned = figures.run.opening.total_steps
    step = f"step {row.last_step:,}" + (f" of {planned:,}" if planned else "")
    return Text.from_markup(
        f"[bold]{plain(figures.run.name)}[/]  {row.state}, {step}\n"
        f"profile {plain(profile)}{follows}, {count_of(row.measurements, 'measurement')}, "
        f"{row.lost_measurements} lost"
        + (", [bold]observes only: nothing is applied[/]" if figures.observes_only else "")
    )


def figure_lines(figures: RunFigures, *, is_compact: bool = False) -> list[list[RenderableType]]:
    """Return the three figures: for each a title, a sentence, and a line that shows it.

    Args:
        figures: The figures of the run.
        is_compact: Whether learning rates, references of small contributions, and what advice would
            have cost, are left out.
    """
    points = figures.points
    contributions = figures.role_contributions()
    recent = min(RECENT_POINTS, sum(point.role_shares is not None for point in points))
    title = "would_have_been" if figures.observes_only else "recommended"
    return [
        [
            _figure("total_change", total_change_text(points, _TEXTS)),
            *_trend("total rate", [point.total_rate for point in points]),
        ],
        [
            _figure("contributions", contributions_text(contributions, recent, _TEXTS)),
            *_shares_bar(contributions, is_compact=is_compact),
        ],
        [
            _figure(title, recommended_text(figures, _TEXTS)),
            *_learning_rates(figures, is_compact=is_compact),
            *_cost(figures, is_compact=is_compact),
        ],
    ]


def _learning_rates(figures: RunFigures, *, is_compact: bool) -> list[RenderableType]:
    sentence = "" if is_compact else learning_rates_text(figures, _TEXTS)
    return [Text(sentence)] if sentence else []


def _cost(figures: RunFigures, *, is_compact: bool) -> list[RenderableType]:
    """Return what measuring cost; of a run that observes, that advice would have cost as much."""
    sentences = [cost_text(figures.cost(), _TEXTS)]
    if figures.observes_only and not is_compact:
        sentences.append(_TEXTS("cost.observed"))
    return [Text(" ".join(sentences), style="dim")]


def _figure(key: str, sentence: str) -> Text:
    return Text.from_markup(f"[bold]{_TEXTS(key)}[/]\n{plain(sentence)}")


def _trend(name: str, values: Sequence[float | None]) -> list[RenderableType]:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return []
    ends = f"{format_number(known[0])} to {format_number(known[-1])}"
    return [Text(f"{sparkline(values, _WIDE_TREND)}  {name}, {ends}", style="cyan")]


def _shares_bar(rows: Sequence[ContributionRow], *, is_compact: bool) -> list[RenderableType]:
    """Return the largest contributions, each beside its reference unless space is short."""
    largest = sorted((row for row in rows if row.part), key=lambda row: -abs(row.share))[:3]
    if len(rows) < 2:
        return []
    words = []
    for row in largest:
        reference = "" if is_compact else reference_percent_text(row, _TEXTS)
        beside = f" ({reference})" if reference else ""
        words.append(f"{without_controls(row.part)} {row.percent}%{beside}")
    return [Text(", ".join(words), style="cyan")]


def roles_table(figures: RunFigures, most: int) -> Table:
    """Return the roles with their shares and learning rates.

    Args:
        figures: The figures of the run.
        most: Maximum number of roles; those with the largest shares are kept.
    """
    rows = figures.recommended_roles()
    decays = any(row.decay is not None for row in rows)
    width, observes = _SHORT_TREND if decays else _TREND, figures.observes_only
    table = Table(
        Column("role", overflow="fold"),
        Column("groups", justify="right"),
        Column("share", justify="right"),
        Column("over time", width=width),
        Column(
            "multiplier\n(would be)" if observes else "multiplier",
            justify="right",
            no_wrap=True,
        ),
        Column(
            "learn. rate\n(would be)" if observes else "learning\nrate",
            justify="right",
            no_wrap=True,
        ),
        *([Column("decay\n/ step", justify="right", no_wrap=True)] if decays else []),
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False,
    )  # fmt: skip
    shares = [point.role_shares for point in figures.points]
    percents = _percents(figures)
    shown = _largest_roles(rows, percents, most)
    for i, row in enumerate(rows):
        if i not in shown:
            continue
        trend = [None if each is None else float(each[i]) for each in shares]
        table.add_row(
            NameCell(row.role),
            str(row.groups),
            f"{percents[row.role]}%" if row.role in percents else "",
            sparkline(trend, width, from_zero=True),
            _range(row.min_multiplier, row.max_multiplier),
            "" if row.effective is None else format_number(row.effective, 3),
            *([format_number(row.decay, 2) if row.decay is not None else ""] if decays else []),
        )
    return table


def _percents(figures: RunFigures) -> dict[str, int]:
    parts = figures.reader.roles
    shares = [point.role_shares for point in figures.points]
    rows = contributions(parts, shares, most=max(len(parts.names), 2))
    return {row.part: row.percent for row in rows}


def _largest_roles(
    rows: Sequence[RecommendedRoleRow], percents: dict[str, int], most: int
) -> set[int]:
    order = sorted(range(len(rows)), key=lambda i: -abs(percents.get(rows[i].role, 0)))
    return set(order[:most])


def notes_on_groups(rows: Sequence[RecommendedGroupRow], most: int = 6) -> list[str]:
    """Return a sentence for each outcome that is not a match, and for outliers.

    Args:
        rows: The groups of the newest answer.
        most: Maximum number of names in a sentence.
    """
    by_outcome: dict[str, list[str]] = {}
    for row in rows:
        by_outcome.setdefault(outcome_text(row.outcome, _TEXTS), []).append(row.group)
    matched = outcome_text(1, _TEXTS)
    found = [
        f"{len(names)} {outcome}: {_listed(names, most)}"
        for outcome, names in by_outcome.items()
        if outcome != matched
    ]
    outliers = [row.group for row in rows if row.is_outlier]
    if outliers:
        differing = (
            "1 differs from its" if len(outliers) == 1 else f"{len(outliers)} differ from their"
        )
        found.append(f"{differing} role: {_listed(outliers, most)}")
    return found


def _listed(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(without_controls, names[:most])) + more


def measurements_table(points: Sequence[Point], *, observes_only: bool = False) -> Table:
    """Return measurements, one a line.

    Args:
        points: The measurements, oldest first.
        observes_only: Whether the run applies no multipliers.
    """
    table = Table(
        *(Column(name, justify="right", no_wrap=True) for name in ("step", "loss", "total rate")),
        Column("of reference", justify="right"),
        Column("nonlinear", justify="right"),
        Column("would be" if observes_only else "multipliers", justify="right", no_wrap=True),
        Column("next", justify="right", no_wrap=True),
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False,
    )  # fmt: skip
    for point in points:
        total, reference = point.total_rate, point.reference_total_rate
        table.add_row(
            str(point.step),
            "" if point.loss is None else format_number(point.loss),
            "" if total is None else format_number(total),
            format_percent(total / reference) if total is not None and reference else "",
            "" if point.linearity_error is None else format_percent(point.linearity_error),
            _range(point.min_multiplier, point.max_multiplier),
            str(point.next_step) + (" (stale)" if point.is_stale else ""),
        )
    return table


def groups_table(rows: Sequence[RecommendedGroupRow], *, observes_only: bool = False) -> Table:
    """Return the groups of the newest answer with their outcomes.

    Args:
        rows: The groups.
        observes_only: Whether the run applies no multipliers.
    """
    table = Table(
        Column("group", overflow="fold"), "measured", "error", "share", "reference",
        "would be" if observes_only else "multiplier",
        Column("outcome", overflow="fold"),
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False,
    )  # fmt: skip
    for row in rows:
        table.add_row(
            NameCell(row.group),
            format_number(row.measured),
            format_percent(row.relative_error),
            "" if row.share is None else format_percent(row.share, digits=1),
            format_number(row.reference),
            format_number(row.multiplier),
            outcome_text(row.outcome, _TEXTS),
        )
    return table


def _range(low: float, high: float) -> str:
    first, last = format_number(low, 2), format_number(high, 2)
    return first if first == last else f"{first} to {last}"
