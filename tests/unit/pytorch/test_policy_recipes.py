"""A recipe that only the policy names is known after the run was opened."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from advisor.local.in_process import InProcessAdvisor
from fslr.advisor.v1 import policy_pb2
from fslr.torch import ModelGroups, Recorder, attach
from tests.building import COMPLETE_PROVENANCE
from tests.recipe_advisor import RecipeAdvisor
from tests.scaled_steps import groups_of_a_step


def job(width: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(width)
    model = nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 4))
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for step in range(2):
        inputs = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()


def test_the_opening_says_whether_initial_weights_follow_a_recipe_of_the_policy() -> None:
    advisor = RecipeAdvisor(ModelGroups(*job(16)).layout(), "mup-adam")
    model, optimizer = job(64)
    attach(model, optimizer, profile="x", advisor=advisor).close()
    assert not advisor.openings[-1].initial_weights_follow_recipe
    attach(model, optimizer, profile="x", advisor=advisor, initialize=True).close()
    advisor.openings.clear()
    attachment = attach(model, optimizer, profile="x", advisor=advisor)
    assert advisor.openings[-1].initial_weights_follow_recipe
    train(model, optimizer)
    assert attachment.unanswered == 0
    attachment.close()


def test_what_is_measured_corrects_learning_rates_and_keeps_the_recipe_s_other_settings() -> None:
    base, base_optimizer = job(16)
    with Recorder(base, base_optimizer, every=1) as recorder:
        train(base, base_optimizer)
    content = recorder.profile(COMPLETE_PROVENANCE, policy=policy_pb2.Policy(recipe="mup-adam"))
    model, optimizer = job(64)
    advisor = InProcessAdvisor(content)
    attachment = attach(
        model, optimizer, profile="x", advisor=advisor, answers="wait", initialize=True
    )
    first = dict(attachment.by_name())
    train(model, optimizer)
    corrected = attachment.by_name()
    readout = corrected["2.weight"]
    assert readout.recipe is not None
    assert (readout.recipe.epsilon, readout.recipe.weight_decay) == (4.0, 4.0)
    assert any(each.multiplier != first[name].multiplier for name, each in corrected.items())
    seen = {id(p): group for group in groups_of_a_step(attachment._scaler) for p in group["params"]}
    for name, parameter in model.named_parameters():
        advice, group = corrected[name], seen[id(parameter)]
        assert advice.recipe is not None
        assert group["lr"] == pytest.approx(0.01 * advice.multiplier)
        assert group["eps"] == pytest.approx(1e-8 * advice.recipe.epsilon)
        assert group["weight_decay"] == pytest.approx(0.01 * advice.recipe.weight_decay)
    attachment.close()
