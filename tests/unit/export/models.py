"""Small models with exports for them."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import nn

from advisor.export.formats import FORMATS, FormatName
from advisor.export.rows import Export, ExportRow, Settings
from tests.unit.export import trainers

SETTINGS = Settings(learning_rate=1e-3, weight_decay=0.1)
FACTORS = (0.25, 0.5, 1.0)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.up = nn.Linear(4, 4)


def model() -> nn.ModuleDict:
    blocks = nn.ModuleList(Block() for _ in range(3))
    return nn.ModuleDict({"embed": nn.Embedding(5, 4), "layers": blocks, "head": nn.Linear(4, 5)})


def export_of(net: nn.Module) -> tuple[Export, dict[str, float]]:
    factors = {name: FACTORS[i % 3] for i, (name, _) in enumerate(net.named_parameters())}
    rows = tuple(ExportRow(name, name, factor) for name, factor in factors.items())
    return Export(rows, ()), factors


def exported(name: FormatName, export: Export) -> ModuleType:
    written = FORMATS[name].write(export, SETTINGS)
    assert not written.losses
    return trainers.load(written.text)


def values_by_name(
    net: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, tuple[float, float]]:
    names = {parameter: name for name, parameter in net.named_parameters()}
    return {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
