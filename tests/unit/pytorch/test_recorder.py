"""Recording and observing do not alter the training and the model."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advisor.local.in_process import InProcessAdvisor
from benchmarks.training import no_attachment
from fslr import AttachError, MeasurementError, Provenance, RunInfo
from fslr.torch import MeasuringOptions, Recorder, attach
from fslr.torch.calls.compiled_calls import CompiledCall, Releases
from fslr.training.events import Warned
from tests.building import content_message
from tests.training_jobs import OFTEN, recorded, wide


class SensitiveModel(nn.Module):
    """A model with dropout and batch-norm statistics, which an extra forward pass would change."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 8)
        self.statistics = nn.BatchNorm1d(8, affine=False)
        self.dropout = nn.Dropout(0.4)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.dropout(self.statistics(torch.relu(self.inner(x)))))
        return out


def train_sensitive(attached: Callable[..., Any]) -> tuple[dict[str, Tensor], Tensor]:
    torch.manual_seed(3)
    model = SensitiveModel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=201)
    with attached(model, optimizer):
        for _ in range(200):
            optimizer.zero_grad()
            model(torch.randn(12, 6)).square().sum().backward()
            optimizer.step()
            scheduler.step()
    return dict(model.state_dict()), torch.get_rng_state()


@pytest.mark.compatibility("PyTorch loop", "observe only")
@pytest.mark.parametrize("how", ["observed", "recorded"])
def test_observing_leaves_the_training_bit_identical(how: str) -> None:
    content = content_message(["inner.weight", "inner.bias", "head.weight", "head.bias"])
    observers: list[Any] = []

    def attached(model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
        if how == "recorded":
            observers.append(Recorder(model, optimizer, every=7))
        else:
            observers.append(
                attach(
                    model,
                    optimizer,
                    profile="x",
                    advisor=InProcessAdvisor(content),
                    observe_only=True,
                    run=RunInfo(policy=OFTEN),
                )
            )
        return observers[0]

    plain, plain_rng = train_sensitive(no_attachment)
    watched, watched_rng = train_sensitive(attached)
    assert plain.keys() == watched.keys()
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
    assert torch.equal(plain_rng, watched_rng)
    assert observers[0].failures == 0
    if how == "recorded":
        assert len(observers[0].profile("x").points) == 29


def test_a_measurement_keeps_no_memory() -> None:
    model, optimizer, backward = wide()

    def tensors() -> int:
        gc.collect()
        return sum(1 for o in gc.get_objects() if type(o) is Tensor)

    with Recorder(model, optimizer, every=2):
        counts: list[int] = []
        for i in range(9):
            backward()
            optimizer.step()
            if i % 4 == 0:
                counts.append(tensors())
    assert counts[1] == counts[2]


def test_copies_and_pickles_of_an_attached_model_are_not_attached() -> None:
    model, optimizer, backward = wide()
    with Recorder(model, optimizer, every=1) as recorder:
        backward()
        # A batch that cannot be copied must not prevent copying the model.
        unfit = (torch.ones(2, requires_grad=True) * 2,)
        recorder._meter._calls._compiled = CompiledCall(unfit, {}, (), Releases())
        copied, pickled = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
        averaged = torch.optim.swa_utils.AveragedModel(model)
        recorder._meter.forget_step()
        for other in (copied, pickled, averaged):
            other.train()
            other(torch.zeros(2, 4, dtype=torch.int64))
        assert not recorder._meter._calls.latest()


@pytest.mark.parametrize("copied", [pickle.dumps, copy.deepcopy])
def test_a_recorder_says_why_it_cannot_be_copied(copied: Any) -> None:
    model, optimizer, _ = wide()
    with (
        Recorder(model, optimizer) as recorder,
        pytest.raises(TypeError, match=r"Recorder cannot be copied or pickled.*its state_dict\(\)"),
    ):
        copied({"recorder": recorder})


def test_a_recorder_measures_at_the_given_interval() -> None:
    content = recorded()
    assert [point.step for point in content.points] == [0, 2, 4]
    assert content.total_steps == 6
    assert content.base_learning_rate == pytest.approx(0.01)
    assert content.provenance.optimizer == "Adam"
    names = [group.name for group in content.layout.groups]
    assert names[0] == "characters.weight"
    assert all(len(point.unit_rates) == len(names) for point in content.points)
    assert all(rate > 0 for rate in content.points[1].unit_rates)


def test_a_profile_needs_a_measured_step() -> None:
    model, optimizer, _ = wide()
    with (
        Recorder(model, optimizer) as recorder,
        pytest.raises(MeasurementError, match="no step was measured, so there is no profile"),
    ):
        recorder.profile("x")


def test_a_profile_names_its_author_and_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer, backward = wide()
    with Recorder(model, optimizer) as recorder:
        backward()
        optimizer.step()
        monkeypatch.setenv("LOGNAME", "somebody")
        monkeypatch.chdir(tmp_path)
        assert not recorder.profile("x").provenance.commit
        for command in ("init -q", "commit -q --allow-empty -m first"):
            subprocess.run(
                ["git", "-c", "user.name=n", "-c", "user.email=e", *command.split()], check=True
            )
        own = recorder.profile("x", role_templates=["blocks.*"])
        given = recorder.profile(Provenance(model="x", commit="", author="the team"))
    assert own.provenance.author == "somebody"
    assert re.fullmatch(r"[0-9a-f]{40}", own.provenance.commit)
    assert list(own.layout.role_templates) == ["blocks.*"]
    assert (given.provenance.commit, given.provenance.author) == ("", "the team")


def test_an_interval_below_one_is_refused() -> None:
    model, optimizer, _ = wide()
    with pytest.raises(AttachError, match="every is 0; measure every step"):
        Recorder(model, optimizer, every=0)


def test_a_model_trained_in_eval_mode_is_measured() -> None:
    model, optimizer, backward = wide()
    model.eval()
    with Recorder(model, optimizer, every=1) as recorder:
        backward()
        optimizer.step()
    assert recorder.estimate is not None


def test_a_validation_between_backward_and_step_does_not_hide_the_training_batch() -> None:
    model, optimizer, backward = wide()
    with Recorder(model, optimizer, every=1) as recorder:
        backward()
        model.eval()
        model(torch.zeros(3, 16, dtype=torch.int64))
        model.train()
        optimizer.step()
    assert recorder.estimate is not None
    assert recorder.estimate.examples == 8


def test_a_default_device_other_than_the_model_s_does_not_matter() -> None:
    options = MeasuringOptions(averaging=0.5)

    def recorded_rates(default: str) -> list[float]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        inputs = torch.randn(8, 4)
        with Recorder(model, optimizer, every=1, options=options) as recorder:
            for _ in range(2):
                with torch.device(default):
                    optimizer.zero_grad()
                    model(inputs).square().sum().backward()
                    optimizer.step()
        points = recorder.profile("x").points
        assert recorder.failures == 0
        assert [len(point.correlations) for point in points] == [2, 2]
        return [*points[-1].unit_rates, *points[-1].correlations]

    assert recorded_rates("meta") == recorded_rates("cpu")


def test_a_recorder_says_at_its_start_what_registration_will_lack() -> None:
    complete = Provenance("m", width=8, depth=1, dataset="d", batch_size=16, commit="0123abc")

    def warnings(provenance: Provenance | str | None) -> list[str]:
        seen: list[Any] = []
        model = nn.Linear(3, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with Recorder(model, optimizer, provenance=provenance, listeners=[seen.append]) as recorder:
            (model(torch.randn(4, 3))).square().sum().backward()
            optimizer.step()
        content = recorder.profile()
        assert content.provenance.width == getattr(provenance, "width", 0)
        return [event.message for event in seen if isinstance(event, Warned)]

    assert warnings(complete) == []
    (without,) = warnings(None)
    assert "pass Recorder(..., provenance=fslr.Provenance(...))" in without
    (only_model,) = warnings("small model")
    assert "not registered: width, depth, dataset, batch_size" in only_model
    (no_width,) = warnings(dataclasses.replace(complete, width=0))
    assert "not registered: width missing; add them to fslr.Provenance" in no_width
