"""A small training whose events go to a listener."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import fslr.torch
from fslr import Event, Listener
from fslr.testing import FakeAdvisor

NAMES = ["0.weight", "0.bias", "2.weight", "2.bias"]
LEARNING_RATE = 0.1
STEPS = 7
MEASURED = [0, 3, 6]


@dataclass(frozen=True, slots=True)
class Trained:
    """A training that has ended.

    Attributes:
        weights: The model's weights.
        events: What happened.
        advisor: The advisor.
    """

    weights: list[Tensor]
    events: list[Event]
    advisor: FakeAdvisor


def train(
    *listeners: Listener,
    record: bool = False,
    names: Sequence[str] = ("0", "2"),
    on_step: Callable[[int], None] = lambda _: None,
) -> Trained:
    """Train for some steps, with a warning in the first answer and a failed request in the last.

    Args:
        listeners: Receive the events.
        record: Whether the training is recorded, without an advisor.
        names: What the first and the last layer are called.
        on_step: Called after each step with its index.
    """
    torch.manual_seed(0)
    model = nn.Sequential()
    for name, layer in zip((names[0], "1", names[1]), layers(), strict=True):
        model.add_module(name, layer)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    events: list[Event] = []
    advisor = FakeAdvisor([0.5, 1.0, 2.0, 4.0], interval_steps=3)
    advisor.warn("the batch size differs from the profile's")
    receivers = [events.append, *listeners]
    attached: fslr.torch.Recorder | fslr.torch.Attachment
    if record:
        attached = fslr.torch.Recorder(model, optimizer, every=3, listeners=receivers)
    else:
        attached = fslr.torch.attach(
            model, optimizer, profile="x", advisor=advisor, answers="wait", listeners=receivers
        )
    with attached:
        for step in range(STEPS):
            if step == MEASURED[-1]:
                advisor.fail(fslr.UnavailableError("no route"))
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            on_step(step)
    return Trained([p.detach().clone() for p in model.parameters()], events, advisor)


def layers() -> tuple[nn.Module, ...]:
    return nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)
