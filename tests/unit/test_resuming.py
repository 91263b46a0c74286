"""A training that is saved and resumed goes on as if it had never stopped."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advisor.inprocess import InProcessAdvisor
from fslr import AttachError
from fslr.advisor.v1 import policy_pb2
from fslr.torch import Attachment, MeasuringOptions, Recorder, attach
from tests.training_jobs import in_process, recorded, wide


class Job:
    """A training with momentum, a schedule and advice; all of it goes into one checkpoint."""

    def __init__(self) -> None:
        self.model, self.optimizer, _ = wide()
        policy = policy_pb2.Policy(min_interval_steps=50)  # no answer from a thread in between
        self.advice: Attachment = attach(
            self.model,
            self.optimizer,
            profile="x",
            advisor=InProcessAdvisor(recorded()),
            policy=policy,
            options=MeasuringOptions(averaging=0.5),
        )
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 20)

    def train(self, steps: range) -> None:
        for step in steps:
            inputs = torch.randint(0, 90, (8, 16), generator=torch.Generator().manual_seed(step))
            logits: Tensor = self.model(inputs)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), inputs.flatten())
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()

    def parts(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "advice": self.advice,
        }

    def save(self, file: Path) -> None:
        torch.save({name: part.state_dict() for name, part in self.parts().items()}, file)

    def load(self, file: Path) -> None:
        states = torch.load(file, weights_only=True)
        for name, part in self.parts().items():
            part.load_state_dict(states[name])


def test_a_resumed_training_ends_at_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    whole, first, second = Job(), Job(), Job()
    whole.train(range(8))
    first.train(range(4))
    first.save(tmp_path / "checkpoint.pt")
    second.load(tmp_path / "checkpoint.pt")
    second.train(range(4, 8))
    assert max(abs(m - 1) for m in second.advice.multipliers) > 0.1
    assert second.advice.multipliers == whole.advice.multipliers
    assert second.advice.step == whole.advice.step == 8
    for p, q in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(p, q)
    for job in (whole, first, second):
        job.advice.close()


def test_a_checkpoint_with_us_loads_without_us_and_the_other_way_round(tmp_path: Path) -> None:
    job = Job()
    job.train(range(2))
    job.save(tmp_path / "checkpoint.pt")
    states = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    model, optimizer, _ = wide()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    for part, name in ((model, "model"), (optimizer, "optimizer"), (scheduler, "scheduler")):
        part.load_state_dict(states[name])
        job.parts()[name].load_state_dict(part.state_dict())
    job.train(range(2, 4))
    assert job.advice.failures == 0
    job.advice.close()


def test_a_recording_goes_on_where_it_was_saved() -> None:
    model, optimizer, backward = wide()
    with Recorder(model, optimizer, every=2) as recorder:
        for _ in range(3):
            backward()
            optimizer.step()
        file = io.BytesIO()
        torch.save(recorder.state_dict(), file)
    file.seek(0)
    with Recorder(model, optimizer, every=2) as resumed:
        resumed.load_state_dict(torch.load(file, weights_only=True))
        for _ in range(3):
            backward()
            optimizer.step()
        content = resumed.profile(model="x")
    assert [point.step for point in content.points] == [0, 2, 4]
    assert content.total_steps == 6
    assert content.points[0].unit_rates == recorder.profile(model="x").points[0].unit_rates


def test_a_checkpoint_of_another_model_is_refused() -> None:
    model, optimizer, _ = wide()
    other = nn.Linear(3, 2)
    with Recorder(other, torch.optim.SGD(other.parameters(), lr=0.1)) as recorder:
        state = recorder.state_dict()
    with (
        attach(model, optimizer, profile="x", advisor=in_process()) as advice,
        pytest.raises(AttachError, match=r"other groups \(2 there, 18 here; first difference: "),
    ):
        advice.load_state_dict(state)
