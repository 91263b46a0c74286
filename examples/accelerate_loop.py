"""A training loop with Accelerate: record a small model, train a wide one with its rates, resume.

    pip install '.[accelerate]' rich
    python examples/accelerate_loop.py
    accelerate launch --cpu --num_processes 2 examples/accelerate_loop.py

The models predict the next byte of Python's own documentation from the 16 bytes before it. The wide
one is saved and resumed in the middle: what the advisor knows goes into Accelerate's checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from pydoc_data.topics import topics

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor, nn

import fslr
from advisor.local.in_process import InProcessAdvisor
from fslr.integrations.accelerate import attach, record

_CONTEXT = 16


def text() -> Tensor:
    """Return Python's help topics as bytes."""
    return torch.tensor(list("".join(topics.values()).encode()), dtype=torch.int64)


def network(width: int) -> nn.Module:
    """Return a network with two hidden layers."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(256, 16),
        nn.Flatten(),
        nn.Linear(16 * _CONTEXT, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 256),
    )


def train(
    accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer, steps: range
) -> float:
    """Make some steps, and return the mean loss of the last ones."""
    data, losses = text().to(accelerator.device), []
    for step in steps:
        seed = 1_000 * step + accelerator.process_index
        generator = torch.Generator().manual_seed(seed)
        starts = torch.randint(len(data) - _CONTEXT, (64,), generator=generator)
        windows = data[starts[:, None] + torch.arange(_CONTEXT + 1)]
        loss = nn.functional.cross_entropy(model(windows[:, :-1]), windows[:, -1])
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return sum(losses[-20:]) / len(losses[-20:])


def main() -> None:
    """Record the small model, then train the wide one in two parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps of each training")
    parser.add_argument("--width", type=int, default=1024, help="of the wide network")
    parser.add_argument("--out", type=Path, default=Path("out/accelerate"), help="a folder")
    options = parser.parse_args()
    half, steps = options.steps // 2, options.steps

    def prepared(width: int) -> tuple[Accelerator, nn.Module, torch.optim.Optimizer]:
        accelerator = Accelerator(cpu=True)
        model = network(width)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
        model, optimizer = accelerator.prepare(model, optimizer)
        return accelerator, model, optimizer

    accelerator, model, optimizer = prepared(64)
    provenance = fslr.Provenance("MLP", width=64, depth=2, dataset="help topics", batch_size=64)
    with record(accelerator, model, optimizer, every=10, provenance=provenance) as recorder:
        small = train(accelerator, model, optimizer, range(steps))
    advisor = InProcessAdvisor(recorder.profile())

    accelerator, model, optimizer = prepared(options.width)
    plain = train(accelerator, model, optimizer, range(steps))

    accelerator, model, optimizer = prepared(options.width)
    with attach(accelerator, model, optimizer, profile="mlp", advisor=advisor):
        train(accelerator, model, optimizer, range(half))
        accelerator.save_state(str(options.out / "half"))
    accelerator, model, optimizer = prepared(options.width)
    with attach(accelerator, model, optimizer, profile="mlp", advisor=advisor) as attachment:
        accelerator.load_state(str(options.out / "half"))
        advised = train(accelerator, model, optimizer, range(half, steps))

    if accelerator.is_main_process:
        console = Console()
        console.print(f"width 64, recorded:             loss {small:.3f}")
        console.print(f"width {options.width}, same learning rate: loss {plain:.3f}")
        console.print(f"width {options.width}, with advice:        loss {advised:.3f}")
        console.print(repr(attachment), soft_wrap=True)


if __name__ == "__main__":
    main()
