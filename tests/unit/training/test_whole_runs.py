"""Complete runs and recordings without a framework; every rate is a given number."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from advisor.local.in_process import InProcessAdvisor
from fslr import (
    AdviceAdopted,
    AttachError,
    Event,
    Failed,
    Measured,
    MeasurementError,
    Provenance,
    RunInfo,
    StepPart,
    UnavailableError,
    Warned,
)
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import layout_pb2, policy_pb2, profile_pb2
from fslr.training.advised_run import AdvisedRun, Answers
from fslr.training.events import Listener, Listeners, LogListener
from fslr.training.exchange import OneProcess, Ranks
from fslr.training.recording import Recording
from fslr.training.step_cycle import StepCycle
from tests.spy_advisor import SpyAdvisor
from tests.unit.training.numbers_training import NumbersTraining

NAMES = ("embed.weight", "blocks.0.up.weight", "blocks.1.up.weight", "head.weight")
BASE, WIDE = (1.0, 2.0, 2.0, 0.5), (1.0, 8.0, 8.0, 0.25)
EVERY_4 = policy_pb2.Policy(min_interval_steps=4, max_interval_steps=4)
LAYOUT = layout_pb2.Layout(groups=[layout_pb2.Group(name=name) for name in NAMES])


def recording(
    listeners: Sequence[Listener] = (), every: int = 3, dense_start_steps: int = 0
) -> Recording:
    return Recording(
        LAYOUT,
        optimizer="SGD",
        every=every,
        dense_start_steps=dense_start_steps,
        listeners=Listeners(listeners),
    )


def steps_of(kept: Recording) -> list[int]:
    return [point.step for point in kept.profile(Provenance("numbers")).points]


def recorded(steps: int = 30) -> profile_pb2.ProfileContent:
    kept = recording()
    NumbersTraining(BASE).train(kept, steps)
    return kept.profile(Provenance("numbers", commit="", author="a test"))


def advised(
    training: NumbersTraining,
    advisor: Any = None,
    *,
    listeners: Sequence[Listener] = (),
    strict: bool = True,
    observe_only: bool = False,
    policy: policy_pb2.Policy = EVERY_4,
    ranks: Ranks | None = None,
    answers: Answers = "background",
) -> AdvisedRun:
    opening = RunInfo(policy=policy).opening(
        "numbers", LAYOUT, optimizer="SGD", base_learning_rate=0.01, observe_only=observe_only
    )
    return AdvisedRun(
        advisor or InProcessAdvisor(recorded()),
        opening,
        size=training.meter.size,
        ranks=ranks or OneProcess(),
        listeners=Listeners(listeners),
        strict=strict,
        answers=answers,
    )


def test_a_recording_becomes_a_profile() -> None:
    kept = recording()
    NumbersTraining(BASE, schedule=lambda step: 0.01 / (1 + step)).train(kept, 10)
    content = kept.profile(Provenance("numbers", width=4, loss_name="none"))
    assert [point.step for point in content.points] == [0, 3, 6, 9]
    for point in content.points:
        assert list(point.unit_rates) == pytest.approx(BASE)
        assert point.learning_rate == pytest.approx(0.01 / (1 + point.step))
    assert (content.total_steps, content.base_learning_rate) == (10, 0.01)
    assert content.provenance.optimizer == "SGD"
    assert (content.provenance.width, content.provenance.loss_name) == (4, "none")
    assert content.layout == LAYOUT


def test_a_recording_measures_at_the_steps_of_an_interval_function() -> None:
    kept = Recording(
        LAYOUT,
        optimizer="SGD",
        every=lambda step: 1 if step < 2 else 5,
        listeners=Listeners([]),
    )
    NumbersTraining(BASE).train(kept, 14)
    points = kept.profile(Provenance("numbers")).points
    assert [point.step for point in points] == [0, 1, 2, 7, 12]


def test_a_recording_with_a_dense_start_adds_steps_to_the_regular_ones() -> None:
    kept = recording(every=10, dense_start_steps=16)
    training = NumbersTraining(BASE)
    training.train(kept, 7)
    resumed = recording(every=10, dense_start_steps=16)
    resumed.load_state_dict(kept.state_dict())
    training.train(resumed, 34)
    assert steps_of(resumed) == [0, 1, 2, 4, 8, 10, 20, 30, 40]
    with pytest.raises(AttachError, match=r"dense_start_steps is -1; use 0 for no dense start"):
        recording(dense_start_steps=-1)


def test_a_recording_measures_densely_while_a_group_that_steps_has_the_rate_zero() -> None:
    kept, training = recording(every=25), NumbersTraining((1.0, 0.0, 2.0, 0.5))
    training.train(kept, 3)
    training.sensitivities = np.array(BASE)
    training.train(kept, 50)
    assert steps_of(kept) == [0, 1, 2, 4, 25, 50]
    # A group that is not trained moves nothing, and is not waited for.
    kept, training = recording(every=25), NumbersTraining((1.0, 0.0, 2.0, 0.5))
    training.scaler.learning_rates = lambda: [0.01, 0.0, 0.01, 0.01]  # type: ignore[method-assign]
    with np.errstate(divide="ignore", invalid="ignore"):
        training.train(kept, 30)
    assert steps_of(kept) == [0, 25]


def test_a_recording_without_measurements_has_no_profile() -> None:
    with pytest.raises(MeasurementError, match="no step was measured, so there is no profile"):
        recording().profile(Provenance("numbers"))
    with pytest.raises(AttachError, match=r"every is 0; measure every step \(1\) or less often"):
        recording(every=0)


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


def test_a_resumed_recording_equals_an_uninterrupted_one() -> None:
    whole, first, second = recording(), recording(), recording()
    NumbersTraining(BASE).train(whole, 12)
    training = NumbersTraining(BASE)
    training.train(first, 5)
    second.load_state_dict(first.state_dict())
    training.train(second, 7)
    assert second.state_dict() == whole.state_dict()


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


def test_a_failing_listener_is_logged_once_and_does_not_affect_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_event: Event) -> None:
        raise RuntimeError("no disk")

    training, events = NumbersTraining(WIDE), list[Event]()
    with caplog.at_level(logging.WARNING, "fslr"):
        run = advised(training, listeners=[broken, events.append])
        training.train(run, 6)
    assert len(events) == 4
    (record,) = caplog.records
    assert "broken" in record.getMessage()
    assert "failed at step 0" in record.getMessage()
    assert "no disk" in caplog.text


def test_failed_measurements_are_tried_again_after_25_steps_then_50_up_to_1000(
    caplog: pytest.LogCaptureFixture,
) -> None:
    training, events = NumbersTraining(WIDE), list[Event]()
    run = advised(training, listeners=[LogListener(), events.append], strict=False)
    training.meter.fails = True
    with caplog.at_level(logging.WARNING, "fslr"):
        training.train(run, 4000)
    failed = [event.step for event in events if isinstance(event, Failed)]
    assert np.diff(failed).tolist() == [25, 50, 100, 200, 400, 800, 1000, 1000]
    assert run.cadence.failures == len(failed)
    assert [r.getMessage() for r in caplog.records] == [
        "step 0 was not measured, training continues unchanged: MeasurementError: out of luck"
    ]
    # After one success, the next failure is retried after 25 steps.
    training.meter.fails = False
    run.cadence.next_step = 0
    training.train(run, 1)
    training.meter.fails = True
    training.train(run, 10)
    last = [event.step for event in events if isinstance(event, Failed)][-1]
    assert last > failed[-1]
    assert run.cadence.next_step == last + 25


def test_the_start_is_strict_until_a_step_was_measured_and_advised() -> None:
    training = NumbersTraining(WIDE)
    run = advised(training)
    training.meter.fails = True
    with pytest.raises(MeasurementError, match="out of luck"):
        training.train(run, 1)
    training.meter.fails = False
    training.train(run, 30)
    assert run.cadence.has_started
    training.meter.fails = True
    training.train(run, 20)
    assert run.cadence.failures == 1


def test_a_step_that_is_not_scaled_or_measured_is_one_failure() -> None:
    training, events = NumbersTraining(WIDE), list[Event]()
    run = advised(training, listeners=[events.append], strict=False)
    training.train(run, 4)
    training.scaler.fails = training.meter.fails = True
    training.train(run, 1)
    assert [e.part for e in events if isinstance(e, Failed)] == [
        StepPart.SCALING,
        StepPart.MEASUREMENT,
    ]
    assert run.cadence.failures == 1


def test_learning_rates_are_scaled_instead_of_updates_if_memory_is_short() -> None:
    training = NumbersTraining(WIDE)
    run = advised(training, strict=False)
    training.train(run, 2, scales_updates=True)
    training.meter.cannot_begin = True
    training.train(run, 1, scales_updates=True)
    np.testing.assert_allclose(training.moves[2], training.moves[1])
    assert run.cadence.failures == 1


def test_steps_that_move_nothing_are_measured_again_and_cause_one_warning() -> None:
    training, events = NumbersTraining((0.0,) * 4), list[Event]()
    run = advised(training, listeners=[events.append])
    training.train(run, 100)
    warnings = [event for event in events if isinstance(event, Warned)]
    (warning,) = warnings
    assert warning.step == 7
    assert "8 steps in a row moved no output" in warning.message
    assert "the next measurement is at step 32" in warning.message
    assert not warning.is_hint


def test_a_warm_up_from_zero_is_first_measured_at_the_first_step_that_moves() -> None:
    training, events = NumbersTraining(WIDE, schedule=lambda step: 0.001 * step), list[Event]()
    training.train(advised(training, listeners=[events.append]), 3)
    assert [e.step for e in events if isinstance(e, Measured)] == [1]


def test_missing_advice_is_logged_again_only_after_an_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class OnAndOff(SpyAdvisor):
        def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
            answer = super().recommend(measurement)
            if measurement.step in {4, 8, 16}:
                raise UnavailableError("the advisor is unavailable")
            return answer

    training = NumbersTraining(WIDE)
    run = advised(training, OnAndOff(recorded()), listeners=[LogListener()])
    with caplog.at_level(logging.WARNING, "fslr"):
        training.train(run, 20)
    assert [record.getMessage().split(" got")[0] for record in caplog.records] == [
        "step 4",
        "step 16",
    ]
    assert "got no new advice, training continues unchanged: UnavailableError" in caplog.text


class Unreachable(SpyAdvisor):
    """An advisor that answers only the first measurement."""

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        answer = super().recommend(measurement)
        if measurement.step:
            raise UnavailableError("the advisor is unavailable")
        return answer


def test_without_answers_multipliers_stay_and_short_intervals_grow_to_25_steps() -> None:
    training, events = NumbersTraining(WIDE), list[Event]()
    advisor = Unreachable(recorded())
    run = advised(training, advisor, listeners=[events.append])
    training.train(run, 70)
    assert run.multipliers == pytest.approx([1.0, 0.25, 0.25, 2.0])
    assert run.unanswered == len(advisor.measurements) - 1 == 4
    assert run.cadence.failures == 0
    failed = [(e.step, e.part) for e in events if isinstance(e, Failed)]
    assert failed == [(step, StepPart.ADVICE) for step in (4, 12, 28, 53)]


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
