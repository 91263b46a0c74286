"""The parts of a run's page that change with each measurement: its figures and their reasons."""

from __future__ import annotations

import re

import pytest

from advisor.report.run_figures import RunFigures
from tests.stored_runs import stored_run
from tests.unit.web.live_parts import rendered


@pytest.mark.parametrize(
    ("language", "total", "share", "scheduled"),
    [
        ("en", "times the reference (", "reference 43%", "scheduled learning rate (0.01)"),
        ("ja", "基準の", "基準43%", "に対する倍率"),
    ],
)
def test_each_of_the_three_figures_stands_beside_its_reference(
    language: str, total: str, share: str, scheduled: str
) -> None:
    page = rendered(RunFigures.of(*stored_run()), language)
    first, second, third = page.split('class="card figure"')[1:4]
    assert total in first
    assert share in second
    assert len(re.findall(r'class="reference">', second)) == 4
    assert scheduled in third
