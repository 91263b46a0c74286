"""When answers take effect: at once if they are waited for, else when they have arrived."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from fslr import AdviceAdopted, AttachError, Event, Failed, Measured, StepPart, UnavailableError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import profile_pb2
from fslr.training.exchange import Ranks
from tests.spy_advisor import SpyAdvisor
from tests.unit.training.numbers_runs import WIDE, advised, recorded
from tests.unit.training.numbers_training import NumbersTraining
from tests.unit.training.test_starts_of_runs import ListeningRank, SpeakingRank


@cache
def profile() -> profile_pb2.ProfileContent:
    return recorded()


class SlowAdvisor(SpyAdvisor):
    """An advisor whose answers take a random time.

    Args:
        seed: Seed of the times.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(profile())
        self.random = random.Random(seed)
        self.delays_s: list[float] = []

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        self.delays_s.append(self.random.choice([0.0, 0.002, 0.01]))
        time.sleep(self.delays_s[-1])
        return super().recommend(measurement)


def drifting(training: NumbersTraining) -> Callable[[Event], None]:
    """Return a listener that changes the rates at each measurement, so that advice changes."""

    def listener(event: Event) -> None:
        if isinstance(event, Measured):
            training.sensitivities = training.sensitivities * np.array([1.1, 0.9, 1.2, 0.8])

    return listener


def trained(seed: int) -> tuple[list[NDArray[np.float64]], list[Event], SlowAdvisor]:
    training, advisor, events = NumbersTraining(WIDE), SlowAdvisor(seed), list[Event]()
    listeners = [drifting(training), events.append]
    run = advised(training, advisor, listeners=listeners, answers="wait")
    run.check()
    training.train(run, 60, waits=False)
    run.close()
    return training.moves, events, advisor


def test_trainings_that_wait_for_answers_are_bit_identical() -> None:
    moves, events, advisor = trained(seed=1)
    other_moves, other_events, other_advisor = trained(seed=2)
    assert advisor.delays_s != other_advisor.delays_s
    np.testing.assert_array_equal(moves, other_moves)
    assert events == other_events
    assert advisor.measurements == other_advisor.measurements
    adopted = [event for event in events if isinstance(event, AdviceAdopted)]
    measured = [event.step for event in events if isinstance(event, Measured)]
    assert [event.step for event in adopted] == [0, *(step + 1 for step in measured[1:])]
    assert len({event.multipliers for event in adopted}) == len(adopted) == 15


def test_an_answer_that_is_waited_for_takes_effect_at_the_next_step() -> None:
    training, advisor = NumbersTraining(WIDE), SlowAdvisor()
    run = advised(training, advisor, listeners=[drifting(training)], answers="wait")
    training.train(run, 5, waits=False)
    second = advisor.measurements[1]
    assert second.step == 4
    assert list(second.multipliers) != run.multipliers
    training.train(run, 1, waits=False)
    assert training.factors.tolist() == [1.0] * 4
    expected = 0.01 * training.sensitivities * np.array(run.multipliers)
    np.testing.assert_allclose(training.moves[5], expected)


def test_a_failure_that_is_waited_for_ends_no_training() -> None:
    class Failing(SlowAdvisor):
        def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
            answer = super().recommend(measurement)
            if measurement.step == 4:
                raise UnavailableError("the advisor is unavailable")
            if measurement.step == 12:
                answer.multipliers[0] = float("nan")
            return answer

    training, events = NumbersTraining(WIDE), list[Event]()
    run = advised(training, Failing(), listeners=[events.append], answers="wait")
    training.train(run, 30, waits=False)
    failed = [(event.step, event.part) for event in events if isinstance(event, Failed)]
    assert failed == [(4, StepPart.ADVICE), (12, StepPart.ADVICE)]
    assert [event.step for event in events if isinstance(event, Measured)][:4] == [0, 4, 12, 28]
    assert (run.unanswered, run.cadence.failures) == (2, 0)
    assert run.multipliers == pytest.approx([1.0, 0.25, 0.25, 2.0])


def test_a_training_does_not_wait_for_answers_in_the_background() -> None:
    class Blocked(SpyAdvisor):
        def __init__(self) -> None:
            super().__init__(profile())
            self.allowed = threading.Event()

        def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
            if measurement.step:
                assert self.allowed.wait(10)
            return super().recommend(measurement)

    training, advisor = NumbersTraining(WIDE), Blocked()
    run = advised(training, advisor)
    training.train(run, 30, waits=False)
    assert run.cadence.step == 30
    assert len(advisor.measurements) == 1
    advisor.allowed.set()
    run.close()


@pytest.mark.parametrize("fails", [False, True])
def test_all_ranks_adopt_an_answer_that_is_waited_for(fails: bool) -> None:
    class Later(SlowAdvisor):
        def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
            if fails and measurement.step:
                raise UnavailableError("the advisor is unavailable")
            return super().recommend(measurement)

    def trained_on(ranks: Ranks) -> tuple[NDArray[np.float64], list[float], Sequence[int]]:
        training, events = NumbersTraining(WIDE), list[Event]()
        listeners = [drifting(training), events.append]
        run = advised(training, Later(), listeners=listeners, answers="wait", ranks=ranks)
        training.train(run, 10, waits=False)
        failed = [event.step for event in events if isinstance(event, Failed)]
        return training.weights, run.multipliers, failed

    speaking = SpeakingRank()
    weights, multipliers, failed = trained_on(speaking)
    listening = ListeningRank(speaking.passed)
    other_weights, other_multipliers, other_failed = trained_on(listening)
    assert not listening.passed
    np.testing.assert_array_equal(weights, other_weights)
    assert multipliers == other_multipliers
    assert failed == other_failed == ([4] if fails else [])


def test_an_unknown_way_of_receiving_answers_is_refused() -> None:
    message = "answers is 'now'; it must be one of background, wait"
    with pytest.raises(AttachError, match=message):
        advised(NumbersTraining(WIDE), answers="now")  # type: ignore[arg-type]
