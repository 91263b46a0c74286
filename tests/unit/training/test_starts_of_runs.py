"""The first steps of runs without a framework: priors, warnings, and short intervals."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from fslr import AdviceAdopted, Event, Measured, ServiceError, Started, UnavailableError, Warned
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2, profile_service_pb2
from tests.spy_advisor import SpyAdvisor
from tests.unit.training.numbers_runs import BASE, NAMES, WIDE, advised, recorded
from tests.unit.training.numbers_training import NumbersTraining
from tests.waiting import eventually

PRIORS = (1.0, 0.5, 0.5, 0.0)
STARTS = (1.0, 0.5, 0.5, 1.0)


class StartingAdvisor(SpyAdvisor):
    """An advisor that has priors and warnings before the first step.

    Args:
        priors: The prior of each group, 0 for none; empty: the response has no groups.
        warnings: What it warns of.
        bounds: The smallest and the largest multiplier; 0: it does not say.
    """

    def __init__(
        self,
        priors: Sequence[float] = PRIORS,
        warnings: Sequence[str] = (),
        bounds: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        super().__init__(recorded())
        self.priors, self.warnings, self.bounds = priors, warnings, bounds

    def validate_layout(self, opening: pb.RunOpening) -> profile_service_pb2.ValidateLayoutResponse:
        return profile_service_pb2.ValidateLayoutResponse(
            profile="projects/default/profiles/numbers@1",
            mappings=[
                profile_service_pb2.GroupMapping(group=group.name, prior=prior)
                for group, prior in zip(opening.layout.groups, self.priors, strict=False)
            ],
            warnings=self.warnings,
            min_multiplier=self.bounds[0],
            max_multiplier=self.bounds[1],
        )


def test_multipliers_start_at_the_priors() -> None:
    training, advisor = NumbersTraining(WIDE), StartingAdvisor()
    run = advised(training, advisor)
    run.check()
    assert (run.multipliers, run.priors) == (list(STARTS), list(PRIORS))
    assert run.factors == list(STARTS)
    training.train(run, 1)
    first = advisor.measurements[0]
    assert list(first.multipliers) == list(STARTS)
    assert list(first.unit_rates) == pytest.approx(WIDE)
    assert list(first.advised) == [False] * 4
    # The step was taken with the priors and then rescaled: it moves outputs as the base's.
    assert training.moves[0] == pytest.approx([0.01 * rate for rate in BASE])


@pytest.mark.parametrize("scales_updates", [False, True])
def test_steps_before_the_first_measurement_are_taken_with_the_priors(scales_updates: bool) -> None:
    training = NumbersTraining(WIDE)
    training.meter.fails = True
    run = advised(training, StartingAdvisor(), strict=False)
    run.check()
    training.train(run, 2, scales_updates=scales_updates)
    expected = [0.01 * rate * start for rate, start in zip(WIDE, STARTS, strict=True)]
    np.testing.assert_allclose(training.moves, [expected] * 2)


def test_observe_only_shows_the_priors_and_does_not_apply_them() -> None:
    training, advisor = NumbersTraining(WIDE), StartingAdvisor()
    run = advised(training, advisor, observe_only=True)
    run.check()
    assert run.multipliers == list(STARTS)
    training.train(run, 2)
    np.testing.assert_allclose(training.moves, [[0.01 * rate for rate in WIDE]] * 2)
    assert list(advisor.measurements[0].multipliers) == [1.0] * 4


def test_multipliers_start_within_the_bounds_on_all_ranks() -> None:
    speaking = SpeakingRank()
    advisor = StartingAdvisor(bounds=(0.75, 0.875))
    run = advised(NumbersTraining(WIDE), advisor, ranks=speaking)
    run.check()
    assert run.multipliers == [0.875 if p == 1 else 0.75 if p else 1.0 for p in PRIORS]
    assert run.priors == list(PRIORS)
    run.follow([0.5, 0.0, 4.0, 0.8])
    assert run.multipliers == [0.75, 1.0, 0.875, 0.8]
    other = advised(NumbersTraining(WIDE), advisor, ranks=ListeningRank(speaking.passed))
    other.check([0.5, 0.0, 4.0, 0.8])
    assert other.multipliers == run.multipliers


@pytest.mark.parametrize("bounds", [(-1.0, 2.0), (2.0, 1.0), (0.5, math.inf), (math.nan, 2.0)])
def test_bounds_that_cannot_be_applied_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ServiceError, match=f"sent {bounds[0]} and {bounds[1]} as the smallest and"):
        advised(NumbersTraining(WIDE), StartingAdvisor(bounds=bounds)).check()


def test_an_advisor_without_priors_starts_at_1() -> None:
    run = advised(NumbersTraining(WIDE), StartingAdvisor(priors=()))
    run.check()
    assert (run.multipliers, run.priors) == ([1.0] * 4, [0.0] * 4)


def test_without_an_answer_a_run_that_is_not_strict_starts_at_1() -> None:
    class Unavailable(StartingAdvisor):
        def validate_layout(
            self, _opening: pb.RunOpening
        ) -> profile_service_pb2.ValidateLayoutResponse:
            raise UnavailableError("the advisor is unavailable")

    events: list[Event] = []
    run = advised(NumbersTraining(WIDE), Unavailable(), strict=False, listeners=[events.append])
    run.check()
    assert run.multipliers == [1.0] * 4
    warning, start = events
    assert warning == Warned(0, "training starts without advice: the advisor is unavailable")
    assert isinstance(start, Started)
    assert (start.multipliers, start.mapping) == ((1.0,) * 4, None)


@pytest.mark.parametrize("prior", [float("nan"), float("inf"), -1.0])
def test_a_prior_that_cannot_be_applied_is_refused(prior: float) -> None:
    advisor = StartingAdvisor(priors=(1.0, 1.0, prior, 1.0))
    message = rf"the advisor sent {prior} as the prior of {NAMES[2]}; a prior is a finite number"
    with pytest.raises(ServiceError, match=message):
        advised(NumbersTraining(WIDE), advisor).check()
    run = advised(NumbersTraining(WIDE), advisor, strict=False)
    run.check()
    assert run.multipliers == [1.0] * 4


def test_a_resumed_run_keeps_its_own_multipliers() -> None:
    training = NumbersTraining(WIDE)
    run = advised(training, StartingAdvisor())
    run.check()
    training.train(run, 5)
    resumed = advised(NumbersTraining(WIDE), StartingAdvisor())
    resumed.check()
    resumed.load_state_dict(run.state_dict())
    assert resumed.multipliers == run.multipliers != list(STARTS)
    assert resumed.priors == list(PRIORS)


def test_warnings_before_the_first_step_are_emitted_once_each() -> None:
    events: list[Event] = []
    advisor = StartingAdvisor(warnings=["one", "two", "one"])
    advised(NumbersTraining(WIDE), advisor, listeners=[events.append]).check()
    assert [event for event in events if isinstance(event, Warned)] == [
        Warned(0, "one"),
        Warned(0, "two"),
    ]


class SpeakingRank:
    """The rank that talks to the advisor; it keeps what it passes on."""

    speaks = True

    def __init__(self) -> None:
        self.passed: list[list[float] | str] = []

    def from_speaker(self, values: Sequence[float]) -> list[float]:
        self.passed.append(list(values))
        return list(values)

    def text_from_speaker(self, text: str) -> str:
        self.passed.append(text)
        return text


class ListeningRank:
    """A rank that receives what the speaking rank passed on."""

    speaks = False

    def __init__(self, passed: Sequence[list[float] | str]) -> None:
        self.passed = list(passed)

    def from_speaker(self, values: Sequence[float]) -> list[float]:
        spoken = self.passed.pop(0)
        assert isinstance(spoken, list)
        assert len(spoken) == len(values)
        return spoken

    def text_from_speaker(self, _text: str) -> str:
        spoken = self.passed.pop(0)
        assert isinstance(spoken, str)
        return spoken


def test_all_ranks_start_at_the_priors() -> None:
    speaking = SpeakingRank()
    run = advised(NumbersTraining(WIDE), StartingAdvisor(), ranks=speaking)
    run.check()
    listening = ListeningRank(speaking.passed)
    other = advised(NumbersTraining(WIDE), StartingAdvisor(), ranks=listening)
    other.check()
    assert other.multipliers == run.multipliers == list(STARTS)
    assert not listening.passed
    refused = StartingAdvisor(priors=(float("nan"),))
    speaking = SpeakingRank()
    with pytest.raises(ServiceError, match="the advisor sent nan as the prior"):
        advised(NumbersTraining(WIDE), refused, ranks=speaking).check()
    listening = ListeningRank(speaking.passed)
    with pytest.raises(ServiceError, match="the advisor sent nan as the prior"):
        advised(NumbersTraining(WIDE), refused, ranks=listening).check()
    assert not listening.passed


class SchedulingAdvisor(SpyAdvisor):
    """An advisor that asks for given intervals, and answers when it is allowed to.

    Args:
        interval: Steps until the next measurement, from a measurement.
    """

    def __init__(self, interval: Callable[[pb.Measurement], int]) -> None:
        super().__init__(recorded())
        self.interval = interval
        self.allowed = threading.Semaphore(0)

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        answer = super().recommend(measurement)
        if measurement.step:
            assert self.allowed.acquire(timeout=10)
        answer.next_measurement_step = measurement.step + self.interval(measurement)
        return answer


def doubling(measurement: pb.Measurement) -> int:
    return max(1, measurement.step)


def measured_steps(events: Sequence[Event]) -> list[int]:
    return [event.step for event in events if isinstance(event, Measured)]


def test_short_intervals_are_followed_exactly() -> None:
    training, events = NumbersTraining(WIDE), list[Event]()
    advisor = SchedulingAdvisor(doubling)
    advisor.allowed.release(100)
    run = advised(training, advisor, listeners=[events.append])
    training.train(run, 40)
    assert measured_steps(events) == [0, 1, 2, 4, 8, 16, 32]
    assert [m.interval_steps for m in advisor.measurements] == [0, 1, 1, 2, 4, 8, 16]


def test_nothing_piles_up_while_answers_are_late() -> None:
    training, events = NumbersTraining(WIDE), list[Event]()
    advisor = SchedulingAdvisor(lambda _measurement: 1)
    run = advised(training, advisor, listeners=[events.append])
    training.train(run, 2, waits=False)
    eventually(lambda: len(advisor.measurements) == 2)
    training.train(run, 98, waits=False)
    # Only the first answer came; the interval grows by itself.
    assert measured_steps(events) == [0, 1, 3, 7, 15, 31, 56, 81]
    background = run._exchange._background
    assert background is not None
    assert (background.outstanding, background.replaced) == (2, 5)
    advisor.allowed.release()
    eventually(lambda: background.answered == 1)
    # That answer asked for step 2, which has passed, and later steps were measured.
    training.train(run, 3, waits=False)
    assert measured_steps(events)[-1] == 81
    advisor.allowed.release()
    eventually(lambda: not background.outstanding)
    # This one, about the newest measurement, asked for step 82: the very next step is measured.
    training.train(run, 1, waits=False)
    assert measured_steps(events)[-1] == 103
    eventually(lambda: len(advisor.measurements) == 4)
    assert [m.interval_steps for m in advisor.measurements] == [0, 1, 25, 22]
    advisor.allowed.release()
    run.close()


def test_a_group_gets_its_first_advice_at_the_first_step_at_which_it_moves() -> None:
    training, events = NumbersTraining(WIDE), list[Event]()
    training.sensitivities[3] = 0.0
    advisor = SpyAdvisor(recorded())
    policy = policy_pb2.Policy()  # the default: measured every 25 to 100 steps
    run = advised(training, advisor, listeners=[events.append], policy=policy)
    run.check()
    training.train(run, 5)
    assert run.by_name()[NAMES[3]].outcome == "held zero rate"
    training.sensitivities[3] = WIDE[3]
    training.train(run, 60)
    assert measured_steps(events) == [0, 1, 2, 4, 8, 33]
    answers = [event.answer for event in events if isinstance(event, AdviceAdopted)]
    outcomes = [answer.outcomes[3] for answer in answers if answer is not None]
    held, matched = policy_pb2.OUTCOME_HELD_ZERO_RATE, policy_pb2.OUTCOME_MATCHED
    assert outcomes == [held] * 4 + [matched] * 2
    assert run.multipliers[3] == pytest.approx(2.0)
