"""Two runs side by side: at a step that both have, with all their roles and metrics."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from advisor.report.run_columns import RunColumns
from advisor.report.run_figures import RunFigures
from advisor.web.compare_pages import (
    Compared,
    Quantity,
    _common_step,
    _figure_rows,
    _metric_rows,
    _share_rows,
)
from tests.stored_runs import block_names, stored_run


def feed(measurements: int, names: list[str] | None = None) -> Any:
    figures = RunFigures.of(*stored_run(names or block_names(4), measurements=measurements))
    columns = RunColumns(figures.reader)
    for point in figures.points:
        columns.append(point)
    return SimpleNamespace(history=SimpleNamespace(figures=figures, columns=columns))


def test_figures_are_compared_at_the_last_step_that_both_runs_have() -> None:
    long, short = feed(12), feed(5)
    assert _common_step([long, short]) == 100
    rows = {row.label: row for row in _figure_rows([long, short], 100)}
    wanted = long.history.figures.points[4].loss
    assert rows["loss"].left == pytest.approx(wanted)
    assert rows["loss"].difference == pytest.approx(0)
    assert _common_step([long, feed(0)]) is None
    assert _figure_rows([long, feed(0)], None) == []


def test_a_role_that_one_run_shows_among_the_others_has_its_share() -> None:
    names = [f"part{i}.weight" for i in range(20)]
    rows = _share_rows([feed(3, names), feed(3, names)])
    assert {row.label for row in rows} == {f"part{i}.weight" for i in range(20)}
    assert rows[0].label == "part19.weight"  # the largest
    assert all(row.ratio == pytest.approx(1) for row in rows)
    assert sum(row.left or 0 for row in rows) == pytest.approx(1)


def test_metrics_of_both_runs_come_first() -> None:
    both = [{"auc": {1: 0.5, 2: float("nan")}, "b": {1: 1.0}}, {"b": {1: 3.0}, "c": {1: 2.0}}]
    assert _metric_rows(both) == [
        Compared(Quantity.METRIC, "b", 1.0, 3.0),
        Compared(Quantity.METRIC, "auc", 0.5, None),
        Compared(Quantity.METRIC, "c", None, 2.0),
    ]
