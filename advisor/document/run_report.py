"""The report of a run: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from advisor.document import pictures, svg
from advisor.document.metrics_section import ReportedMetrics, metrics_section
from advisor.report.contributions import RECENT_POINTS, ContributionRow
from advisor.report.recipe_sentences import recipe_sentences, role_verdict
from advisor.report.recommendations import RecommendedRoleRow
from advisor.report.run_facts import base_facts, run_facts
from advisor.report.run_figures import RunFigures
from advisor.report.sentences import (
    change_text,
    comma,
    contributions_text,
    cost_text,
    decay_text,
    joined,
    learning_rates_text,
    multipliers_beside_text,
    outcome_text,
    reason,
    recommended_text,
    reference_percent_text,
    total_change_text,
)
from advisor.report.texts import Texts
from advisor.report.words import (
    format_number,
    format_percent,
    name_pieces,
    short_name,
    whole_numbers,
)
from fslr.advisor.v1 import profile_pb2

_MAX_ROLES = 40
_MAX_CHANGES = 30
_FEW_POINTS = 3
_MAX_OUTLIERS = 5
_NO_METRICS = ReportedMetrics()

LIMITS = range(1, 7)
"""Numbers of the sentences about what the numbers do not say."""
WORDS = ("rate", "total_rate", "share", "multiplier", "profile")
"""The words that a report explains."""


@dataclass(frozen=True, slots=True)
class _RoleLine:
    """A line of the table of recommended learning rates, in words."""

    role: str
    groups: int
    multiplier: str
    effective: str
    decay: str
    reason: str


def run_report(
    figures: RunFigures,
    profile: profile_pb2.ProfileContent | None,
    *,
    language: str,
    now: datetime,
    metrics: ReportedMetrics = _NO_METRICS,
) -> str:
    """Return the report of a run as HTML.

    Args:
        figures: The figures of the run.
        profile: The content of the profile that it follows; None: it cannot be read any more.
        language: ``en`` or ``ja``.
        now: The time, UTC.
        metrics: The run's own metrics.

    Raises:
        UnknownLanguageError: There are no texts in this language.
    """
    texts = Texts(language)
    environment = Environment(
        loader=PackageLoader("advisor.document"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    template = environment.get_template("run_report.html.j2")
    return template.render(
        t=texts,
        language=language,
        run=short_name(figures.run.name),
        made=f"{now:%Y-%m-%d %H:%M}",
        notes=_notes(figures, profile, texts),
        facts=run_facts(figures, now, texts),
        base=base_facts(profile, texts) if profile is not None else [],
        figures=_figures(figures, texts) if figures.points else None,
        metrics=metrics_section(figures, metrics, texts),
        words=WORDS,
        limits=LIMITS,
        next_step=_next_step(figures, texts),
    )


def _notes(
    figures: RunFigures, profile: profile_pb2.ProfileContent | None, texts: Texts
) -> list[str]:
    """Return what a reader should know first."""
    points = figures.points
    found = [texts("document.observed" if figures.observes_only else "document.advised")]
    if not points:
        found = [texts("document.empty")]
    elif len(points) == 1:
        found.append(texts("document.one_point"))
    if figures.left_out:
        found.append(texts("document.left_out", count=figures.left_out))
    if points and profile is None:
        found.append(texts("document.no_profile", profile=short_name(points[-1].profile)))
    return found


def _figures(figures: RunFigures, texts: Texts) -> dict[str, Any]:
    """Return the parts of the report that need a measurement."""
    roles, blocks = figures.role_contributions(), figures.block_contributions()
    recommended = figures.recommended_roles()
    recent = min(RECENT_POINTS, sum(point.role_shares is not None for point in figures.points))
    changes = figures.changes
    title = "would_have_been" if figures.observes_only else "recommended"
    return {
        "cards": _cards(figures, roles, texts),
        "title": texts(title),
        "observes_only": figures.observes_only,
        "sentences": {
            "total_change": total_change_text(figures.points, texts),
            "contributions": contributions_text(roles, recent, texts),
            "recommended": joined(
                [recommended_text(figures, texts), learning_rates_text(figures, texts)], texts
            ),
        },
        "total_change": pictures.total_change(figures, texts),
        "learning_rate": pictures.learning_rate(figures, texts),
        "loss": pictures.loss(figures, texts),
        "shares": pictures.shares(figures, texts),
        "legend": _legend(figures, texts),
        "blocks": pictures.blocks(blocks, texts) if len(blocks) > 1 else "",
        "multipliers": pictures.multipliers(recommended[:_MAX_ROLES], figures, texts),
        "recent": recent,
        "recipe": _recipe(figures, texts),
        "roles": [_role_line(row, texts) for row in recommended[:_MAX_ROLES]],
        "more_roles": max(len(recommended) - _MAX_ROLES, 0),
        "changes": [
            (change.step, f"{change.time:%Y-%m-%d %H:%M}", change_text(change, texts))
            for change in changes[-_MAX_CHANGES:]
        ],
        "all_changes": len(changes),
        "cost": joined(
            [
                cost_text(figures.cost(), texts),
                *([texts("cost.observed")] if figures.observes_only else []),
            ],
            texts,
        ),
    }


def _recipe(figures: RunFigures, texts: Texts) -> dict[str, Any] | None:
    """Return what a recipe says beside what is measured; None: the run follows none."""
    recipe = figures.recipe()
    if recipe is None:
        return None
    found, warning = recipe_sentences(recipe, texts, observes_only=figures.observes_only)
    rows = sorted(recipe.rows, key=lambda row: row.agrees is not False)
    absent = texts("no_value")
    return {
        "sentences": joined(found, texts),
        "warning": warning,
        "rows": [
            (
                row.role,
                absent if row.recipe is None else _short(row.recipe),
                absent if row.measured is None else _short(row.measured),
                _short(row.multiplier),
                role_verdict(row, texts),
            )
            for row in rows[:_MAX_ROLES]
        ],
        "more": max(len(rows) - _MAX_ROLES, 0),
    }


def _cards(
    figures: RunFigures, roles: Sequence[ContributionRow], texts: Texts
) -> list[tuple[str, str, str]]:
    """Return the three figures: a title, a large value, and what it is."""
    newest = figures.points[-1]
    total, reference = newest.total_rate, newest.reference_total_rate
    absent = texts("no_value")
    if total is not None and reference:
        first = format_percent(total / reference), texts("document.of_reference")
    else:
        first = absent if total is None else format_number(total), ""
    named = [row for row in roles if row.part]
    largest = max(named, key=lambda row: row.share, default=None)
    second = absent, ""
    if largest is not None:
        found = [
            texts("document.largest_contribution", part=largest.part),
            reference_percent_text(largest, texts),
        ]
        second = f"{largest.percent}%", comma(texts).join(filter(None, found))
    third = _range(newest.min_multiplier, newest.max_multiplier, texts)
    title = "would_have_been" if figures.observes_only else "recommended"
    return [
        (texts("total_change"), *first),
        (texts("contributions"), *second),
        (texts(title), third, multipliers_beside_text(figures, texts)),
    ]


def _legend(figures: RunFigures, texts: Texts) -> list[tuple[Markup, str, str, str]]:
    """Return the color, name, mean share and reference of each part of the picture of shares."""
    rows = pictures.shown_roles(figures)
    return [
        (
            svg.swatch(color),
            row.part or texts("document.rest", count=row.groups),
            f"{row.percent}%",
            reference_percent_text(row, texts),
        )
        for row, color in zip(rows, pictures.role_colors(rows), strict=True)
    ]


def _role_line(row: RecommendedRoleRow, texts: Texts) -> _RoleLine:
    typical = row.typical
    outcomes = [
        texts("document.outcome", count=count, outcome=outcome_text(outcome, texts))
        for outcome, count in row.outcomes
    ]
    why = [reason(typical, texts)] if not typical.is_outlier else []
    if len(row.outcomes) > 1:
        why.append(texts("outcomes", outcomes=comma(texts).join(outcomes)))
    if row.outliers:
        names = comma(texts).join(row.outliers[:_MAX_OUTLIERS])
        more = len(row.outliers) - _MAX_OUTLIERS
        why.append(texts("document.outliers", groups=f"{names} (+{more})" if more > 0 else names))
    return _RoleLine(
        role=row.role,
        groups=row.groups,
        multiplier=_range(row.min_multiplier, row.max_multiplier, texts),
        effective=(
            texts("no_value")
            if row.min_effective is None or row.max_effective is None
            else _range(row.min_effective, row.max_effective, texts)
        ),
        decay=decay_text(row.decay, row.decay_factor, texts),
        reason=joined(why, texts),
    )


def _range(low: float, high: float, texts: Texts) -> str:
    """Return a range of numbers, or one number if the two read the same."""
    words = _short(low), _short(high)
    return words[0] if words[0] == words[1] else texts("range", low=words[0], high=words[1])


def _short(value: float) -> str:
    """Return a number with three significant digits."""
    return format_number(value, 3)


def breakable(words: object) -> Markup:
    """Return text that may be broken inside of the names of parameters, and not in numbers."""
    return Markup("<wbr>").join(name_pieces(whole_numbers(str(words))))


def _next_step(figures: RunFigures, texts: Texts) -> str:
    """Return a paragraph to copy."""
    run, points = short_name(figures.run.name), figures.points
    if len(points) < _FEW_POINTS:
        return texts("document.next.few", run=run, count=len(points))
    newest = points[-1]
    return texts(
        "document.next.observed" if figures.observes_only else "document.next.advised",
        run=run,
        step=newest.step,
        profile=short_name(newest.profile),
        groups=len(figures.reader.groups),
        low=_short(newest.min_multiplier),
        high=_short(newest.max_multiplier),
        cost=cost_text(figures.cost(), texts),
    )
