"""Failures in an advised training are counted once and logged under the right name."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fslr import RunInfo, UnavailableError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2
from fslr.torch import Attachment, RateEstimate, attach
from fslr.torch.steps.scaling import Scaling
from tests.training_jobs import OFTEN, SpyAdvisor, wide
from tests.waiting import eventually


class Failing(SpyAdvisor):
    """An advisor that fails at first, or whose first answers cannot be applied."""

    def __init__(self, *, silent: int = 0, unusable: int = 0) -> None:
        super().__init__()
        self.silent, self.unusable = silent, unusable

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        answer = super().recommend(measurement)
        if len(self.measurements) <= self.silent:
            raise UnavailableError("the advisor is unavailable")
        if len(self.measurements) <= self.silent + self.unusable:
            answer.multipliers[0] = math.nan
        return answer


def trained(advisor: SpyAdvisor, steps: int, *, losses: dict[int, Any] | None = None) -> Attachment:
    """Train without a strict start; each answer has arrived by the next step."""
    model, optimizer, backward = wide()
    with attach(
        model,
        optimizer,
        profile="x",
        advisor=advisor,
        run=RunInfo(policy=OFTEN),
        strict=False,
        max_overhead=None,
    ) as attachment:
        for step in range(steps):
            backward()
            if losses and step in losses:
                attachment.report_loss(losses[step])
            optimizer.step()
            background = attachment._run._exchange._background
            assert background is not None
            eventually(lambda: not background.outstanding)  # noqa: B023
    return attachment


def test_a_first_step_without_an_answer_is_unanswered_but_not_a_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "fslr"):
        attachment = trained(Failing(silent=1), 3)
    assert (attachment.failures, attachment.unanswered) == (0, 1)
    (record,) = caplog.records
    assert record.getMessage() == (
        "step 0 got no new advice, training continues unchanged: "
        "UnavailableError: the advisor is unavailable"
    )


def test_an_unusable_answer_counts_as_unanswered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "fslr"):
        attachment = trained(Failing(silent=1, unusable=1), 28)
    assert (attachment.failures, attachment.unanswered) == (0, 2)
    assert len(caplog.records) == 1
    advisor = Failing(unusable=1)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "fslr"):
        attachment = trained(advisor, 3)
    assert (attachment.failures, attachment.unanswered, len(advisor.measurements)) == (0, 1, 1)
    assert "step 0 got no new advice" in caplog.records[0].getMessage()
    assert "answered step 0 with multipliers that cannot be applied" in caplog.text


def test_a_snapshot_that_fails_is_one_failure(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no room for the weights before")

    monkeypatch.setattr("fslr.torch.step_meter.Snapshot", no_room)
    advisor = SpyAdvisor()
    with caplog.at_level(logging.WARNING, "fslr"):
        attachment = trained(advisor, 3)
    assert (attachment.failures, attachment.unanswered, advisor.measurements) == (1, 0, [])
    (record,) = caplog.records
    assert record.getMessage() == (
        "step 0 was not measured, training continues unchanged: OutOfMemoryError: "
        "no room for the weights before"
    )


@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
def test_a_step_that_cannot_be_scaled_is_logged_as_not_scaled(
    scaling: Scaling, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer, backward = wide()
    with attach(
        model, optimizer, profile="x", advisor=SpyAdvisor(), strict=False, scaling=scaling
    ) as attachment:
        backward()
        optimizer.step()

        def broken(*_: object, **__: object) -> Tensor:
            raise ValueError("out of luck")

        monkeypatch.setattr(attachment._scaler, "scale", broken)
        monkeypatch.setattr(attachment._meter, "rescale_step", broken)
        with caplog.at_level(logging.WARNING, "fslr"):
            for _ in range(2):
                backward()
                optimizer.step()
    assert attachment.failures == 2
    assert [record.getMessage() for record in caplog.records] == [
        "step 1 was not scaled, training continues unchanged: ValueError: out of luck"
    ]


def test_a_measured_step_that_cannot_be_scaled_fails_on_all_ranks(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other ranks measure the step and wait for this rank, so its meter must end the step."""
    model, optimizer, backward = wide()
    ended: list[int] = []
    always = policy_pb2.Policy(min_interval_steps=1, max_interval_steps=1)
    with attach(
        model,
        optimizer,
        profile="x",
        advisor=SpyAdvisor(),
        run=RunInfo(policy=always),
        scaling="update",
    ) as attachment:
        backward()
        optimizer.step()
        end_step = attachment._meter.end_step

        def ending(rates: list[float], decays: list[float]) -> RateEstimate:
            ended.append(attachment.step)
            return end_step(rates, decays)

        def broken(*_: object) -> None:
            raise ValueError("out of luck")

        monkeypatch.setattr(attachment._meter, "end_step", ending)
        monkeypatch.setattr(attachment._meter, "rescale_step", broken)
        with caplog.at_level(logging.WARNING, "fslr"):
            backward()
            optimizer.step()
        monkeypatch.undo()
        attachment._run.cadence.next_step = 0
        backward()
        optimizer.step()
    assert (ended, attachment.failures) == ([1], 1)
    assert [record.getMessage() for record in caplog.records] == [
        "step 1 was not scaled, training continues unchanged: ValueError: out of luck"
    ]
    assert attachment.estimate is not None


def test_a_reported_loss_is_sent_with_one_measurement() -> None:
    advisor = SpyAdvisor()
    attachment = trained(advisor, 8, losses={0: 2.5, 3: 1.5, 4: math.nan, 6: math.inf})
    assert attachment.unanswered == 0
    assert len(advisor.measurements) >= 3
    losses = [m.loss if m.HasField("loss") else None for m in advisor.measurements]
    assert losses == [2.5] + [None] * (len(losses) - 1)
    advisor = SpyAdvisor()
    trained(advisor, 6, losses=dict.fromkeys(range(6), 1.0))
    assert {m.loss for m in advisor.measurements} == {1.0}


@pytest.mark.parametrize("loss", [torch.ones(2), "low", torch.tensor(1.0, device="meta")])
def test_a_loss_that_cannot_be_read_is_a_warning(
    loss: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "fslr"):
        attachment = trained(SpyAdvisor(), 3, losses={1: loss})
    assert attachment.failures == 0
    assert attachment.step == 3
