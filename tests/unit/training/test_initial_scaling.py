"""Initial weights are scaled alike within a role, as far as the recipe has one factor for it."""

from __future__ import annotations

import pytest

from fslr.training.initial_scaling import initial_scaling
from fslr.training.recipe import Recipe
from fslr.training.setting_factors import SettingFactors


def recipe(scales: list[float], rms: list[float | None]) -> Recipe:
    settings = tuple(SettingFactors() for _ in scales)
    return Recipe("mup-adam", settings, tuple(scales), tuple(rms), tuple(True for _ in scales))


def test_layers_of_a_sequential_are_scaled_by_the_factor_of_each() -> None:
    """Their names differ in numbers only, but their kinds and so their factors differ."""
    wanted = recipe([1.0, 0.5, 0.25], [0.4, 0.2, 0.1])
    scaling = initial_scaling(wanted, [0.4, 0.2, 0.2], ["0.weight", "2.weight", "4.weight"])
    assert scaling.factors == (1.0, 1.0, 0.5)
    assert scaling.rms == (0.4, 0.2, 0.1)


def test_blocks_of_a_role_keep_their_ratios() -> None:
    wanted = recipe([0.5, 0.5], [0.21, 0.19])
    scaling = initial_scaling(wanted, [0.4, 0.4], ["blocks.0.w", "blocks.1.w"])
    one, other = scaling.factors
    assert one == other == pytest.approx(((0.21**2 + 0.19**2) / 0.32) ** 0.5)
