"""Factors on epsilon, betas and weight decay act in the steps, and users see their own settings."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from fslr.torch.steps.step_check import StepCheck
from fslr.training.events import Event, Listeners, Warned
from fslr.training.setting_factors import SettingFactors
from tests.scaled_steps import groups_of_a_step, scaler_of
from tests.small_net import backward, net

MULTIPLIERS = [0.5, 2.0, 0.25, 1.0]
FACTORS = [
    SettingFactors(0.5, 2.0, 8.0, 1.0, 1.0),
    SettingFactors(),
    SettingFactors(0.25, 4.0, 0.5, 0.5, 2.0),
    SettingFactors(1.0, 1.0, 1.0, 1.0, 4.0),
]
LEARNING_RATE, DECAY = 0.01, 0.1


def by_hand(model: nn.Module, kind: Any, *, keeps_decay: bool, options: Any) -> Any:
    """Return an optimizer with a group for each parameter, and all factors written into it."""
    groups: list[dict[str, Any]] = []
    for parameter, multiplier, factors in zip(
        model.parameters(), MULTIPLIERS, FACTORS, strict=True
    ):
        # A kept decay of a step is the recipe's: its learning rate times its decay.
        scale = factors.learning_rate / multiplier if keeps_decay else 1.0
        group = {
            "params": [parameter],
            "lr": LEARNING_RATE * multiplier,
            "weight_decay": DECAY * factors.weight_decay * scale,
        }
        if kind is not torch.optim.SGD:
            beta1, beta2 = 0.9, 0.95
            group["eps"] = 1e-3 * factors.epsilon
            group["betas"] = (
                1 - (1 - beta1) * factors.one_minus_beta1,
                1 - (1 - beta2) * factors.one_minus_beta2,
            )
        groups.append(group)
    return kind(groups, **options)


@pytest.mark.parametrize("keeps_decay", [False, True])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.AdamW, {"foreach": True}),
        (torch.optim.NAdam, {"decoupled_weight_decay": True}),
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    ],
)
def test_steps_equal_those_of_an_optimizer_with_the_factors_in_its_groups(
    kind: Any, options: Any, keeps_decay: bool
) -> None:
    model = net()
    reference = copy.deepcopy(model)
    adaptive = {} if kind is torch.optim.SGD else {"eps": 1e-3, "betas": (0.9, 0.95)}
    optimizer = kind(
        model.parameters(), lr=LEARNING_RATE, weight_decay=DECAY, **adaptive, **options
    )
    scaler = scaler_of(optimizer, list(model.parameters()))
    lines = scaler.set_settings(FACTORS)
    scaler.scale(MULTIPLIERS, keeps_decay=keeps_decay)
    expected = by_hand(reference, kind, keeps_decay=keeps_decay, options=options)
    before = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    for step in range(4):
        for each, stepping in ((model, optimizer), (reference, expected)):
            backward(each, step)
            stepping.step()
        after = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
        assert len(optimizer.param_groups) == 1
        assert {**after, "mu_products": 0} == {**before, "mu_products": 0}
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)
    decays = [LEARNING_RATE * DECAY * f.weight_decay for f in FACTORS]
    if kind is not torch.optim.SGD:  # whose momentum adds up the decay of earlier steps
        assert scaler.decays() == pytest.approx(decays)
    kept = [d * f.learning_rate for d, f in zip(scaler.decays(), FACTORS, strict=True)]
    assert scaler.kept_decays() == pytest.approx(kept)
    assert lines == ([] if adaptive else [f"{NOT_TAKEN} epsilon and betas ({NO_SETTING}); {OWN}"])


NOT_TAKEN, OWN = "SGD does not take the recipe's factors on", "it steps with its own"
NO_SETTING = "its groups have no such setting, or one that is not a number"


def test_factors_follow_settings_that_a_schedule_writes_and_end_when_the_scaler_does() -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, eps=1e-3)
    scaler = scaler_of(optimizer, list(model.parameters()))
    scaler.set_settings(FACTORS)
    for eps, beta1 in ((1e-3, 0.9), (1e-2, 0.8), (1e-2, 0.8)):
        optimizer.param_groups[0].update(eps=eps, betas=(beta1, 0.99))
        seen = {id(p): group for group in groups_of_a_step(scaler) for p in group["params"]}
        for parameter, factors in zip(model.parameters(), FACTORS, strict=True):
            assert seen[id(parameter)]["eps"] == pytest.approx(eps * factors.epsilon)
            beta = 1 - (1 - beta1) * factors.one_minus_beta1
            assert seen[id(parameter)]["betas"][0] == pytest.approx(beta)
        backward(model, 0)
        optimizer.step()
    scaler.disarm()
    (group,) = groups_of_a_step(scaler)
    assert group["eps"] == 1e-2
    assert group["betas"] == (0.8, 0.99)


def test_decay_that_adam_normalizes_and_steps_scaled_by_their_update_take_no_factor() -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, weight_decay=DECAY)
    scaler = scaler_of(optimizer, list(model.parameters()))
    (line,) = scaler.set_settings(FACTORS)
    assert line == (
        "Adam does not take the recipe's factors on weight decay (it normalizes the decay with the "
        "gradient, or is not known; use one such as AdamW); it steps with its own"
    )
    assert {group["weight_decay"] for group in groups_of_a_step(scaler)} == {DECAY}
    warned: list[Event] = []
    check = StepCheck([optimizer], scaler, Listeners([warned.append]), lambda: 7, lambda _: None)
    check.does_not_follow(optimizer, "a reason")
    (event,) = warned
    assert isinstance(event, Warned)
    assert event.message.endswith(
        "a reason; the recipe's factors on its other settings end, since its groups are not split"
    )
    (line,) = scaler.set_settings(FACTORS)
    assert line == (
        "Adam does not take the recipe's factors on weight decay, epsilon and betas (multipliers "
        "act on its updates, so that its groups are not split); it steps with its own"
    )
    assert len(groups_of_a_step(scaler)) == 1
    assert scaler.kept_decays() == scaler.decays()
