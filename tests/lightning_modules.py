"""Tiny trainings of Lightning on random numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def net(width: int = 16) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))


def loader(batch_size: int = 8) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(96, 6, generator=generator)
    return DataLoader(TensorDataset(inputs, inputs[:, :3]), batch_size)


def equal_batches() -> DataLoader[Any]:
    """Return batches that are all the same: a resumed trainer may repeat or leave out one."""
    inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(1)).repeat(12, 1)
    return DataLoader(TensorDataset(inputs, inputs[:, :3]), 8)


class Bypassing(lightning.LightningModule):
    """A module whose training step calls its network directly; ``forward`` is not used."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.net = net(width)

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Manual(Bypassing):
    """A module that steps two optimizers of one network by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor]) -> None:  # type: ignore[override]
        optimizers: Any = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(nn.functional.mse_loss(self.net(batch[0]), batch[1]))
        for optimizer in optimizers:
            optimizer.step()

    def configure_optimizers(self) -> Any:
        first, last = self.net[0], self.net[2]
        return [torch.optim.Adam(first.parameters(), 0.01), torch.optim.SGD(last.parameters(), 0.1)]


class TwoNets(lightning.LightningModule):
    """A module with two networks, each with its optimizer, as a GAN has."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.encoder, self.decoder = net(), nn.Linear(3, 3)

    def training_step(self, batch: list[Tensor]) -> None:
        optimizers: Any = self.optimizers()
        first, second = optimizers
        codes = self.encoder(batch[0])
        first.zero_grad()
        self.manual_backward(codes.square().mean())
        first.step()
        second.zero_grad()
        self.manual_backward(nn.functional.mse_loss(self.decoder(codes.detach()), batch[1]))
        second.step()

    def configure_optimizers(self) -> Any:
        return [
            torch.optim.Adam(self.encoder.parameters(), 0.01),
            torch.optim.Adam(self.decoder.parameters(), 0.01),
        ]


class WithForward(lightning.LightningModule):
    """A module with several parts and a ``forward`` that its training step calls."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.body(inputs).relu())
        return outputs

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return nn.functional.mse_loss(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.01)


def trainer(folder: Path, *callbacks: Any, **changes: Any) -> Any:
    return lightning.Trainer(**{
        "default_root_dir": str(folder),
        "max_steps": 6,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 2,
        "callbacks": list(callbacks),
        **changes,
    })
