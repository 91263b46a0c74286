"""Compiled steps are scaled and measured, and hooks stay out of the graphs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fslr.testing import FakeAdvisor
from fslr.torch import attach

MULTIPLIERS = [0.5, 2.0, 0.25, 4.0]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def trained(compiled: str, *, tensor: bool, **options: Any) -> tuple[list[Tensor], list[int]]:
    """Train some steps; return the last step's moves, and the number of graphs after each step."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    rate: Any = torch.tensor(0.01) if tensor else 0.01
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, foreach=False)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9) if tensor else None
    advisor = FakeAdvisor(MULTIPLIERS, interval_steps=4)
    attachment = attach(
        model, optimizer, profile="x", advisor=advisor, answers="wait", max_overhead=None, **options
    )

    def train(inputs: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = model(inputs).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    train_step: Any = train
    if compiled == "training step":
        train_step = torch.compile(train, backend="eager")
    elif compiled == "optimizer step":
        optimizer.step = torch.compile(optimizer.step, backend="eager")  # type: ignore[method-assign]
    graphs: list[int] = []
    for step in range(10):
        before = [p.detach().clone() for p in model.parameters()]
        train_step(torch.randn(16, 6, generator=torch.Generator().manual_seed(step)))
        if scheduler is not None:
            scheduler.step()
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert (attachment.step, attachment.failures) == (10, 0)
    assert [m.step for m in advisor.measurements] == [0, 4, 8]
    attachment.close()
    return [p.detach() - b for p, b in zip(model.parameters(), before, strict=True)], graphs


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("compiled", "options", "tensor"),
    [
        ("training step", {}, True),
        ("training step", {"scaling": "update"}, False),
        ("optimizer step", {}, False),
    ],
)
def test_a_compiled_step_is_scaled_and_is_not_compiled_again(
    compiled: str, options: dict[str, Any], tensor: bool
) -> None:
    expected, none = trained("nothing", tensor=tensor, **options)
    moves, graphs = trained(compiled, tensor=tensor, **options)
    assert set(none) == {0}
    assert graphs[0] > 0
    assert graphs[-1] == graphs[3]
    for move, plain in zip(moves, expected, strict=True):
        torch.testing.assert_close(move, plain, rtol=1e-3, atol=1e-6)
