"""The study of adapters: joint rates, and their multipliers."""

from __future__ import annotations

import torch
from torch import nn

import fslr.torch
from benchmarks.report.adapters import adapters as rendered
from benchmarks.studies.adapters import JointAdvisor, Losses, keep_apart, row_of
from benchmarks.transfer.lora import LoRALinear
from fslr.torch.model.groups import ModelGroups
from tests.building import content_message


def test_both_factors_have_one_multiplier_where_the_client_keeps_them_apart() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(LoRALinear(nn.Linear(4, 6), rank=2), nn.Tanh(), nn.Linear(6, 2))
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    assert len(ModelGroups(model, optimizer).adapters()) == 1
    keep_apart(model)
    assert ModelGroups(model, optimizer).adapters() == []
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    content = content_message(names)
    for point in content.points:
        point.unit_rates[:] = [1.0] * len(names)
    advisor = JointAdvisor(content)
    with fslr.torch.attach(
        model,
        optimizer,
        profile="x",
        advisor=advisor,
        answers="wait",
        listeners=[advisor.listen],
    ) as attachment:
        for _ in range(3):
            inputs = torch.randn(8, 4)
            model(inputs).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert attachment.failures == 0
    multipliers = dict(zip(names, attachment.multipliers, strict=True))
    assert multipliers["0.a.weight"] == multipliers["0.b.weight"] != 1.0


def test_the_table_shows_the_difference_and_the_best_losses() -> None:
    losses = [Losses(2.5, 2.3, 2.2, 2.2), Losses(2.5, 2.3, 2.2, 2.3)]
    rows = [row_of("2", -6, losses), row_of("2", -7, [Losses(2.4, 2.4, 2.0, 2.5)] * 2)]
    text = rendered({"adapters": rows, "seeds": 2, "ranks": [4, 32]})
    assert "| 2 | 2^-6 | 2.500 | 2.300 | 2.200 | 2.250 | +0.050 ± 0.100 |" in text
    assert "the mean loss is 2.000 with separate multipliers and 2.250 with a joint one" in text
