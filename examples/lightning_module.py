"""Record a small Lightning module, and train a wide one with its rates.

    pip install '.[lightning]' rich
    python examples/lightning_module.py

The networks predict the next byte of Python's own documentation from the 16 bytes before it. The
wide one trains twice at the small one's learning rate: plain, and with advice from its profile.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import lightning.pytorch as lightning
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import fslr
from advisor.local.in_process import InProcessAdvisor
from fslr.integrations.lightning import AdviceCallback, RecorderCallback

_CONTEXT = 16


class Bytes(lightning.LightningModule):
    """Predicts the next byte; its training step calls the network directly.

    Args:
        width: Width of the hidden layers.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.losses: list[float] = []
        self.net = nn.Sequential(
            nn.Embedding(256, 16),
            nn.Flatten(),
            nn.Linear(16 * _CONTEXT, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 256),
        )

    def training_step(self, batch: list[Tensor]) -> Tensor:
        """Return the loss of a batch."""
        (windows,) = batch
        loss = nn.functional.cross_entropy(self.net(windows[:, :-1]), windows[:, -1])
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.Adam(self.parameters(), lr=0.005)


def loader(steps: int) -> DataLoader[Any]:
    """Return as many batches as there are steps, in a fixed order."""
    text = torch.tensor(list("".join(topics.values()).encode()), dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    starts = torch.randint(len(text) - _CONTEXT, (64 * steps,), generator=generator)
    return DataLoader(TensorDataset(text[starts[:, None] + torch.arange(_CONTEXT + 1)]), 64)


def train(width: int, steps: int, folder: Path, *callbacks: lightning.Callback) -> float:
    """Train a network, and return the mean loss of the last 20 steps."""
    module = Bytes(width)
    trainer = lightning.Trainer(
        default_root_dir=folder,
        max_steps=steps,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(module, loader(steps))
    return sum(module.losses[-20:]) / len(module.losses[-20:])


def main() -> None:
    """Record the small network, then train the wide one, plain and advised."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps of each training")
    parser.add_argument("--width", type=int, default=1024, help="of the wide network")
    parser.add_argument("--out", type=Path, default=Path("out/lightning"), help="a folder")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")

    provenance = fslr.Provenance("MLP", width=64, depth=2, dataset="help topics", batch_size=64)
    recorder = RecorderCallback(every=10, provenance=provenance)
    small = train(64, options.steps, options.out, recorder)
    plain = train(options.width, options.steps, options.out)
    advice = AdviceCallback(profile="mlp", advisor=InProcessAdvisor(recorder.profile()))
    advised = train(options.width, options.steps, options.out, advice)

    console = Console()
    console.print(f"width 64, recorded:             loss {small:.3f}")
    console.print(f"width {options.width}, same learning rate: loss {plain:.3f}")
    console.print(f"width {options.width}, with advice:        loss {advised:.3f}")
    console.print(repr(advice.attachment), soft_wrap=True)


if __name__ == "__main__":
    main()
