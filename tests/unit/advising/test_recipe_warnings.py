"""Where measured multipliers contradict a recipe: at most one warning, and beyond noise only."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from advisor.advising.recipe_warnings import (
    disagreement,
    doubts_about_training,
    growth_without_rule,
    is_check_due,
    role_differences,
)
from advisor.policy import Layout, Measurement
from advisor.recipes import Ratio, shipped_recipe
from tests.unit.recipes.layouts import applied, transformer

ROLES, BLOCKS, RUNS = 5, 3, 250
LAYOUT = Layout.of_names([
    f"blocks.{i}.part{j}.weight" for i in range(BLOCKS) for j in range(ROLES)
])
PRIORS = np.full(len(LAYOUT), 0.25)


@pytest.mark.parametrize("error", [0.02, 0.3])
def test_a_difference_up_to_a_factor_of_2_is_rarely_reported_and_a_larger_one_is(
    error: float,
) -> None:
    """The chance of a report without a reason is 1 % of runs; the bound is 4.4 deviations above."""
    generator = np.random.default_rng(0)
    errors = np.full(len(LAYOUT), error)
    reported = found = 0
    for _ in range(RUNS):
        noise = np.exp(error * generator.standard_normal(len(LAYOUT)))
        sides = np.where(
            np.arange(len(LAYOUT)) % ROLES % 2, 2.0, 0.5
        )  # the largest true difference
        reported += bool(disagreement("r", LAYOUT, PRIORS * sides * noise, PRIORS, errors))
        large = np.where(np.arange(len(LAYOUT)) % ROLES == 4, 8.0, 1.0)
        for warning in disagreement("r", LAYOUT, PRIORS * large * noise, PRIORS, errors):
            found += "part4" in warning.message
    assert reported <= 9
    assert found >= 0.95 * RUNS


def test_a_model_that_grows_without_a_rule_is_reported_and_a_longer_training_is_not() -> None:
    base, run = transformer(64, 2), transformer(64, 6)
    given = {Ratio.TOKENS: 4.0, Ratio.BATCH: 2.0}
    found = applied(shipped_recipe("mup-adam"), run, base, given=given)
    [warning] = growth_without_rule("mup-adam", run, found)
    assert warning.message == (
        "the recipe mup-adam does not fit the model: depth grows by 3, and mup-adam has no rule "
        "for it; choose a recipe that covers it, or measure (blocks.0.norm.weight, "
        "blocks.0.attn.qkv.weight, blocks.0.attn.qkv.bias and 45 more)"
    )
    assert growth_without_rule("c", run, applied(shipped_recipe("completep"), run, base)) == []
    plain = Layout.of(replace(group, residual_output=False) for group in run.groups)
    [warning] = growth_without_rule("c", plain, applied(shipped_recipe("completep"), plain, base))
    assert "no group is known to write into the residual stream" in warning.message


def test_what_a_recipe_does_not_know_of_the_training_is_reported() -> None:
    base, run = transformer(64, 2), transformer(64, 6)
    recipe = shipped_recipe("completed-p")

    def messages(given: dict[Ratio, float]) -> list[str]:
        found = doubts_about_training("c", applied(recipe, run, base, given=given))
        return [difference.message for difference in found]

    [unknown] = messages({Ratio.BATCH: 2.0})
    assert unknown.startswith("the recipe c may not fit the training: tokens counts as unchanged")
    beta, _ = sorted(messages({Ratio.BATCH: 40.0, Ratio.TOKENS: 1.0}))
    assert beta.startswith("the recipe c may not fit the training: 1 - beta1 grows by 40, so")
    assert messages({Ratio.BATCH: 2.0, Ratio.TOKENS: 4.0}) == []
    wide = applied(shipped_recipe("mup-adam"), transformer(128, 2), base)
    assert doubts_about_training("m", wide) == []  # its factors do not depend on the training


def roles_of(layout: Layout) -> list[str]:
    return [group.role for group in layout.groups]


def test_a_spread_between_the_blocks_of_a_role_is_noise_too() -> None:
    layout = Layout.of_names([f"blocks.{i}.up.weight" for i in range(4)])
    ratios, priors, exact = np.array([0.5, 0.5, 40.0, 80.0]), np.ones(4), np.zeros(4)
    [role] = role_differences(roles_of(layout), ratios, priors, exact)
    assert role.measured == pytest.approx(math.exp(np.log(ratios).mean()))
    assert role.error == pytest.approx(np.log(ratios).std(ddof=1) / 2)
    assert disagreement("r", layout, ratios, priors, exact) == []
    alike = np.array([39.0, 40.0, 41.0, 40.0])
    assert "measured 40, recipe 1" in disagreement("r", layout, alike, priors, exact)[0].message


def test_groups_without_a_ratio_a_prior_or_a_known_error_are_left_out() -> None:
    layout = Layout.of_names(["a.weight", "b.weight", "c.weight", "d.weight"])
    found = role_differences(
        roles_of(layout),
        np.array([0.0, 9.0, 9.0, 9.0]),
        np.array([1.0, 0.0, 1.0, 1.0]),
        np.array([0.1, 0.1, 0.0, 0.1]),
    )
    assert [role.role for role in found] == ["c.weight", "d.weight"]  # c is exact
    unknown = role_differences(roles_of(layout), np.full(4, 9.0), np.ones(4), np.zeros(4))
    assert unknown == []
    nothing = np.zeros(4)
    assert disagreement("r", layout, nothing, nothing, nothing) == []


@pytest.mark.parametrize("total_steps", [0, 150, 5_000])
@pytest.mark.parametrize("interval", [1, 7, 25, 400])
def test_one_measurement_of_a_run_checks_its_recipe(total_steps: int, interval: int) -> None:
    due = [
        step
        for step in range(0, 2_000, interval)
        if is_check_due(
            Measurement(
                step=step,
                unit_rates=np.ones(1),
                relative_errors=np.zeros(1),
                multipliers=np.ones(1),
                interval_steps=interval if step else 0,
                total_steps=total_steps,
            )
        )
    ]
    first = 15 if total_steps == 150 else 100
    assert due == [math.ceil(first / interval) * interval]
