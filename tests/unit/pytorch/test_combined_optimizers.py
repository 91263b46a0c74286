"""Optimizers that combine others step by their multipliers, whatever their groups are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.combined_optimizers import Concatenated, Copied, Joined, Orthogonal
from tests.small_net import MULTIPLIERS, attached, backward, net

COMBINATIONS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "joined property": Joined,
    "concatenated list": Concatenated,
    "copied groups": Copied,
    "copies of a joined property": lambda *inner: Copied(Joined(*inner)),
    "joined copies": lambda *inner: Joined(*map(Copied, inner)),
}
RATES = [0.02, 0.003, 0.02, 0.003]  # of matrices and of biases


@pytest.mark.parametrize("scaling", ["auto", "update", "learning_rates"])
@pytest.mark.parametrize("name", COMBINATIONS)
def test_each_tensor_steps_by_its_multiplier_at_the_scheduled_learning_rate(
    name: str, scaling: Any
) -> None:
    models = plain, advised = net(), net()
    optimizers = [
        COMBINATIONS[name](
            Orthogonal([p for p in model.parameters() if p.dim() > 1], lr=RATES[0]),
            torch.optim.Adam([p for p in model.parameters() if p.dim() <= 1], lr=RATES[1]),
        )
        for model in models
    ]
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(one, 0.5) for one in optimizers]
    attachment, advisor = attached(
        *(advised, optimizers[1]), interval=1, scaling=scaling, answers="wait"
    )
    with attachment:
        for step in range(4):
            plain.load_state_dict(advised.state_dict())
            start = [p.detach().clone() for p in plain.parameters()]
            for model, optimizer, scheduler in zip(models, optimizers, schedulers, strict=True):
                backward(model, step)
                optimizer.step()
                scheduler.step()
            moves = [p.detach() - b for p, b in zip(plain.parameters(), start, strict=True)]
            for q, before, move, multiplier in zip(
                advised.parameters(), start, moves, MULTIPLIERS, strict=True
            ):
                torch.testing.assert_close(q - before, move * multiplier, rtol=2e-3, atol=1e-6)
            reported = list(advisor.measurements[-1].learning_rates)
            assert reported == pytest.approx([rate * 0.5**step for rate in RATES])
            # An orthogonal matrix has singular values of 1.
            assert float(torch.linalg.matrix_norm(moves[0], 2)) == pytest.approx(
                reported[0], rel=1e-3
            )
    assert (attachment.step, attachment.failures, len(advisor.measurements)) == (4, 0, 4)
