from __future__ import annotations

import pytest

from advisor.report.recipe_sentences import recipe_sentences, role_verdict
from advisor.report.run_changes import ChangeKind
from advisor.report.run_figures import RunFigures
from advisor.report.sentences import change_text
from advisor.report.texts import Texts
from tests.stored_runs import recipe_run, stored_run

EN, JA = Texts("en"), Texts("ja")


def test_a_run_without_recipe_shows_nothing_of_it() -> None:
    assert RunFigures.of(*stored_run()).recipe() is None
    run, _ = recipe_run()
    assert RunFigures.of(run).recipe() is None


def test_the_factors_of_a_recipe_stand_beside_what_is_measured_by_role() -> None:
    recipe = RunFigures.of(*recipe_run(initial_weights_follow_recipe=True)).recipe()
    assert recipe is not None
    assert (recipe.name, recipe.groups, recipe.without_rule) == ("mup-adam", 10, 0)
    for row in recipe.rows:
        assert row.recipe == pytest.approx(0.25)
        assert row.measured == pytest.approx(0.25, rel=0.11)
        assert row.agrees is True
    said, warning = recipe_sentences(recipe, EN, observes_only=False)
    assert warning == ""
    assert said == [
        "The run follows the recipe mup-adam.",
        "Initial weights are as large as it wants.",
        "Measurements agree with it in 4 of 4 compared roles.",
    ]


def test_a_disagreement_names_the_roles_with_both_numbers() -> None:
    recipe = RunFigures.of(*recipe_run(rate=4.0)).recipe()
    assert recipe is not None
    assert [role_verdict(row, EN) for row in recipe.apart] == ["disagrees"] * 4
    first = recipe.apart[0]
    _, warning = recipe_sentences(recipe, EN, observes_only=False)
    assert "in 4 of 4 compared roles, by more than a factor of 2" in warning
    assert f"embed.weight (recipe 0.25, measured {first.measured:.3g})" in warning
    _, japanese = recipe_sentences(recipe, JA, observes_only=False)
    assert f"レシピ0.25、測定{first.measured:.3g}" in japanese


def test_a_recipe_is_not_judged_by_the_first_steps() -> None:
    recipe = RunFigures.of(*recipe_run(rate=4.0, measurements=4)).recipe()
    assert recipe is not None
    assert (recipe.compared, recipe.apart) == (0, [])
    said, warning = recipe_sentences(recipe, EN, observes_only=True)
    assert warning == ""
    assert said[0].startswith("The run only observes: with advice it would follow")
    assert said[-1] == "It is compared with measurements from step 100 on."
    short = RunFigures.of(*recipe_run(rate=4.0, measurements=4, total_steps=500)).recipe()
    assert short is not None
    assert len(short.apart) == 4


def test_groups_without_a_rule_are_counted_and_not_compared() -> None:
    recipe = RunFigures.of(*recipe_run(recipe="mup-sgd")).recipe()
    assert recipe is not None
    assert recipe.without_rule == recipe.groups == 10
    assert all(row.recipe is None and row.agrees is None for row in recipe.rows)
    said, _ = recipe_sentences(recipe, EN, observes_only=False)
    assert "It says nothing of 10 of 10 groups." in said
    assert said[-1].startswith("No role has both")


def test_a_new_recipe_is_a_change() -> None:
    run, events = recipe_run()
    events[-1].recommendation.recipe = "projects/default/recipes/own@2"
    change = RunFigures.of(run, events).changes[-1]
    assert change.kind is ChangeKind.RECIPE
    assert change_text(change, EN) == "The recipe changed from mup-adam to own@2."
    events[-1].recommendation.recipe = ""
    change = RunFigures.of(run, events).changes[-1]
    assert change_text(change, JA) == "レシピがmup-adamからなしに変わりました。"
