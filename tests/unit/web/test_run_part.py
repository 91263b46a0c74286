"""The parts of a run's page that change with each measurement: its figures and their reasons."""

from __future__ import annotations

import re

import pytest

from advisor.report.run_columns import RunColumns
from advisor.report.run_figures import RunFigures
from advisor.web.charts import run_curves
from fslr.advisor.v1 import policy_pb2
from tests.stored_runs import block_names, stored_run
from tests.unit.web.live_parts import rendered


@pytest.mark.parametrize(
    ("language", "total", "share", "scheduled"),
    [
        ("en", "times the reference (", "share (reference)", "scheduled learning rate (0.01)"),
        ("ja", "基準の", "寄与 (基準)", "に対する倍率"),
    ],
)
def test_each_of_the_three_figures_stands_beside_its_reference(
    language: str, total: str, share: str, scheduled: str
) -> None:
    page = rendered(RunFigures.of(*stored_run()), language)
    first, second, third = page.split('class="card figure"')[1:4]
    assert total in first
    assert share in second
    shares = re.findall(
        r'class="value">(\d+)%</span>\s*<small class="reference">\((\d+)%\)', second
    )
    assert shares == [("2", "2"), ("36", "37"), ("44", "43"), ("18", "18")]
    assert scheduled in third


def test_outliers_held_groups_decays_cost_and_changes_are_in_words() -> None:
    run, events = stored_run(block_names(6))
    newest = events[-1]
    for event in events[-3:]:
        event.recommendation.profile = "projects/default/profiles/gpt@4"
    answer, measured = newest.recommendation, newest.measurement
    outlier = block_names(6).index("blocks.3.mlp.weight")
    answer.multipliers[outlier] /= 10
    measured.relative_errors[0] = 0.4
    answer.outcomes[0] = policy_pb2.OUTCOME_HELD_LOW_CONFIDENCE
    answer.multipliers[0] = 0.5
    measured.weight_decays[:] = [0.001] * len(measured.unit_rates)
    page = rendered(RunFigures.of(run, events))
    rows = {
        found[1]: found[0]
        for found in re.findall(r'(<tr[^>]*>\n<th.*?data-role="([^"]+)".*?</tr>)', page, re.DOTALL)
    }
    assert len(rows) == 4
    flagged = [role for role, row in rows.items() if row.startswith('<tr class="flagged">')]
    assert flagged == ["blocks.*.mlp.weight"]
    assert "<strong>blocks.3.mlp.weight: Differs from the other" in rows["blocks.*.mlp.weight"]
    assert "Held: measured only to ±40%." in rows["embed.weight"]
    assert ">0.0005 (times 0.5)</td>" in rows["embed.weight"]
    assert "held: low confidence 1" in page
    assert "1 of 14 groups is held" in page
    assert "Measuring took 0.8% of the training's time" in page
    assert "The profile changed from gpt@3 to gpt@4." in page
    assert '<a href="/projects/nlp/profiles/gpt%404">gpt@4</a>' in page


def test_a_run_without_a_measurement_says_so_and_has_empty_curves() -> None:
    run, _ = stored_run(measurements=0)
    figures = RunFigures.of(run)
    page = rendered(figures)
    assert "has no measurement of its current layout" in page
    assert "Nothing changed." in page
    assert 'class="card figure"' not in page
    curves = run_curves(RunColumns(figures.reader), 600)
    assert len(curves) == 7
    for chart in curves.values():
        assert chart["steps"] == []
        assert chart["values"]
        assert all(series == [] for series in chart["values"])
