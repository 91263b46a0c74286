"""How the total rate and the shares of a run's roles move with one of its own metrics."""

from __future__ import annotations

from collections.abc import Mapping

from advisor.report.contributions import contributions
from advisor.report.metrics import MAX_ROLES
from advisor.report.relation import SHARE_OF, TOTAL_RATE, RelationRow, relation_rows
from advisor.report.run_figures import RunFigures


def run_relations(
    figures: RunFigures, metric: str, values: Mapping[int, float]
) -> list[RelationRow]:
    """Return how the total rate, and the shares of the largest roles, move with a metric.

    Args:
        figures: The figures of the run.
        metric: The metric's name.
        values: Its values by step.
    """
    total = {p.step: p.total_rate for p in figures.points if p.total_rate is not None}
    roles = figures.reader.roles
    shares = {p.step: p.role_shares for p in figures.points if p.role_shares is not None}
    largest = contributions(roles, list(shares.values()), most=MAX_ROLES + 1)
    series: dict[str, dict[int, float]] = {TOTAL_RATE: total}
    for row in largest:
        if row.part:
            i = roles.names.index(row.part)
            series[f"{SHARE_OF}{row.part}"] = {s: float(found[i]) for s, found in shares.items()}
    return relation_rows(metric, values, series)
