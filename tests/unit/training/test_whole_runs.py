"""Complete runs without a framework; every rate is a given number."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fslr import AdviceAdopted, AttachError, Event, Measured, Warned
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import layout_pb2
from fslr.training.events import Listeners
from fslr.training.recording import Recording
from fslr.training.step_cycle import StepCycle
from tests.spy_advisor import SpyAdvisor
from tests.unit.training.numbers_runs import BASE, LAYOUT, WIDE, advised, recorded, recording
from tests.unit.training.numbers_training import NumbersTraining


def test_an_advised_run_moves_every_output_as_the_base_run() -> None:
    base, wide = NumbersTraining(BASE), NumbersTraining(WIDE)
    base.train(recording(), 20)
    run = advised(wide)
    run.check()
    wide.train(run, 20)
    # This includes the first step, which is rescaled after it was measured.
    np.testing.assert_allclose(wide.moves, base.moves, rtol=1e-6)
    assert run.multipliers == pytest.approx([b / w for b, w in zip(BASE, WIDE, strict=True)])
    assert (run.cadence.step, run.cadence.failures, run.unanswered) == (20, 0, 0)
    run.close()


def test_scaling_updates_and_scaling_learning_rates_are_equivalent() -> None:
    one, other = NumbersTraining(WIDE), NumbersTraining(WIDE)
    one.train(advised(one), 10)
    other.train(advised(other), 10, scales_updates=True)
    np.testing.assert_allclose(other.weights, one.weights, rtol=1e-12)
    assert set(other.factors) == {1.0}


def test_observe_only_reports_all_measurements_and_applies_no_multipliers() -> None:
    plain, training = NumbersTraining(WIDE), NumbersTraining(WIDE)
    plain.train(recording(), 10)
    advisor = SpyAdvisor(recorded())
    run = advised(training, advisor, observe_only=True)
    training.train(run, 10)
    np.testing.assert_array_equal(training.weights, plain.weights)
    assert run.multipliers[1] == pytest.approx(0.25)
    assert [list(m.multipliers) for m in advisor.measurements] == [[1.0] * 4] * len(
        advisor.measurements
    )
    assert len(advisor.measurements) == 3


def test_measurements_follow_the_policy_and_report_the_multipliers_in_force() -> None:
    training = NumbersTraining(WIDE)
    advisor = SpyAdvisor(recorded())
    run = advised(training, advisor)
    run.report_loss(2.5)
    training.train(run, 9)
    first, second, third = advisor.measurements
    assert (first.step, second.step, third.step) == (0, 4, 8)
    assert (first.interval_steps, second.interval_steps) == (0, 4)
    assert (first.loss, second.HasField("loss")) == (2.5, False)
    assert list(first.advised) == [False] * 4
    assert list(second.advised) == [True] * 4
    assert list(second.multipliers) == pytest.approx(run.multipliers)
    assert list(second.unit_rates) == pytest.approx(WIDE)


def test_a_loss_is_read_at_measured_steps_and_one_that_cannot_be_read_is_a_warning() -> None:
    class Loss:
        """An array of a framework; reading it takes time, or fails."""

        def __init__(self, value: float | None) -> None:
            self.value, self.reads = value, 0

        def __float__(self) -> float:
            self.reads += 1
            if self.value is None:
                raise RuntimeError("array has been deleted")
            return float(self.value)

    training, advisor = NumbersTraining(WIDE), SpyAdvisor(recorded())
    warnings: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Warned):
            warnings.append(event.message)

    run = advised(training, advisor, listeners=[listen])
    losses = [Loss(step) for step in range(8)] + [Loss(None)]
    for loss in losses:
        run.report_loss(loss)
        training.train(run, 1)
    assert [loss.reads for loss in losses] == [1, 0, 0, 0, 1, 0, 0, 0, 1]

    assert [m.loss for m in advisor.measurements] == [0.0, 4.0, 0.0]
    assert not advisor.measurements[-1].HasField("loss")
    (warning,) = [text for text in warnings if "loss" in text]
    assert "cannot be read (array has been deleted), so it is not sent; report a number" in warning
    assert run.cadence.failures == 0


def test_a_resumed_run_equals_an_uninterrupted_one() -> None:
    whole, first = NumbersTraining(WIDE), NumbersTraining(WIDE)
    whole.train(advised(whole), 12)
    run = advised(first)
    first.train(run, 6)
    second = NumbersTraining(WIDE)
    second.weights = first.weights.copy()
    resumed = advised(second)
    resumed.load_state_dict(run.state_dict())
    second.train(resumed, 6)
    np.testing.assert_array_equal(second.weights, whole.weights)
    assert resumed.cadence.step == 12


def test_an_optimizer_that_undoes_changes_of_weights_starts_with_advice_at_the_next_step() -> None:
    training = NumbersTraining(WIDE)
    training.scaler.keeps_weights = True
    events: list[Event] = []
    run = advised(training, listeners=[events.append])
    training.train(run, 3)
    assert [event.step for event in events if isinstance(event, AdviceAdopted)] == [1]
    multipliers = [1.0, 0.25, 0.25, 2.0]
    assert training.moves[0] == pytest.approx([0.01 * each for each in WIDE])
    expected = [0.01 * m * each for m, each in zip(multipliers, WIDE, strict=True)]
    assert training.moves[1] == pytest.approx(expected)


def test_events_are_emitted_in_order() -> None:
    training = NumbersTraining(WIDE)
    events: list[Event] = []
    run = advised(training, listeners=[events.append])
    training.train(run, 6)
    kinds = [(type(event), event.step) for event in events]
    assert kinds == [(Measured, 0), (AdviceAdopted, 0), (Measured, 4), (AdviceAdopted, 5)]
    measured, adopted = events[:2]
    assert isinstance(measured, Measured)
    assert isinstance(adopted, AdviceAdopted)
    assert measured.estimate is not run.estimate
    assert measured.learning_rates == (0.01,) * 4
    assert adopted.multipliers == pytest.approx((1.0, 0.25, 0.25, 2.0))
    assert adopted.next_measurement_step == 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        measured.step = 7  # type: ignore[misc]


def test_each_warning_of_the_advisor_is_reported_once() -> None:
    training, events = NumbersTraining(WIDE), list[Event]()

    class WarningAdvisor(SpyAdvisor):
        def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
            answer = super().recommend(measurement)
            answer.warnings.add(message="the batch size differs")
            return answer

    run = advised(training, WarningAdvisor(recorded()), listeners=[events.append])
    training.train(run, 20)
    assert [e.message for e in events if isinstance(e, Warned)] == ["the batch size differs"]


def test_a_hint_is_given_once_when_learning_rates_are_first_scaled() -> None:
    training, events = NumbersTraining(WIDE), list[Event]()
    run = advised(training)
    cycle = StepCycle(
        run, training.meter, training.scaler, listeners=Listeners([events.append]), hint="slow"
    )
    for _ in range(3):
        cycle.before_step()
        training.weights = training.weights + 0.01 * training.factors
        cycle.after_step()
    assert [(type(e), e.step) for e in events] == [(Warned, 1)]
    assert isinstance(events[0], Warned)
    assert (events[0].message, events[0].is_hint) == ("slow", True)


def test_states_of_a_different_training_are_refused() -> None:
    state = recording().state_dict()
    with pytest.raises(AttachError, match="belongs to a recording, not to an advised run"):
        advised(NumbersTraining(WIDE)).load_state_dict(state)
    first, last = LAYOUT.groups[0].name, LAYOUT.groups[-1].name
    for groups, difference in (
        (LAYOUT.groups[:-1], rf"{last!r} there, none here"),
        (LAYOUT.groups[::-1], rf"{first!r} there, {last!r} here"),
    ):
        other = Recording(
            layout_pb2.Layout(groups=groups), optimizer="SGD", every=1, listeners=Listeners([])
        )
        with pytest.raises(AttachError, match=rf"different groups .*: {difference}\); load the"):
            other.load_state_dict(state)
