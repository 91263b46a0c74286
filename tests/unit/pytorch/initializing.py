"""Jobs whose initial weights a recipe scales."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fslr.torch import Attachment, ModelGroups, attach
from fslr.training.events import Event, Warned
from tests.recipe_advisor import RecipeAdvisor

OPTIONS: dict[str, Any] = {"lr": 0.01, "eps": 1e-6, "weight_decay": 0.1}


class Tied(nn.Module):
    """A small model whose readout can be its embedding."""

    def __init__(self, width: int, *, tied: bool = False, zero_head: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, width)
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, width)
        self.head = nn.Linear(width, 20, bias=False)
        if zero_head:
            nn.init.zeros_(self.head.weight)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        out: Tensor = self.head(self.norm(x + torch.tanh(self.hidden(x))))
        return out


def job(width: int, **options: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(width)
    model = Tied(width, **options)
    return model, torch.optim.AdamW(model.parameters(), **OPTIONS)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 1) -> None:
    for step in range(steps):
        tokens = torch.randint(0, 20, (8, 5), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()


def advisor_of(recipe: str, *, stepped: bool = False, **options: Any) -> RecipeAdvisor:
    """Return an advisor of runs on a base, whose recording may have begun late."""
    model, optimizer = job(16, **options)
    if stepped:
        train(model, optimizer)
    return RecipeAdvisor(ModelGroups(model, optimizer).layout(), recipe)


def attached(
    model: nn.Module, optimizer: Any, advisor: Any, **options: Any
) -> tuple[Attachment, list[Event]]:
    events: list[Event] = []
    attachment = attach(
        *(model, optimizer),
        **{"profile": "x", "advisor": advisor, "initialize": True, **options},
        listeners=[events.append],
    )
    return attachment, events


def weight(model: nn.Module, module: str) -> Tensor:
    found: Tensor = model.get_submodule(module).get_parameter("weight")
    return found


def rms(model: nn.Module) -> dict[str, float]:
    return {name: p.detach().square().mean().sqrt().item() for name, p in model.named_parameters()}


def messages(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Warned)]


MUP = "mup-adam"


def loaded(model: nn.Module, _: torch.optim.Optimizer) -> None:
    trained, optimizer = job(64)
    train(trained, optimizer, 3)
    model.load_state_dict(trained.state_dict())
