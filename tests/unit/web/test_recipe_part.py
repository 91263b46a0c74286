"""The part of a run's page that shows its recipe."""

from __future__ import annotations

import pytest

from advisor.report.run_figures import RunFigures
from tests.stored_runs import recipe_run, stored_run
from tests.unit.web.live_parts import rendered


def test_a_run_without_recipe_shows_nothing_of_it() -> None:
    figures = RunFigures.of(*stored_run())
    assert "ecipe" not in rendered(figures, "en")
    assert "レシピ" not in rendered(figures, "ja")


@pytest.mark.parametrize(
    ("language", "weights", "warning", "word"),
    [
        ("en", "Initial weights are as large as it wants.", "disagree with it in 4 of 4", "Recipe"),
        ("ja", "初期重みはレシピの求める大きさです。", "4個の役割のうち4個", "レシピ"),
    ],
)
def test_a_recipe_stands_beside_what_is_measured_with_a_warning_where_they_disagree(
    language: str, weights: str, warning: str, word: str
) -> None:
    figures = RunFigures.of(*recipe_run(rate=4.0, initial_weights_follow_recipe=True))
    page = rendered(figures, language)
    assert f'<h2 id="recipe-title">{word}: mup-adam</h2>' in page
    assert weights in page
    assert warning in page
    recipe = figures.recipe()
    assert recipe is not None
    for row in recipe.apart:
        assert f"{row.measured:.4g}" in page
    agreed = rendered(RunFigures.of(*recipe_run()), language)
    assert warning not in agreed
    assert f"{word}: mup-adam" in agreed
