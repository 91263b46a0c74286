"""Watch a training with a progress bar and a tracker: how far each layer moves the outputs.

    pip install '.[torch,tensorboard,progress]'
    python examples/log_to_trackers.py
    pip install '.[torch,wandb,mlflow,progress]'
    python examples/log_to_trackers.py --tracker wandb
    python examples/log_to_trackers.py --tracker mlflow

It trains a small network on random data for a few seconds. Nothing leaves the machine: Weights &
Biases is offline, and MLflow writes files. No advisor is needed to look; with one, replace the
recorder by ``fslr.torch.attach(model, optimizer, profile=..., listeners=...)``.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

import fslr
import fslr.torch
from fslr.integrations.mlflow import MlflowListener
from fslr.integrations.progress import ProgressListener
from fslr.integrations.tensorboard import TensorBoardListener
from fslr.integrations.wandb import WandbListener
from fslr.training.events import Listener

Log = Callable[[float], object]
Tracker = tuple[Listener, Log]
_PROVENANCE = fslr.Provenance(
    model="MLP", width=64, depth=3, dataset="noise", batch_size=32, commit="none", author="example"
)


@contextmanager
def to_tensorboard(folder: Path) -> Iterator[Tracker]:
    """Write to files of TensorBoard."""
    from tensorboard.summary import Writer  # noqa: PLC0415 - only one tracker is needed

    writer, steps = Writer(str(folder)), itertools.count()
    yield TensorBoardListener(writer), lambda loss: writer.add_scalar("loss", loss, next(steps))
    writer.close()


@contextmanager
def to_wandb(folder: Path) -> Iterator[Tracker]:
    """Log to an offline run of Weights & Biases."""
    import wandb  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    with wandb.init(project="fslr-example", mode="offline", dir=folder) as run:
        yield WandbListener(run), lambda loss: run.log({"loss": loss})


@contextmanager
def to_mlflow(folder: Path) -> Iterator[Tracker]:
    """Log to files of MLflow."""
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # a database needs more packages
    import mlflow  # noqa: PLC0415

    mlflow.set_tracking_uri(folder.absolute().as_uri())
    with mlflow.start_run():
        listener, steps = MlflowListener(), itertools.count()
        yield (
            listener,
            lambda loss: mlflow.log_metric("loss", loss, next(steps), synchronous=False),
        )
        listener.close()


TRACKERS: dict[str, tuple[Callable[[Path], AbstractContextManager[Tracker]], str]] = {
    "tensorboard": (to_tensorboard, "tensorboard --logdir {folder}"),
    "wandb": (to_wandb, "wandb sync --sync-all {folder}/wandb"),
    "mlflow": (
        to_mlflow,
        "MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {folder}",
    ),
}
"""Each tracker, and the command that shows or uploads what it wrote."""


def train(steps: int, listener: Listener, log: Log) -> None:
    """Train a small network, and measure every fifth step."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    teacher = torch.randn(16, 4)
    with (
        ProgressListener(steps) as progress,
        fslr.torch.Recorder(
            model, optimizer, every=5, provenance=_PROVENANCE, listeners=[listener, progress]
        ),
    ):
        for _ in progress.track(range(steps)):
            inputs = torch.randn(32, 16)
            loss = nn.functional.mse_loss(model(inputs), inputs @ teacher)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            log(loss.item())


def main() -> None:
    """Train, and say how to look at the charts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tracker", choices=TRACKERS, default="tensorboard")
    parser.add_argument("--steps", type=int, default=300, help="steps to train (default: 300)")
    parser.add_argument("--out", type=Path, default=None, help="a folder (default: out/TRACKER)")
    arguments = parser.parse_args()
    folder = arguments.out or Path("out") / arguments.tracker
    tracker, command = TRACKERS[arguments.tracker]
    with tracker(folder) as (listener, log):
        train(arguments.steps, listener, log)
    Console().print(command.format(folder=folder), soft_wrap=True)


if __name__ == "__main__":
    main()
