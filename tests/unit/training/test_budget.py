"""Measuring costs at most its part of the training's time, whatever a measurement costs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fslr import AttachError, Event, Measured, RateEstimate, RunInfo
from fslr.advisor.v1 import layout_pb2
from fslr.testing import FakeAdvisor
from fslr.training.advised_run import AdvisedRun, Answers
from fslr.training.budget import Budget, Intervals, Plan
from fslr.training.events import Listeners
from fslr.training.exchange import OneProcess
from fslr.training.measurement_cost import Size
from fslr.training.measurement_size import MeasurementSize
from fslr.training.stopwatch import Stopwatch
from tests.unit.training.numbers_training import NumbersMeter, NumbersTraining

ALLOWED = Intervals(25, 100)
ALL_EXAMPLES = 64
WITH_RESERVE = 1.09  # for what a measurement slows down


@dataclass
class Clock:
    """A clock that only moves when it is told to."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Training:
    """A training of steps of one second, with measurements that cost what they are told to.

    Attributes:
        fixed: Seconds of each measurement.
        each: Further seconds for each example, of which each probe takes ``probe_part``.
        probe_part: See ``each``.
        first: Further seconds of the first measurement.
        max_overhead: As in a budget.
        total_steps: As in a budget.
        asked: Steps between measurements that the advisor asks for.
        hooks: Seconds of the hooks in each step, in equal parts before and after its end.
    """

    fixed: float
    each: float
    probe_part: float = 1 / 3
    first: float = 0.0
    max_overhead: float = 0.01
    total_steps: int = 0
    asked: int = 25
    hooks: float = 0.0
    measured: dict[int, Size] = field(default_factory=dict)  # by step

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.stopwatch = Stopwatch(self.clock)
        self.budget = Budget(self.max_overhead, self.stopwatch, self.total_steps)

    def train(self, steps: int) -> None:
        due = last = 0
        for step in range(steps):
            if step >= due:
                plan = (
                    self.budget.plan(step, measured_step=last, asked_step=due, allowed=ALLOWED)
                    if step
                    else self.budget.first(step)
                )
                if plan.step > step:
                    due = plan.step
                else:
                    self.measure(step, plan)
                    last, due = step, step + self.asked
            self.clock.seconds += 1.0
            self.stopwatch.begin_hooks()
            self.clock.seconds += self.hooks / 2
            self.stopwatch.end_step()
            self.clock.seconds += self.hooks / 2
            self.stopwatch.end_hooks()

    def measure(self, step: int, plan: Plan) -> None:
        size = MeasurementSize(1)
        size.set_examples(plan.examples, plan.repeats)
        examples, repeats = size.part(ALL_EXAMPLES)
        self.measured[step] = used = Size(examples or ALL_EXAMPLES, repeats)
        seconds = self.seconds_of(used) + (0 if step else self.first)
        with self.stopwatch.measuring():
            self.clock.seconds += seconds
        self.budget.measured(used, seconds)

    def seconds_of(self, size: Size) -> float:
        probes = self.probe_part * size.repeats
        return self.fixed + self.each * size.examples * (1 - self.probe_part + probes)

    def variances(self, first: int = 0, last: int = 1_000_000) -> list[float]:
        """Return the variance of each measurement in a range of steps, relative to the least."""
        return [
            (0.25 + 2 / size.repeats) / size.examples / (2.25 / ALL_EXAMPLES)
            for step, size in self.measured.items()
            if first <= step < last
        ]


@settings(deadline=None, max_examples=40)
@given(
    fixed=st.floats(0, 0.4),
    per_batch=st.floats(0, 4),
    first=st.floats(0, 6),
    probe_part=st.floats(0, 1),
    asked=st.integers(25, 100),
    total_steps=st.sampled_from([0, 3_000]),
    hooks=st.sampled_from([0.0, 0.003, 0.02]),
)
def test_measuring_stays_below_its_part_of_the_training(
    fixed: float,
    per_batch: float,
    first: float,
    probe_part: float,
    asked: int,
    total_steps: int,
    hooks: float,
) -> None:
    training = Training(
        fixed,
        per_batch / ALL_EXAMPLES,
        probe_part=probe_part,
        first=first,
        asked=asked,
        total_steps=total_steps,
        hooks=hooks,
    )
    training.train(3_000)
    assert training.stopwatch.overhead is not None
    # The policy wants a measurement every 100 steps, whatever the smallest one costs. The second
    # one may come before step 100, since the first does not tell what a smaller one costs.
    least = fixed + per_batch / ALL_EXAMPLES * 8
    rarest = (training.seconds_of(training.measured[0]) + first + 30 * least) / 2_999
    assert training.stopwatch.overhead <= max(0.0105, 1.001 * (rarest + hooks))
    steps = list(training.measured)
    assert steps[0] == 0  # the first answer is not delayed
    assert max(b - a for a, b in itertools.pairwise(steps)) <= 100
    assert min(b - a for a, b in itertools.pairwise(steps)) >= asked
    assert min(size.examples for size in training.measured.values()) >= 8


def test_hooks_leave_less_for_measurements() -> None:
    without, with_hooks = (Training(0.2, 1.0 / ALL_EXAMPLES, hooks=hooks) for hooks in (0.0, 0.004))
    for training in (without, with_hooks):
        training.train(5_000)
    spent = without.stopwatch.measuring_seconds - with_hooks.stopwatch.measuring_seconds
    assert WITH_RESERVE * spent == pytest.approx(0.004 * 5_000, rel=0.1)
    watch = with_hooks.stopwatch
    assert watch.hook_step_seconds == pytest.approx(0.004)
    assert watch.hook_seconds == pytest.approx(0.004 * (4_999 - len(with_hooks.measured)), rel=0.01)
    with_reserve = WITH_RESERVE * watch.measuring_seconds + watch.hook_seconds
    assert with_reserve == pytest.approx(0.01 * 0.996 * 5_000, rel=0.05)


def test_what_is_cheap_is_measured_as_often_and_on_as_many_examples_as_asked() -> None:
    training = Training(0.05, 0.1 / ALL_EXAMPLES)
    training.train(1_000)
    assert list(training.measured) == list(range(0, 1_000, 25))
    later = list(training.measured.values())[1:]
    assert set(later) == {Size(ALL_EXAMPLES)}


def test_the_first_measurement_takes_few_examples_with_more_probes() -> None:
    training = Training(0.05, 0.1 / ALL_EXAMPLES)
    training.train(1)
    assert training.measured == {0: Size(16, 4)}


def test_more_probes_on_fewer_examples_come_before_larger_errors() -> None:
    """Half of what all examples cost is enough for nearly the same error."""
    training = Training(0.1, 1.4 / ALL_EXAMPLES, asked=100)
    training.train(5_000)
    assert {size.repeats for step, size in training.measured.items() if step > 1_000} <= {2, 3, 4}
    assert max(training.variances(1_000)) < 1.5


def test_the_largest_size_follows_from_what_examples_and_probes_cost() -> None:
    """Sizes that were not tried are predicted, so the choice is nearly the best one."""
    for probe_part in (0.1, 1 / 3, 0.9):
        training = Training(0.1, 1.4 / ALL_EXAMPLES, probe_part=probe_part, asked=100)
        training.train(8_000)
        fitting = [
            (0.25 + 2 / repeats) / examples / (2.25 / ALL_EXAMPLES)
            for repeats in range(1, 5)
            for examples in range(8, ALL_EXAMPLES // repeats + 1)
            if training.seconds_of(Size(examples, repeats)) <= 1.0
        ]
        assert training.variances(4_000)[-1] <= 1.4 * min(fitting)


def test_fewer_examples_come_before_longer_intervals() -> None:
    training = Training(0.02, 2.0 / ALL_EXAMPLES, asked=50)
    training.train(5_000)
    later = {step: size for step, size in training.measured.items() if step > 1_000}
    assert len(later) == pytest.approx(4_000 / 50, abs=2)
    assert max(size.examples for size in later.values()) < 24


def test_the_interval_grows_where_fewer_examples_save_nothing() -> None:
    training = Training(0.7, 0.0)
    training.train(5_000)
    assert len(training.measured) == pytest.approx(5_000 * 0.01 / (WITH_RESERVE * 0.7), abs=6)


def test_a_training_of_known_length_measures_more_at_its_start() -> None:
    """Advice early in a training is worth more than late."""
    early = []
    for total_steps in (0, 4_000):
        training = Training(0.1, 2.0 / ALL_EXAMPLES, total_steps=total_steps)
        training.train(4_000)
        early.append(sum(1 / variance for variance in training.variances(last=1_000)))
        assert training.stopwatch.overhead is not None
        assert training.stopwatch.overhead <= 0.0105
    assert early[1] > 1.2 * early[0]


def test_measurements_that_are_asked_for_early_are_not_put_off() -> None:
    """Groups whose rate is still zero get their first advice soon after they move."""
    training = Training(0.1, 1.0 / ALL_EXAMPLES)
    training.asked = 2
    training.train(9)
    assert list(training.measured) == [0, 2, 4, 6, 8]
    assert list(training.measured.values()) == [Size(16, 4), *[Size(8)] * 4]


def test_a_hint_says_that_a_measurement_cannot_be_cheap_enough() -> None:
    training = Training(3.0, 0.0)
    training.train(999)
    assert training.budget.hint(998) == ""
    training.train(1_100)
    assert "measuring takes 3.0% of the training's time, more than max_overhead (1.0%)" in (
        training.budget.hint(2_000)
    )
    slow_hooks = Training(0.5, 0.0, hooks=0.02)
    slow_hooks.train(1_100)
    hint = slow_hooks.budget.hint(2_000)
    assert "more than max_overhead (1.0%), of which the hooks of each step take 2.0%, al" in hint
    cheap = Training(0.1, 0.0)
    cheap.train(1_100)
    assert cheap.budget.hint(1_100) == ""


def test_pauses_between_steps_belong_to_the_training() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    assert (stopwatch.overhead, stopwatch.step_seconds) == (None, None)
    for seconds in (100.0, 1.0, 1.0, 50.0, 1.0):  # the first step compiles; one is a validation
        with stopwatch.measuring():
            clock.seconds += 0.5
        assert stopwatch.seconds_under_way == 0.5
        clock.seconds += seconds
        stopwatch.end_step()
    assert stopwatch.training_seconds == pytest.approx(53.0)
    assert stopwatch.measuring_seconds == pytest.approx(2.5)
    assert stopwatch.step_seconds == pytest.approx(1.0)
    assert stopwatch.overhead == pytest.approx(2.5 / 53)


def test_compiling_is_neither_measuring_nor_training() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    stopwatch.end_step()
    with stopwatch.measuring():
        clock.seconds += 0.5
        with stopwatch.preparing():
            clock.seconds += 30.0
    clock.seconds += 1.0
    stopwatch.end_step()
    clock.seconds += 2.0
    stopwatch.end_step()
    assert stopwatch.measuring_seconds == pytest.approx(0.5)
    assert stopwatch.training_seconds == pytest.approx(3.0)


class CostlyMeter(NumbersMeter):
    """A measurement takes two seconds, and less with fewer examples."""

    def __init__(self, training: NumbersTraining, clock: Clock) -> None:
        super().__init__(training)
        self.clock = clock
        self.all_examples = ALL_EXAMPLES

    def end_step(
        self, learning_rates: Sequence[float], uncounted_decays: Sequence[float]
    ) -> RateEstimate:
        estimate = super().end_step(learning_rates, uncounted_decays)
        self.clock.seconds += 2 * estimate.examples / ALL_EXAMPLES
        return estimate


def events_of(
    steps: int,
    max_overhead: float | None,
    answers: Answers = "background",
    advisor: FakeAdvisor | None = None,
) -> list[Event]:
    """Return the events of a training of steps of one second."""
    events: list[Event] = []
    clock = Clock()

    def schedule(_step: int) -> float:
        clock.seconds += 1.0
        return 0.01

    training = NumbersTraining([1.0, 2.0], schedule)
    training.meter = CostlyMeter(training, clock)
    advisor = advisor or FakeAdvisor([1.0, 0.5], interval_steps=50)
    layout = layout_pb2.Layout(groups=[layout_pb2.Group(name=name) for name in "ab"])
    run = AdvisedRun(
        advisor,
        RunInfo().opening("x", layout, optimizer="SGD", base_learning_rate=0.01),
        size=training.meter.size,
        ranks=OneProcess(),
        listeners=Listeners([events.append]),
        strict=True,
        answers=answers,
        max_overhead=max_overhead,
        stopwatch=Stopwatch(clock),
    )
    run.check()
    training.train(run, steps)
    return events


def test_a_run_keeps_to_its_budget_and_says_what_measuring_costs() -> None:
    advisor = FakeAdvisor([1.0, 0.5], interval_steps=50)
    events = events_of(3_000, 0.01, advisor=advisor)
    measured = [event for event in events if isinstance(event, Measured)]
    sent = [(m.measuring_seconds, m.measuring_overhead) for m in advisor.measurements]
    assert sent == [(event.seconds, event.overhead or 0.0) for event in measured]
    assert not advisor.measurements[0].HasField("measuring_overhead")
    assert (measured[0].estimate.examples, measured[0].estimate.probes) == (16, 4)
    assert measured[0].seconds == pytest.approx(0.5)
    assert measured[0].overhead is None
    assert measured[-1].seconds < 1.0
    assert measured[-1].seconds == pytest.approx(2 * measured[-1].estimate.examples / ALL_EXAMPLES)
    # Fewer examples, but with more probes: the relative error hardly grows.
    assert {e.estimate.probes for e in measured[1:] if 32 >= e.estimate.examples > 8} <= {2, 3, 4}
    assert measured[-1].overhead == pytest.approx(0.01, abs=0.002)
    assert sum(event.seconds for event in measured) / 3_000 <= 0.0105


@pytest.mark.parametrize("answers", ["background", "wait"])
def test_without_a_limit_and_where_answers_are_waited_for_nothing_is_saved(
    answers: Answers,
) -> None:
    limit = None if answers == "background" else 0.01
    measured = [e for e in events_of(500, limit, answers) if isinstance(e, Measured)]
    assert [event.step for event in measured] == list(range(0, 500, 50))
    assert {event.estimate.examples for event in measured} == {ALL_EXAMPLES}


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("answers", ["background", "wait"])
def test_the_limit_has_a_range(limit: float, answers: Answers) -> None:
    with pytest.raises(AttachError, match=rf"max_overhead is {limit}; it is a part of the"):
        events_of(0, limit, answers)
