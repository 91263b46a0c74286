"""Several recorders and attachments on one model do not disturb each other."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from fslr.advisor.v1 import profile_pb2
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
def test_each_recorder_of_a_model_measures_as_if_it_were_the_only_one(watched: str) -> None:
    together = _recorded(watched, (0, 1))
    for place in (0, 1):
        (alone,) = _recorded(watched, (place,))
        assert [point.step for point in alone] == [0, 1, 2]
        for one, other in zip(alone, together[place], strict=True):
            assert list(other.unit_rates) == pytest.approx(list(one.unit_rates), rel=1e-5)


def _recorded(watched: str, places: Sequence[int]) -> list[list[profile_pb2.ProfilePoint]]:
    """Return what recorders of a training's optimizers record, given by their places."""
    torch.manual_seed(0)
    model = Net()
    optimizers = (
        torch.optim.Adam(model.head.parameters(), lr=0.01),
        torch.optim.SGD(model.body.parameters(), lr=0.01),
    )
    part = model if watched == "model" else model.body
    recorders = [Recorder((model, part)[i], optimizers[i], every=1) for i in places]
    for step in range(3):
        model.zero_grad()
        inputs = torch.randn(32, 6, generator=torch.Generator().manual_seed(step))
        model(inputs).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
        for recorder in recorders:
            assert recorder.estimate is not None
            assert recorder.estimate.examples == 32
    for recorder in recorders:
        recorder.close()
        assert (recorder.failures, recorder.step) == (0, 3)
    return [list(recorder.profile("x").points) for recorder in recorders]
