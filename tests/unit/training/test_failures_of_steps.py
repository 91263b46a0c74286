"""Runs in which measurements, answers or listeners fail go on, and say so."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest

from fslr import Event, Failed, Measured, MeasurementError, StepPart, UnavailableError, Warned
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.training.events import LogListener
from tests.spy_advisor import SpyAdvisor
from tests.unit.training.numbers_runs import WIDE, advised, recorded
from tests.unit.training.numbers_training import NumbersTraining


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


@pytest.mark.parametrize("learning_rate", [float("nan"), -0.25])
def test_learning_rates_that_cannot_be_used_are_named(learning_rate: float) -> None:
    training, events = NumbersTraining(WIDE, schedule=lambda _: learning_rate), list[Event]()
    training.train(advised(training, listeners=[events.append], strict=False), 30)
    failed = [event for event in events if isinstance(event, Failed)]
    assert [event.step for event in failed] == [0, 25]
    assert isinstance(failed[0].error, MeasurementError)
    expected = rf"no learning rate of the step is above 0, and one is {learning_rate:g}; set"
    assert re.match(expected, str(failed[0].error))
    with pytest.raises(MeasurementError, match=expected):
        training.train(advised(training), 1)


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
