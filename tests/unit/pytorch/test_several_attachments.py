"""Several recorders and attachments on one model do not disturb each other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fslr.torch import Recorder


class Net(nn.Module):
    """A model of which a part may be attached as well."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out


@pytest.mark.parametrize("watched", ["model", "part"])
def test_each_recorder_of_a_model_measures_the_whole_training_batch(watched: str) -> None:
    torch.manual_seed(0)
    model = Net()
    first = torch.optim.Adam(model.head.parameters(), lr=0.01)
    second = torch.optim.SGD(model.body.parameters(), lr=0.01)
    part = model if watched == "model" else model.body
    with (
        Recorder(model, first, every=1) as one,
        Recorder(part, second, every=1) as other,
    ):
        for _ in range(3):
            model.zero_grad()
            model(torch.randn(32, 6)).square().mean().backward()
            first.step()
            second.step()
            for recorder in (one, other):
                assert recorder.estimate is not None
                assert recorder.estimate.examples == 32
    assert (one.failures, other.failures) == (0, 0)
    assert (one.step, other.step) == (3, 3)
