"""A training that is saved and resumed continues as if it had not stopped."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fslr import AttachError, RunInfo
from fslr.advisor.v1 import policy_pb2
from fslr.torch import Attachment, MeasuringOptions, Recorder, attach
from tests import spy_advisor as spy
from tests.building import content_message
from tests.training_jobs import SpyAdvisor, in_process, wide
from tests.waiting import eventually

POLICY = policy_pb2.Policy(min_interval_steps=3, max_interval_steps=3, target_relative_error=0.05)


class Job:
    """A training with momentum, a schedule and advice; all of it goes into one checkpoint."""

    def __init__(self) -> None:
        self.model, self.optimizer, _ = wide()
        self.advisor = SpyAdvisor()
        self.attachment: Attachment = attach(
            self.model,
            self.optimizer,
            profile="x",
            advisor=self.advisor,
            run=RunInfo(policy=POLICY),
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
            self.await_answer()

    def await_answer(self) -> None:
        """Wait for the answer, so that it always applies from the next step."""
        background = self.attachment._run._exchange._background
        assert background is not None
        eventually(lambda: not background.outstanding)

    def parts(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "attachment": self.attachment,
        }

    def save(self, file: Path) -> None:
        torch.save({name: part.state_dict() for name, part in self.parts().items()}, file)

    def load(self, file: Path, **how: Any) -> None:
        states = torch.load(file, weights_only=True, **how)
        for name, part in self.parts().items():
            part.load_state_dict(states[name])


@pytest.mark.compatibility("PyTorch loop", "resume")
def test_a_resumed_training_is_bit_identical_to_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, first, second = Job(), Job(), Job()
    whole.train(range(12))
    first.train(range(5))
    first.save(tmp_path / "checkpoint.pt")
    second.load(tmp_path / "checkpoint.pt")
    second.train(range(5, 12))
    assert [m.step for m in whole.advisor.measurements] == [0, 3, 6, 9]
    assert whole.advisor.measurements[1].probes > whole.advisor.measurements[0].probes
    assert first.advisor.measurements == whole.advisor.measurements[:2]
    assert second.advisor.measurements == whole.advisor.measurements[2:]
    assert max(abs(m - 1) for m in second.attachment.multipliers) > 0.1
    assert second.attachment.multipliers == whole.attachment.multipliers
    assert second.attachment.step == whole.attachment.step == 12
    for p, q in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(p, q)
    for job in (whole, first, second):
        assert job.attachment.failures == 0
        job.attachment.close()


@pytest.mark.compatibility("PyTorch loop", "resume")
@pytest.mark.parametrize("kind", ["dropout", "dropout and batch norm"])
def test_a_resumed_training_with_dropout_is_bit_identical(kind: str) -> None:
    """Only the whole training has measured before the step at which the other one resumes."""

    def trained(steps: range, state: dict[str, Any] | None = None) -> tuple[dict[str, Any], Any]:
        torch.manual_seed(1)
        mixing = [nn.BatchNorm1d(12)] if "batch norm" in kind else []
        layers = (nn.Linear(6, 12, bias=False), *mixing, nn.Dropout(0.3))
        model = nn.Sequential(*layers, nn.Linear(12, 3))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        names = [name for name, _ in model.named_parameters()]
        advisor = spy.SpyAdvisor(content_message(names, rate=0.3))
        policy = policy_pb2.Policy(min_interval_steps=2, max_interval_steps=2)
        with attach(
            model,
            optimizer,
            profile="x",
            advisor=advisor,
            run=RunInfo(policy=policy),
            answers="wait",
            max_overhead=None,
        ) as attachment:
            if state is not None:
                model.load_state_dict(state["model"])
                optimizer.load_state_dict(state["optimizer"])
                attachment.load_state_dict(state["attachment"])
                torch.set_rng_state(state["generator"])
            for step in steps:
                inputs = torch.randn(16, 6, generator=torch.Generator().manual_seed(step))
                optimizer.zero_grad()
                nn.functional.mse_loss(model(inputs), inputs[:, :3]).backward()
                optimizer.step()
            assert attachment.failures == 0
            assert bool(attachment.slow_groups) == bool(mixing)
            result = copy.deepcopy({
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "attachment": attachment.state_dict(),
                "generator": torch.get_rng_state(),
            })
        return result, advisor.measurements

    whole, measurements = trained(range(7))
    half, before = trained(range(3))
    resumed, after = trained(range(3, 7), half)
    assert [m.step for m in measurements] == [0, 2, 4, 6]
    assert [*before, *after] == measurements
    assert resumed["attachment"]["run"]["multipliers"] == whole["attachment"]["run"]["multipliers"]
    assert torch.equal(resumed["generator"], whole["generator"])
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, resumed["model"][name]), name


def test_checkpoints_load_with_and_without_an_attachment(tmp_path: Path) -> None:
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
    assert job.attachment.failures == 0
    job.attachment.close()


@pytest.mark.compatibility("PyTorch loop", "resume")
def test_a_resumed_recording_continues_where_it_was_saved() -> None:
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
        content = resumed.profile("x")
    assert [point.step for point in content.points] == [0, 2, 4]
    assert content.total_steps == 6
    assert content.points[0].unit_rates == recorder.profile("x").points[0].unit_rates


def _changed(state: dict[str, Any], **run: Any) -> dict[str, Any]:
    return {**state, "run": {**state["run"], **run}}


def test_a_checkpoint_of_a_different_training_is_refused() -> None:
    model, optimizer, _ = wide()
    other = nn.Linear(3, 2)
    with Recorder(other, torch.optim.SGD(other.parameters(), lr=0.1)) as recorder:
        state = recorder.state_dict()
    with (
        Recorder(model, optimizer) as recorder,
        pytest.raises(
            AttachError, match=r"different groups \(2 there, 18 here; first difference: 'weight' th"
        ),
    ):
        recorder.load_state_dict(state)
    with attach(model, optimizer, profile="x", advisor=in_process()) as attachment:
        with pytest.raises(AttachError, match="no entry 'scaler'; pass what state_dict"):
            attachment.load_state_dict(state)
        with pytest.raises(AttachError, match="belongs to a recording, not to an advised run"):
            attachment.load_state_dict({**attachment.state_dict(), "run": state["run"]})
        with pytest.raises(AttachError, match=r"format version 99, and this version .* reads 1"):
            attachment.load_state_dict(_changed(attachment.state_dict(), version=99))


def test_a_checkpoint_may_be_loaded_onto_any_device() -> None:
    """The state holds no tensors, so ``map_location`` does not move it."""
    model, optimizer, backward = wide()
    options = MeasuringOptions(averaging=0.5)
    file = io.BytesIO()
    with Recorder(model, optimizer, every=2, options=options) as recorder:
        backward()
        optimizer.step()
        state = recorder.state_dict()
        meter = state["meter"]
        meter["probes"]["cuda:99"] = meter["probes"]["cpu"]  # of a device that does not exist here
        torch.save(state, file)
        for _ in range(2):
            backward()
            optimizer.step()
        points = recorder.profile("x").points
    file.seek(0)
    state = torch.load(file, weights_only=True, map_location="meta")
    model, optimizer, backward = wide()
    backward()
    optimizer.step()
    with Recorder(model, optimizer, every=2, options=options) as resumed:
        resumed.load_state_dict(state)
        for _ in range(2):
            backward()
            optimizer.step()
        assert resumed.profile("x").points == points


@pytest.mark.parametrize("broken", ["meter", "multipliers", "probes", "scaler"])
def test_a_checkpoint_that_cannot_be_loaded_changes_nothing(broken: str) -> None:
    job, other = Job(), Job()
    job.train(range(5))
    state = job.attachment.state_dict()
    if broken == "probes":
        state["meter"]["probes"]["cpu"] = b"no generator's state"
    elif broken == "scaler":
        state["scaler"] = {"notes": []}
    elif broken == "multipliers":
        del state["run"]["multipliers"]
    else:
        del state[broken]
    other.train(range(2))
    before = other.attachment.state_dict()
    with pytest.raises((AttachError, KeyError, ValueError, RuntimeError), match=r".+"):
        other.attachment.load_state_dict(state)
    assert other.attachment.state_dict() == before
    for each in (job, other):
        each.attachment.close()


def test_a_training_resumed_without_a_state_begins_at_its_own_step() -> None:
    model, optimizer, backward = wide()
    advisor = SpyAdvisor()
    policy = policy_pb2.Policy(min_interval_steps=2, max_interval_steps=2)
    with attach(
        model,
        optimizer,
        profile="x",
        advisor=advisor,
        run=RunInfo(policy=policy),
        first_step=100,
        answers="wait",
        max_overhead=None,
    ) as attachment:
        for _ in range(4):
            backward()
            optimizer.step()
        assert attachment.step == 104
    assert [m.step for m in advisor.measurements] == [100, 102]
    with Recorder(model, optimizer, every=3, first_step=100) as recorder:
        for _ in range(5):
            backward()
            optimizer.step()
        assert [point.step for point in recorder.profile("x").points] == [100, 103]


def test_a_negative_first_step_is_refused() -> None:
    model, optimizer, _ = wide()
    with pytest.raises(AttachError, match=r"first_step is -1; it must be the number of steps"):
        attach(model, optimizer, profile="x", advisor=in_process(), first_step=-1)
    with pytest.raises(AttachError, match=r"first_step is -2; it must be the number of steps"):
        Recorder(model, optimizer, first_step=-2)
