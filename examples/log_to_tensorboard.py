"""Watch a training with a progress bar and TensorBoard: how far each layer moves the outputs.

    pip install '.[torch,tensorboard,progress]'
    python examples/log_to_tensorboard.py
    tensorboard --logdir out/tensorboard

It trains a small network on random data for a few seconds. No advisor is needed to look; with one,
replace the recorder by ``fslr.torch.attach(model, optimizer, profile=..., listeners=...)``.
"""

from __future__ import annotations

import argparse

import torch
from rich.console import Console
from torch import nn

import fslr
import fslr.torch
from fslr.integrations.progress import ProgressListener
from fslr.integrations.tensorboard import TensorBoardListener

_PROVENANCE = fslr.Provenance(
    model="MLP", width=64, depth=3, dataset="noise", batch_size=32, commit="none", author="example"
)


def train(steps: int, folder: str) -> None:
    """Train a small network, and log every fifth step."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    teacher = torch.randn(16, 4)
    tensorboard = TensorBoardListener(folder)
    with (
        ProgressListener(steps) as progress,
        fslr.torch.Recorder(
            model, optimizer, every=5, provenance=_PROVENANCE, listeners=[tensorboard, progress]
        ),
    ):
        for _ in progress.track(range(steps)):
            inputs = torch.randn(32, 16)
            loss = nn.functional.mse_loss(model(inputs), inputs @ teacher)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    tensorboard.close()


def main() -> None:
    """Train, and say how to look at the charts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300, help="steps to train (default: 300)")
    parser.add_argument("--out", default="out/tensorboard", help="folder of the charts")
    arguments = parser.parse_args()
    train(arguments.steps, arguments.out)
    Console().print(f"tensorboard --logdir {arguments.out}")


if __name__ == "__main__":
    main()
