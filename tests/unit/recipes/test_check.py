"""Checks of a recipe against a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from advisor.policy import Group, GroupKind, Layout
from advisor.recipes import (
    Finding,
    FindingKind,
    Ratio,
    check_recipe,
    shipped_recipe,
    shipped_recipe_names,
)
from tests.unit.recipes.layouts import applied, transformer

BASE = transformer(64, 2)


def findings(
    recipe: str, run: Layout, base: Layout = BASE, given: dict[Ratio, float] | None = None
) -> dict[FindingKind, Finding]:
    found = check_recipe(run, applied(shipped_recipe(recipe), run, base, given=given))
    return {finding.kind: finding for finding in found}


def initialized(recipe: str, run: Layout) -> Layout:
    """Return a layout whose initial values are those that the recipe wants."""
    return run.with_initial_rms(applied(shipped_recipe(recipe), run, BASE).initial_rms.tolist())


def test_a_run_that_fits_has_no_findings() -> None:
    assert findings("completep", initialized("completep", transformer(256, 6))) == {}


def test_groups_without_a_rule_are_a_problem() -> None:
    groups = [replace(g, kind=GroupKind.ADAPTER_A) if "head" in g.name else g for g in BASE.groups]
    found = findings("mup-adam", Layout.of(groups))[FindingKind.NO_RULE]
    assert found.is_problem
    assert found.groups == ("head.weight",)
    assert found.message == "no rule: the recipe has no row for groups of this kind"


def test_growth_that_no_rule_covers_is_a_problem() -> None:
    deeper = findings("mup-adam", transformer(64, 6))[FindingKind.UNCOVERED_GROWTH]
    assert deeper.is_problem
    assert deeper.message.startswith("depth grows by 3, and mup-adam has no rule for it")
    assert "norm.weight" not in deeper.groups
    batch = findings("completep", BASE, given={Ratio.BATCH: 4.0})[FindingKind.UNCOVERED_GROWTH]
    assert batch.message.startswith("batch grows by 4, and completep has no rule")
    assert batch.groups == ()


@pytest.mark.parametrize("name", sorted({*shipped_recipe_names()} - {"standard"}))
def test_no_shipped_recipe_has_a_rule_for_more_experts(name: str) -> None:
    """And it says so among its conditions, unless it is about the batch only."""

    def experts(count: int) -> Layout:
        return Layout.of(
            Group(
                f"blocks.{i}.experts.{j}.w1.weight", shape=(8, 8), fan_in=8, fan_out=8,
                kind=GroupKind.EXPERT,
            )
            for i in range(2)
            for j in range(count)
        )  # fmt: skip

    found = findings(name, experts(8), experts(2))[FindingKind.UNCOVERED_GROWTH]
    assert found.message == (
        f"the number of experts grows by 4, and {name} has no rule for it; published rules also "
        "depend on the number of experts that are active, which layouts do not show, and they do "
        "not agree, so measure"
    )
    conditions = " ".join(shipped_recipe(name).conditions)
    assert name == "square-root-batch" or "The number of experts and of those" in conditions


def test_depth_needs_groups_that_write_into_the_stream() -> None:
    def without(layout: Layout) -> Layout:
        return Layout.of(replace(group, residual_output=False) for group in layout.groups)

    found = findings("completep", without(transformer(64, 8)), without(BASE))
    assert found[FindingKind.NO_RESIDUAL_OUTPUT].is_problem
    assert "depth grows by 4" in found[FindingKind.NO_RESIDUAL_OUTPUT].message
    assert FindingKind.NO_RESIDUAL_OUTPUT not in findings("mup-adam", without(transformer(64, 8)))


def test_other_initial_values_are_a_warning() -> None:
    found = findings("mup-adam", transformer(256, 2))[FindingKind.INITIAL_RMS]
    assert not found.is_problem
    assert found.message.startswith("the recipe wants 0.25 to 0.5 times the initial values")
    assert "head.weight" in found.groups
    assert "tokens.weight" not in found.groups


def test_initial_values_may_scatter_as_random_numbers_do() -> None:
    wanted = initialized("mup-adam", transformer(256, 2))
    rng = np.random.default_rng(0)
    sizes = [group.shape for group in wanted.groups]
    drawn = [
        float(np.sqrt(np.mean(np.square(rms * rng.standard_normal(shape)))))
        for rms, shape in zip(wanted.initial_rms, sizes, strict=True)
        if rms is not None
    ]
    assert findings("mup-adam", wanted.with_initial_rms(drawn)) == {}
    shifted = [1.2 * rms for rms in drawn]
    found = findings("mup-adam", wanted.with_initial_rms(shifted))[FindingKind.INITIAL_RMS]
    assert "blocks.0.mlp.fc1.weight" in found.groups


def test_zeros_differ_from_any_other_initial_values() -> None:
    run = transformer(64, 2)
    zeros = findings("mup-adam", run.with_initial_rms([0.0] * len(run)))[FindingKind.INITIAL_RMS]
    assert "inf times" in zeros.message
    base = BASE.with_initial_rms([0.0] * len(BASE))
    assert "wants 0 times" in findings("mup-adam", run, base)[FindingKind.INITIAL_RMS].message


def test_a_smaller_run_is_a_warning() -> None:
    found = findings("completep", initialized("completep", transformer(32, 1)))
    assert list(found) == [FindingKind.SMALLER]
    assert (
        "(fan_in 0.5, fan_out 0.5, depth 0.5 times the base's)"
        in found[FindingKind.SMALLER].message
    )


def test_an_embedding_without_a_readout_may_be_tied() -> None:
    def tied(width: int) -> Layout:
        return Layout.of(
            group for group in transformer(width, 2).groups if "head" not in group.name
        )

    assert findings("completep", tied(256), tied(64))[FindingKind.NO_READOUT].groups == (
        "tokens.weight",
    )
    assert FindingKind.NO_READOUT not in findings("completep", tied(64), tied(64))


def test_another_vocabulary_is_a_warning() -> None:
    def table(rows: int) -> Layout:
        return Layout.of([
            Group("t", fan_in=rows, fan_out=8, kind=GroupKind.EMBEDDING),
            Group("h", fan_in=8, fan_out=rows, kind=GroupKind.READOUT),
        ])

    assert findings("mup-sgd", table(64), table(32))[FindingKind.DIFFERENT_ENDS].groups == (
        "t",
        "h",
    )


def test_ratios_that_were_not_given_are_named() -> None:
    found = findings("completed-p", BASE)[FindingKind.RATIO_NOT_GIVEN]
    assert found.message.startswith("batch and tokens count as unchanged")
    given = {Ratio.BATCH: 2.0, Ratio.TOKENS: 4.0}
    assert FindingKind.RATIO_NOT_GIVEN not in findings("completed-p", BASE, given=given)

    # A ratio that is known to be 1 is not missing.
    unchanged = {Ratio.BATCH: 20.0, Ratio.TOKENS: 1.0}
    assert FindingKind.RATIO_NOT_GIVEN not in findings("completed-p", BASE, given=unchanged)
    only_batch = findings("completed-p", BASE, given={Ratio.BATCH: 2.0})
    assert only_batch[FindingKind.RATIO_NOT_GIVEN].message.startswith("tokens counts as unchanged")


def test_rows_of_an_assumed_optimizer_are_a_warning() -> None:
    wide = transformer(256, 2)
    found = findings("depth-standard", wide)[FindingKind.OPTIMIZER_NOT_GIVEN]
    assert found.message == (
        "no optimizer is given, so the rows of Adam are used; name the optimizer if it is of a "
        "different family"
    )
    recipe = shipped_recipe("depth-standard")
    for known in (applied(recipe, wide, BASE, optimizer=name) for name in ("AdamW", "SGD")):
        assert FindingKind.OPTIMIZER_NOT_GIVEN not in {f.kind for f in check_recipe(wide, known)}
    assert FindingKind.OPTIMIZER_NOT_GIVEN not in findings("completep", wide)  # for Adam only


def test_betas_that_would_come_near_zero_are_a_warning() -> None:
    found = findings("square-root-batch", BASE, given={Ratio.BATCH: 16.0})[FindingKind.BETA]
    assert found.message.startswith(
        "1 - beta2 grows by 16, so beta2 of the base must be above 0.93"
    )
    assert FindingKind.BETA not in findings("square-root-batch", BASE, given={Ratio.BATCH: 4.0})
