from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from advisor.cli.run_view import groups_table, notes_on_groups, run_view, view_of_height
from advisor.cli.sparklines import sparkline
from advisor.report.run_figures import RunFigures
from fslr.advisor.v1 import policy_pb2
from tests.stored_runs import block_names, recipe_run, stored_run

NOW = datetime(2026, 1, 2, 3, 20, tzinfo=UTC)


def printed(view: object, width: int = 80) -> list[str]:
    """Return what a terminal shows, without colors."""
    console = Console(file=io.StringIO(), width=width, height=24, emoji=False)
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_run_is_readable_at_80_columns_with_the_three_figures_on_top() -> None:
    lines = printed(run_view(RunFigures.of(*stored_run(block_names(12))), NOW))
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    titles = ("Total output change", "Contribution of each layer", "Recommended learning rates")
    places = [lines.index(title) for title in titles]
    assert places == sorted(places)
    assert places[-1] < 15
    assert any(line.startswith("blocks.*.attn.weight  ") for line in lines)
    assert "blocks.*.mlp.weight 48% (reference 47%)" in text
    assert "▁" in text
    assert "training" in lines[0]
    assert "12 measurements, 0 lost" in lines[1]


def test_weight_decay_stands_beside_effective_learning_rates() -> None:
    run, events = stored_run(block_names(12))
    events[-1].measurement.weight_decays[:] = [2e-5] * 26
    events[-1].recommendation.multipliers[:] = [0.5] * 26
    lines = printed(run_view(RunFigures.of(run, events), NOW))
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if line.startswith("blocks.*.attn.weight "))
    assert row.split()[-2:] == ["0.005", "1e-05"]


def test_a_run_that_only_observes_says_what_would_have_been() -> None:
    text = "\n".join(printed(run_view(RunFigures.of(*stored_run(observe_only=True)), NOW)))
    assert "observes only: nothing is applied" in text
    assert "Learning rates that would have been recommended" in text
    assert "Learning rates would have been 0.00841 to 0.00917; scheduled: 0.01." in text
    assert text.count("(would be)") == 2
    assert text.count("would be  next") == 1
    assert "this is what advice would have cost" in " ".join(text.split())
    advised = "\n".join(printed(run_view(RunFigures.of(*stored_run()), NOW)))
    assert "would" not in advised


@pytest.mark.parametrize("height", [24, 50])
def test_a_live_view_fits_its_terminal(height: int) -> None:
    run, events = stored_run([f"layer{i}.kind{i}.weight" for i in range(40)])
    events[-1].recommendation.outcomes[3] = policy_pb2.OUTCOME_HELD_ZERO_RATE
    lines = printed(view_of_height(RunFigures.of(run, events), NOW, height))
    assert len(lines) <= height
    assert max(map(len, lines)) <= 80
    assert any("more roles" in line for line in lines)


def test_held_groups_and_outliers_are_named() -> None:
    run, events = stored_run(block_names(8))
    answer = events[-1].recommendation
    answer.outcomes[:] = [policy_pb2.OUTCOME_HELD_LOW_CONFIDENCE] * 8 + list(answer.outcomes)[8:]
    answer.multipliers[1] = 1e-4
    rows = RunFigures.of(run, events).recommended_groups()
    held, outliers = notes_on_groups(rows, most=2)
    assert held == "8 held: low confidence: embed.weight, blocks.0.attn.weight and 6 more"
    assert outliers == "1 differs from its role: blocks.0.attn.weight"
    assert any("held: low" in line for line in printed(groups_table(rows)))


def test_empty_and_short_runs_have_a_view_and_names_are_no_markup() -> None:
    run, events = stored_run(["[red]a.weight", "b.weight"], measurements=1)
    assert "No measurement of this run" in " ".join(printed(run_view(RunFigures.of(run), NOW)))
    assert any(
        "[red]a.weight" in line for line in printed(run_view(RunFigures.of(run, events), NOW))
    )


def test_a_sparkline_keeps_peaks_and_gaps() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0.0] * 50 + [9.0] + [0.0] * 49, 10).count("█") == 1
    assert sparkline([1, None, float("nan"), 1], 9) == "▅  ▅"
    assert sparkline([2.0, 4.0], 4, from_zero=True) == "▅█"
    assert sparkline([], 5) == ""
    assert sparkline([None], 5) == " "


def test_a_recipe_stands_beside_the_measured_multipliers_at_80_columns() -> None:
    figures = RunFigures.of(*recipe_run(rate=4.0))
    lines = printed(run_view(figures, NOW))
    assert max(map(len, lines)) <= 80
    assert "recipe mup-adam" in lines[1]
    row = next(line for line in lines if line.rstrip().endswith("disagrees"))
    assert row.split()[:2] == ["embed.weight", "0.25"]
    assert len(printed(view_of_height(figures, NOW, 24))) <= 24
    assert "ecipe" not in "".join(printed(run_view(RunFigures.of(*stored_run()), NOW)))


def test_the_trend_of_a_role_follows_its_shares() -> None:
    run, events = stored_run(["rising.weight", "falling.weight", "flat.weight"], measurements=8)
    for i, event in enumerate(events):
        event.measurement.shares[:] = [i / 8, 7 / 8 - i / 8, 1 / 8]
    lines = printed(run_view(RunFigures.of(run, events), NOW))
    rows = [line.split() for line in lines if line.split()[1:2] == ["1"]]
    assert {row[0]: row[3] for row in rows} == {
        "rising.weight": "▁▂▃▄▅▆▇█",
        "falling.weight": "█▇▆▅▄▃▂▁",
        "flat.weight": "████████",
    }
