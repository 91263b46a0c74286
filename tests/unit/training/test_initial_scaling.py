"""Initial weights are scaled alike within a role, as far as its tensors are alike."""

from __future__ import annotations

import pytest

from fslr.advisor.v1 import layout_pb2
from fslr.training.initial_scaling import initial_scaling, needed_scaling
from fslr.training.recipe import Recipe
from fslr.training.setting_factors import SettingFactors


def recipe(scales: list[float], rms: list[float | None]) -> Recipe:
    settings = tuple(SettingFactors() for _ in scales)
    return Recipe("mup-adam", settings, tuple(scales), tuple(rms), tuple(True for _ in scales))


def layout(shapes: dict[str, tuple[int, ...]]) -> layout_pb2.Layout:
    groups = [layout_pb2.Group(name=name, shape=shape) for name, shape in shapes.items()]
    return layout_pb2.Layout(groups=groups)


def test_layers_of_a_sequential_are_scaled_by_the_factor_of_each() -> None:
    """Their names differ in numbers only, but their kinds and so their factors differ."""
    wanted = recipe([1.0, 0.5, 0.25], [0.4, 0.2, 0.1])
    run = layout(dict.fromkeys(("0.weight", "2.weight", "4.weight"), (8, 8)))
    scaling = initial_scaling(wanted, [0.4, 0.2, 0.2], run)
    assert scaling.factors == (1.0, 1.0, 0.5)
    assert scaling.rms == (0.4, 0.2, 0.1)


@pytest.mark.parametrize("name", ["{}.bias", "layers.{}.bias", "params/Dense_{}/bias"])
def test_biases_of_layers_of_different_fan_ins_are_scaled_apart(name: str) -> None:
    """The recipe has one factor for them; where a role names them all, their shapes differ."""
    fans, rms = (4, 512, 512), [0.29, 0.025, 0.026]
    run = layout({
        name.format(2 * i).replace("bias", tensor): shape
        for i, fan in enumerate(fans)
        for tensor, shape in (("bias", (512,)), ("kernel", (512, fan)))
    })
    wanted = recipe([1.0] * 6, [0.28, None, 0.07, None, 0.068, None])
    factors = initial_scaling(wanted, [*(rms[0], 0.1), *(rms[1], 0.1), *(rms[2], 0.1)], run).factors
    apart = not name.startswith("layers")  # 2 and 4 have one role and the same shapes there
    pooled = ((0.07**2 + 0.068**2) / (0.025**2 + 0.026**2)) ** 0.5
    assert factors[::2] == pytest.approx(
        (0.28 / 0.29, 0.07 / 0.025, 0.068 / 0.026) if apart else (0.28 / 0.29, pooled, pooled)
    )
    assert factors[1::2] == (1.0, 1.0, 1.0)


def test_blocks_of_a_role_keep_their_ratios() -> None:
    wanted = recipe([0.5, 0.5], [0.21, 0.19])
    run = layout(dict.fromkeys(("blocks.0.w", "blocks.1.w"), (8, 8)))
    one, other = initial_scaling(wanted, [0.4, 0.4], run).factors
    assert one == other == pytest.approx(((0.21**2 + 0.19**2) / 0.32) ** 0.5)


def test_the_warning_has_the_range_of_a_role_s_factors() -> None:
    run = layout({f"layers.{i}.w": (8, 8 + i) for i in range(2)})
    assert needed_scaling(recipe([1.0, 1.0], [0.8, 0.2]), [0.4, 0.4], run).endswith(
        "wants other initial weights: layers.*.w by a factor of 0.5 to 2"
    )
