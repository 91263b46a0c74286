"""Rates have the weight decay of a step in them, or exclude it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fslr.advisor.v1 import policy_pb2
from fslr.testing import FakeAdvisor
from fslr.torch import MeasuringOptions, Recorder, attach
from tests.building import COMPLETE_PROVENANCE
from tests.weight_decays import (
    DECAY,
    INDEPENDENT,
    LEARNING_RATE,
    MULTIPLIERS,
    OPTIMIZERS,
    Products,
    backward,
)


@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
@pytest.mark.parametrize("excludes", [False, True])
@pytest.mark.parametrize(
    "rule",
    [policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT, policy_pb2.WEIGHT_DECAY_RULE_COUPLED],
)
def test_measurements_do_not_depend_on_the_multiplier(
    rule: policy_pb2.WeightDecayRule.ValueType, excludes: bool, scaling: Any
) -> None:
    """Neither with the decay nor without it, whether it is kept or scaled."""
    model = Products()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, weight_decay=DECAY)
    options = MeasuringOptions(exclude_weight_decay=excludes, seed=1)
    advisor = FakeAdvisor((0.05, 0.5, 1.0, 3.0), weight_decay=rule, interval_steps=1)
    with attach(
        model, optimizer, profile="x", advisor=advisor, options=options, scaling=scaling
    ) as attachment:
        for step in range(2):
            backward(model)
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            expected = [
                (gradient + (0.0 if excludes else DECAY) * p.detach()).square().mean().sqrt().item()
                for gradient, p in zip(gradients, model.parameters(), strict=True)
            ]
            optimizer.step()
            assert attachment.estimate is not None
            assert attachment.estimate.update_rms == pytest.approx(expected, rel=1e-3), step
            assert attachment.estimate.excludes_weight_decay == excludes
            # The step that the rates describe is nearly linear, for it is small.
            assert attachment.estimate.linearity_error == pytest.approx(0.0, abs=0.05)
    assert advisor.measurements[0].excludes_weight_decay == excludes


def test_l2_in_an_adaptive_optimizer_cannot_be_excluded_and_a_warning_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Products()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.1)
    options = MeasuringOptions(exclude_weight_decay=True)
    Recorder(model, optimizer, provenance=COMPLETE_PROVENANCE, options=options).close()
    attach(
        model,
        optimizer,
        profile="x",
        advisor=FakeAdvisor(MULTIPLIERS, weight_decay=INDEPENDENT),
        options=options,
    ).close()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert all("exclude_weight_decay has no effect on 4 tensor(s): Adam" in m for m in messages)
    caplog.clear()
    Recorder(
        model,
        OPTIMIZERS["AdamW"](model.parameters()),
        provenance=COMPLETE_PROVENANCE,
        options=options,
    ).close()
    assert not caplog.records


def test_a_recording_that_is_resumed_with_the_other_option_takes_no_more_points(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Products()
    optimizer = OPTIMIZERS["AdamW"](model.parameters())
    state: dict[str, Any] = {}
    for excludes in (True, False):
        options = MeasuringOptions(exclude_weight_decay=excludes)
        with Recorder(model, optimizer, every=1, options=options) as recorder:
            if state:
                recorder.load_state_dict(state)
            backward(model)
            optimizer.step()
            state = recorder.state_dict()
    assert "exclude_weight_decay is False, and it was True before the recording was" in caplog.text
    content = recorder.profile("x")
    assert [point.step for point in content.points] == [0]
    assert content.excludes_weight_decay


@pytest.mark.parametrize("on_host", [False, True])
def test_a_profile_of_a_training_without_gradient_has_the_rates_of_its_decay_or_none(
    on_host: bool,
) -> None:
    points = []
    for excludes in (False, True):
        model = Products()
        plain = Products()
        optimizers = [OPTIMIZERS["AdamW"](each.parameters()) for each in (model, plain)]
        options = MeasuringOptions(exclude_weight_decay=excludes, snapshot_on_host=on_host)
        with Recorder(model, optimizers[0], options=options) as recorder:
            for each, optimizer in zip((model, plain), optimizers, strict=True):
                backward(each)
                optimizer.step()
        content = recorder.profile("x")
        assert content.excludes_weight_decay == excludes
        points.append(content.points[0])
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            assert torch.equal(p, q)  # bit-identical
    # Adam's first update is the sign of the gradient.
    assert list(points[1].update_rms) == pytest.approx([1.0] * 4, rel=1e-3)
    assert all(rms > 1.005 for rms in points[0].update_rms)
    assert all(
        one != other for one, other in zip(points[0].unit_rates, points[1].unit_rates, strict=True)
    )


@pytest.mark.parametrize("excludes", [False, True])
def test_a_step_that_is_skipped_has_no_rates(excludes: bool) -> None:
    model = Products()
    optimizer = OPTIMIZERS["AdamW"](model.parameters())
    options = MeasuringOptions(exclude_weight_decay=excludes)
    with Recorder(model, optimizer, options=options) as recorder:
        backward(model)
        model.zero_grad()
        optimizer.step()
        assert recorder.estimate is None
        backward(model)
        optimizer.step()
    assert [point.step for point in recorder.profile("x").points] == [1]


@pytest.mark.parametrize("decay", [DECAY, 0.0])
def test_measurements_carry_the_weight_decay_of_a_scheduled_step(decay: float) -> None:
    model, advisor = nn.Linear(3, 2), FakeAdvisor(0.5)
    groups: list[dict[str, Any]] = [
        {"params": [model.weight], "weight_decay": decay},
        {"params": [model.bias]},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, weight_decay=0.0)
    with attach(model, optimizer, profile="base", advisor=advisor, run="decaying") as attachment:
        model(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()
        attachment.report_metrics(attachment.step, {"loss": torch.tensor([2.5])})
    (measurement,) = advisor.measurements
    assert list(measurement.weight_decays) == pytest.approx(
        [LEARNING_RATE * decay, 0] if decay else []
    )
    assert [(report.step, dict(report.values)) for report in advisor.metrics] == [
        (1, {"loss": 2.5})
    ]
