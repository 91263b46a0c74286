"""How the total rate and the shares of a run's roles move with one of its own metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from advisor.report.contributions import contributions
from advisor.report.metrics import MAX_ROLES
from advisor.report.relation import (
    SHARE_OF,
    TOTAL_RATE,
    RelationRow,
    Verdict,
    relation_rows,
    relation_sentence,
)
from advisor.report.run_figures import RunFigures
from advisor.report.texts import Texts


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
