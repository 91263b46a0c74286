"""How the total rate and the shares of a run's roles move with one of its own metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from advisor.policy.arrays import Floats
from advisor.report.contributions import RECENT_POINTS, largest_parts
from advisor.report.metrics import MAX_ROLES
from advisor.report.relation import (
    SHARE_OF,
    TOTAL_RATE,
    RelationRow,
    Verdict,
    relation_rows,
    relation_sentence,
)
from advisor.report.run_columns import RunColumns
from advisor.report.run_figures import RunFigures
from advisor.report.texts import Texts


def run_relations(
    figures: RunFigures, metric: str, values: Mapping[int, float]
) -> list[RelationRow]:
    """Return how the total rate, and the shares of the largest roles, move with a metric.

    Args:
        figures: The figures of the run, with all its points.
        metric: The metric's name.
        values: Its values by step.
    """
    total = {p.step: p.total_rate for p in figures.points if p.total_rate is not None}
    shares = {p.step: p.role_shares for p in figures.points if p.role_shares is not None}
    return _relations(metric, values, total, figures.reader.roles.names, shares)


def column_relations(
    columns: RunColumns, metric: str, values: Mapping[int, float]
) -> list[RelationRow]:
    """Return the same as :func:`run_relations` for a run whose measurements are in columns.

    Args:
        columns: The measurements.
        metric: The metric's name.
        values: Its values by step.
    """
    steps = columns.column("step").astype(np.int64).tolist()
    rates, shares = columns.column("total_rate"), columns.column("role_shares")
    total = {
        step: float(rate) for step, rate in zip(steps, rates, strict=True) if not np.isnan(rate)
    }
    reported = {s: row for s, row in zip(steps, shares, strict=True) if not np.isnan(row).any()}
    return _relations(metric, values, total, columns.roles, reported)


def _relations(
    metric: str,
    values: Mapping[int, float],
    total: Mapping[int, float],
    roles: Sequence[str],
    shares: Mapping[int, Floats],
) -> list[RelationRow]:
    """Return the relations with the total rate and with the shares of the largest roles by step."""
    series: dict[str, Mapping[int, float]] = {TOTAL_RATE: total}
    if shares:
        recent = np.mean([*shares.values()][-RECENT_POINTS:], axis=0)
        for i in largest_parts(recent, MAX_ROLES + 1):
            if roles[i]:
                series[f"{SHARE_OF}{roles[i]}"] = {s: float(row[i]) for s, row in shares.items()}
    return relation_rows(metric, values, series)


def relation_sentences(rows: Sequence[RelationRow], texts: Texts) -> list[str]:
    """Return what the total rate does, and those shares that move with the metric.

    Args:
        rows: The relations, that of the total rate first.
        texts: The language's texts.
    """
    if not rows:
        return []
    related = [row for row in rows[1:] if row.verdict is Verdict.RELATION]
    found = [relation_sentence(row, texts) for row in (rows[0], *related)]
    others = len(rows) - 1 - len(related)
    return [*found, texts("relation.others", count=others)] if others else found
