"""A recipe that only the policy names is known after the run was opened."""

from __future__ import annotations

import torch
from torch import nn

from fslr.torch import ModelGroups, attach
from tests.recipe_advisor import RecipeAdvisor


def job(width: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(width)
    model = nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 4))
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def test_the_opening_says_whether_initial_weights_follow_a_recipe_of_the_policy() -> None:
    advisor = RecipeAdvisor(ModelGroups(*job(16)).layout(), "mup-adam")
    model, optimizer = job(64)
    attach(model, optimizer, profile="x", advisor=advisor).close()
    assert not advisor.openings[-1].initial_weights_follow_recipe
    attach(model, optimizer, profile="x", advisor=advisor, initialize=True).close()
    advisor.openings.clear()
    attachment = attach(model, optimizer, profile="x", advisor=advisor)
    assert advisor.openings[-1].initial_weights_follow_recipe
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(2, 8)).square().mean().backward()
        optimizer.step()
    assert attachment.unanswered == 0
    attachment.close()
